#!/bin/sh
# Starts the demo's worker in the background:    sh run.sh [N]    with N worker processes, one if N is not given.
# A worker of this folder that already runs is drained first. Output goes to nohup.out here; sh stop.sh ends it.

set -u

usage='usage: sh run.sh [N]    N worker processes, from 1 to 999; 1 if not given'
count=${1-1}
case $count in -h | --help) echo "$usage"; exit 0 ;; esac
if [ $# -gt 1 ]; then
    echo "$usage" >&2
    exit 2
fi
case $count in
    '' | 0* | ????* | *[!0-9]*)
        printf "run.sh: '%s' is not a number of workers\n%s\n" "$count" "$usage" >&2
        exit 2
        ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) && cd "$here" || exit 1
# shellcheck source=demo_app/processes.sh
. "$here/demo_app/processes.sh"

fail() {
    echo "run.sh: $1" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# In this folder the package itself is always found; what matters are the packages that it needs.
has_gearwsgi() {
    new_enough "$1" && "$1" -c 'import gearman, waitress, webob, gearwsgi.cli, gearwsgi.worker.supervisor' 2>/dev/null
}

make_venv() {
    echo "gearwsgi is not installed for python3: setting up $here/.venv"
    if ! new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        for base in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11; do
            new_enough "$base" && break
        done
        new_enough "$base" || fail 'no Python 3.11 or newer was found; PYTHON=/path/to/python3 sh run.sh names one'
        "$base" -m venv --clear .venv || fail "$base can't make .venv (Debian has that in the package python3-venv)"
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable . || fail 'pip failed, see above'
    has_gearwsgi .venv/bin/python || .venv/bin/python -c 'import gearwsgi.worker.supervisor' || fail '.venv is not usable'
}

one_at_a_time

if has_gearwsgi python3; then
    python=python3
else
    has_gearwsgi .venv/bin/python || make_venv
    python=$here/.venv/bin/python
fi
# The interpreter itself: a launcher in between (pyenv's, say) would be another process than the worker.
python=$("$python" -c 'import sys; print(sys.executable)') || exit 1

sh "$here/stop.sh" --locked || exit 1

touch nohup.out "$pidfile" || exit 1
# A worker that was killed may have left half a line.
[ -z "$(tail -c 1 nohup.out)" ] || echo >>nohup.out
offset=$(($(wc -c <nohup.out) + 1))
nohup "$python" "$here/gearman-server.py" --workers "$count" >>nohup.out 2>&1 </dev/null 9<&- &
pid=$!
printf '%s\n%s\n' "$pid" "$(started "$pid")" >"$pidfile"

tries=300 # a minute
until tail -c "+$offset" nohup.out | grep -q '^[-0-9]* [0-9:.,]* [-+][0-9]* worker ready: '; do
    tries=$((tries - 1))
    if [ -z "$(started "$pid")" ]; then
        reason='the worker has ended'
    elif [ $tries -eq 0 ]; then
        reason='the worker is not ready after a minute'
        sh "$here/stop.sh" --locked >&2
    else
        sleep 0.2
        continue
    fi
    rm -f "$pidfile"
    tail -c "+$offset" nohup.out | tail -n 40 >&2
    fail "$reason; the lines above are from $here/nohup.out"
done

# What is shown is to work as it is, in any folder of another terminal.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

settings=
[ -z "${GEARMAN_SERVERS-}" ] || settings="GEARMAN_SERVERS=$(quoted "$GEARMAN_SERVERS") "
[ -z "${GEARWSGI_STATE_DIR-}" ] || settings="${settings}GEARWSGI_STATE_DIR=$(quoted "$GEARWSGI_STATE_DIR") "
gearwsgi="cd $(quoted "$here") && $settings$(quoted "$python") -m gearwsgi"
cat <<END
worker $pid runs with $count process(es)
  its output  tail -f $(quoted "$here/nohup.out")
  queue       $gearwsgi send --app demo_app default.index '{"name": "you"}'
  watch       $gearwsgi status --app demo_app --watch
  end it      sh $(quoted "$here/stop.sh")
END
exit 0 # also where there is no standard output to write that to

#!/bin/sh
# Ends the worker that run.sh has started from this folder:    sh stop.sh
# It finishes the jobs in hand and takes no more; what waits in the queue stays there.

set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) && cd "$here" || exit 1
# shellcheck source=demo_app/processes.sh
. "$here/demo_app/processes.sh"

[ "${1-}" = --locked ] || one_at_a_time # run.sh holds the lock when it calls this

if ! pid=$(worker_pid); then
    if [ "${1-}" != --locked ]; then echo "no worker of $here runs"; fi
    rm -f "$pidfile"
    exit 0
fi

# ends SIGNAL SECONDS: send the signal, wait for the end.
ends() {
    kill -s "$1" "$pid" 2>/dev/null
    tries=$(($2 * 5))
    while worker_pid >/dev/null; do
        [ $tries -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.2
    done
}

# A worker gives its jobs 30 seconds after the first TERM by itself. A second TERM is at once, and KILL is for one
# that is stuck: in all cases what was not finished stays in the queue.
echo "draining worker $pid"
ends TERM 35 ||
    { echo "worker $pid still runs: stopping it at once" && ends TERM 15; } ||
    { echo "worker $pid does not react: killing it" && ends KILL 5; } ||
    { echo "stop.sh: worker $pid can't be ended" >&2 && exit 1; }
rm -f "$pidfile"
echo "worker $pid has ended"

# shellcheck shell=sh
# Read by run.sh and stop.sh, which set $here, the folder they are in. Which process is the worker of this folder?
# A process id alone does not say: ids are used again. So the pid file also keeps when the process started.

# shellcheck disable=SC2154
pidfile=$here/gearwsgi.pid

# When the process of that id started, to the tick; nothing when it has ended. A zombie has ended: in a container
# whose first process collects no children, zombies stay for ever.
started() {
    if [ -r /proc/self/stat ]; then
        # After the name, which may hold spaces and brackets, come the state (1) and the start (20).
        sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'
    else
        TZ=UTC0 LC_ALL=C ps -o state= -o lstart= -p "$1" | sed -n '/^ *[^ Z]/s/^ *[^ ]*  *//p'
    fi
}

command_line() {
    if [ -r /proc/self/cmdline ]; then
        tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline"
    else
        ps -ww -o command= -p "$1"
    fi
}

# Prints the id of the worker of this folder; nothing and false when the pid file is missing, or tells of a process
# that has ended, or of a stranger that has the id now.
worker_pid() {
    [ -f "$pidfile" ] || return 1
    { read -r pid && read -r since; } <"$pidfile" || return 1
    case $pid in '' | 0* | *[!0-9]*) return 1 ;; esac
    [ -n "$since" ] && [ "$(started "$pid")" = "$since" ] || return 1
    case $(command_line "$pid") in
        *" $here/gearman-server.py "*) echo "$pid" ;;
        *) return 1 ;;
    esac
}

# One script of a folder at a time. The lock is on the open file 9, so it ends with this script, however it ends.
one_at_a_time() {
    exec 9<"$here/stop.sh"
    for python in "$here/.venv/bin/python" python3 python; do
        "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 9<&9 2>/dev/null && return
    done
}

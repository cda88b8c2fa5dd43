"""An application whose handlers behave in every way that tests need; each run is one line in the file RECORD names."""

import ctypes
import json
import os
import signal
import stat
import sys
import time

from gearwsgi import GearmanMiddleware, Retry

GOOD = ("200 OK", [("Content-Type", "application/json")])


def record(line):
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def app(environ, start_response):
    job = environ.get("gearwsgi.job")
    name = environ["PATH_INFO"].strip("/").replace("/", "_") or "index"
    data = job.data if job is not None else None
    if job is not None:
        tag = data.get("n", job.id) if isinstance(data, dict) else job.id
        record(f"{name} {tag} {job.attempt}")
    handler = globals().get("do_" + name)
    if handler is None:
        start_response("404 Not Found", [])
        return [b"no such page"]
    return handler(environ, start_response, data if isinstance(data, dict) else {})


def do_good(environ, start_response, data):
    start_response(*GOOD)
    return [json.dumps(data).encode()]


def do_slow(environ, start_response, data):
    deadline = time.monotonic() + data.get("seconds", 0.1)
    while time.monotonic() < deadline:
        time.sleep(0.01)
    if "n" in data:
        record(f"slow-done {data['n']}")
    return do_good(environ, start_response, data)


def do_until(environ, start_response, data):
    """Run until a file exists."""
    while not os.path.exists(data["file"]):
        time.sleep(0.01)
    if "n" in data:
        record(f"until-done {data['n']}")
    return do_good(environ, start_response, data)


def do_boom(environ, start_response, data):
    raise ValueError("boom on purpose")


def do_flaky(environ, start_response, data):
    """Fails until the attempt that `good` names."""
    if environ["gearwsgi.job"].attempt < data.get("good", 2):
        start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"not yet"]
    return do_good(environ, start_response, data)


def do_status(environ, start_response, data):
    headers = [("Content-Type", "text/plain")] + [tuple(pair) for pair in data.get("headers", [])]
    start_response(data["status"], headers)
    return [b"the body of " + data["status"].encode()]


def do_retry(environ, start_response, data):
    if environ["gearwsgi.job"].attempt == 1:
        raise Retry(delay=data.get("delay", 0), reason="asked for")
    return do_good(environ, start_response, data)


def do_exit(environ, start_response, data):
    os._exit(data.get("code", 3))


def do_sysexit(environ, start_response, data):
    sys.exit(3)


def do_kill(environ, start_response, data):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def do_segfault(environ, start_response, data):
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def do_abort(environ, start_response, data):
    os.abort()


def do_fork(environ, start_response, data):
    """Forks, and lets the copy come back too."""
    os.fork()
    return do_good(environ, start_response, data)


def do_corrupt(environ, start_response, data):
    """Writes rubbish to every descriptor there is."""
    for fd in range(3, 64):
        try:
            os.write(fd, b"rubbish" * 100)
        except OSError:
            continue
    return do_good(environ, start_response, data)


def do_scribble(environ, start_response, data):
    """Writes rubbish to every socket there is, and so to nothing that would tell the worker process."""
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, b"rubbish" * 100)
        except OSError:
            continue
    return do_good(environ, start_response, data)


def do_closefds(environ, start_response, data):
    os.closerange(3, 64)
    return do_good(environ, start_response, data)


def do_finally(environ, start_response, data):
    try:
        while True:
            time.sleep(0.01)
    finally:
        record(f"finally {data.get('n')}")


def do_alarm(environ, start_response, data):
    """Has a use of its own for SIGALRM and its timer, as time-out decorators have, and then takes too long."""
    before = signal.signal(signal.SIGALRM, lambda signum, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    return do_finally(environ, start_response, data)


def do_deaf(environ, start_response, data):
    """Catches whatever is raised in it and goes on."""
    while True:
        try:
            while True:
                time.sleep(0.01)
        except Exception:
            continue


def do_ccode(environ, start_response, data):
    """C code that holds the interpreter's lock and never looks at signals."""
    sum(range(10**14))


def do_progress(environ, start_response, data):
    job = environ["gearwsgi.job"]
    job.progress(3, 10)
    while not os.path.exists(data["file"]):
        time.sleep(0.01)
    return do_good(environ, start_response, data)


def do_late(environ, start_response, data):
    """Leaves a thread behind that goes on to report the progress of a job that is over."""
    import threading

    report = environ["gearwsgi.job"].progress
    threading.Thread(target=lambda: [report(n, 5000) for n in range(5000)], daemon=True).start()
    return do_good(environ, start_response, data)


def do_print(environ, start_response, data):
    print("printed by the handler")
    sys.stderr.write("half a line")
    environ["wsgi.errors"].write("to wsgi.errors\n")
    return do_good(environ, start_response, data)


def do_big(environ, start_response, data):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 65536 for _ in range(data.get("megabytes", 100) * 16))


def do_grow(environ, start_response, data):
    globals().setdefault("_kept", []).append(bytearray(os.urandom(1 << 20) * data.get("megabytes", 50)))
    return do_good(environ, start_response, data)


def do_leak(environ, start_response, data):
    """Leaves a thread and open files behind."""
    import threading

    threading.Thread(target=time.sleep, args=(3600,)).start()
    globals().setdefault("_files", []).extend(open(os.devnull) for _ in range(20))  # noqa: SIM115
    return do_good(environ, start_response, data)


def do_version(environ, start_response, data):
    import version

    record(f"ran-version {version.VERSION} {data.get('n')}")
    return do_good(environ, start_response, data)


def do_chain(environ, start_response, data):
    """Queues another task from within a replay."""
    task = environ["gearman"].task("/good", {"n": "chained"}, environ["gearwsgi.job"].queue)
    start_response(*GOOD)
    return [task.id.encode()]


def do_queue(environ, start_response, data):
    """A page that queues, for requests that come from outside."""
    n = environ.get("QUERY_STRING", "")
    task = environ["gearman"].task("/good", {"n": n})
    start_response(*GOOD)
    return [str(task).encode()]


def do_pid(environ, start_response, data):
    record(f"pid {os.getpid()}")
    return do_good(environ, start_response, data)


settings = json.loads(os.environ.get("SETTINGS", "{}"))
settings.setdefault("backoff_min", 0.01)
settings.setdefault("backoff_max", 0.05)
application = GearmanMiddleware(app, **settings)

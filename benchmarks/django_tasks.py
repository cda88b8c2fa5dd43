"""Django's own Tasks: gearwsgi's backend and django-tasks-db, both with their results in one PostgreSQL."""

import json
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Running, Trouble, free_port, listens, wait_for
from benchmarks.measures import Bench, Sample
from benchmarks.venv import ROOT

COUNT = 10_000
LATENCIES = 40
SITE = "benchmarks.peers.django_site"
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)


def measure(bench: Bench, turn: int) -> None:
    """10,000 tasks: queued one by one, drained by one worker, and the time from the call to the function's start."""
    server = _postgres(bench)
    try:
        names = ["gearwsgi", "django-tasks-db"]
        for name in names if turn % 2 == 0 else names[::-1]:
            _measure_one(bench, turn, name)
    finally:
        bench.stage.stop(server)


def _measure_one(bench: Bench, turn: int, name: str) -> None:
    environ = {"DJANGO_SETTINGS_MODULE": f"{SITE}.settings", "BENCH_BACKEND": name}
    count = bench.scaled(COUNT)
    _run(bench, environ, "-m", "django", "migrate", "--verbosity=0", "--skip-checks")
    start = bench.take(count)
    queued = json.loads(_run(bench, environ, "-m", f"{SITE}.jobs", str(start), str(count), "0"))
    rate, cpu = count / queued["seconds"], queued["cpu"] / count * 1e6
    bench.results.note("django enqueue", name, turn, Sample(rate, cpu))

    command = [sys.executable, "-m", "django", "db_worker", "--queue-name", "default"]
    if name == "gearwsgi":
        application = f"{SITE}.wsgi:application"
        command = [sys.executable, "-m", "gearwsgi", "worker", application, "-w", "1", "--log-level", "warning"]
    worker = bench.stage.start(f"{name} worker of Django", command, **environ)
    try:
        bench.stamps.wait(start, count, 200, [worker])
        seen = bench.stamps.all(start, count)
        seconds = (max(each.ended for each in seen) - min(each.began for each in seen)) / 1e9
        bench.results.note("django drain", name, turn, Sample(count / seconds))
        start = bench.take(LATENCIES)
        queued = json.loads(_run(bench, environ, "-m", f"{SITE}.jobs", str(start), str(LATENCIES), "0.05"))
        bench.stamps.wait(start, LATENCIES, 100, [worker])
        seen = bench.stamps.all(start, LATENCIES)
        waits = [(each.began - began) / 1e6 for each, began in zip(seen, queued["began"], strict=True)]
        bench.results.note("django latency", name, turn, Sample(statistics.median(waits)))
    finally:
        bench.stage.stop(worker)


def _run(bench: Bench, environ: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=bench.stage.environ | environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Trouble(f"{' '.join(arguments[:3])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _postgres(bench: Bench) -> Running:
    """A new PostgreSQL as it comes, which syncs each commit; its URL is in the environment of what is started later."""
    programs = os.pathsep.join([*map(str, _FOLDERS), os.environ.get("PATH", "")])
    initdb, postgres = shutil.which("initdb", path=programs), shutil.which("postgres", path=programs)
    if initdb is None or postgres is None:
        raise Trouble("PostgreSQL is not installed (Debian: postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="gearwsgi-bench-pg-")), free_port()
    user, drop = pwd.getpwuid(os.geteuid()).pw_name, list[str]()
    if os.geteuid() == 0:  # it refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)
        drop = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
    made = [*drop, initdb, "-D", str(folder / "data"), "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run(made, check=True, capture_output=True, cwd="/")
    command = [*drop, postgres, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    running = bench.stage.start("postgres", command)
    bench.stage.environ["BENCH_POSTGRES"] = f"postgresql://{user}@127.0.0.1:{port}/postgres"
    wait_for(lambda: listens(port), 20, "PostgreSQL")
    return running

"""A worker process from its fork to its end: what is forked, hooks, exit functions, and what a job leaves behind."""

import json
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support import PATIENCE, Bench, until

BASE = """
import atexit, contextvars, json, os, signal, sys, tempfile, threading, time
from gearwsgi import GearmanMiddleware, on_worker_exit, on_worker_start

def record(line):
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (line + "\\n").encode())
    os.close(fd)

def work(environ):
    record(f"job {os.getpid()}")

def app(environ, start_response):
    work(environ)
    start_response("200 OK", [])
    return [b"ok"]

application = GearmanMiddleware(app)
"""


def write_app(site: Bench, code: str) -> str:
    """An application of this code on top of the base."""
    (site.folder / "life.py").write_text(BASE + code)
    return "life:application"


def run_jobs(site: Bench, count: int) -> None:
    """Queue jobs, and wait until they have run."""
    gearman = site.app().gearman
    done = len(site.lines())
    for _ in range(count):
        gearman.task("/work")
    until(lambda: len([line for line in site.lines()[done:] if line.startswith("job ")]) == count)
    until(lambda: site.server.queued() == 0)


def by_process(site: Bench) -> dict[str, list[str]]:
    """What each process has recorded, in its order."""
    found: dict[str, list[str]] = {}
    for line in site.lines():
        event, pid = line.split()
        found.setdefault(pid, []).append(event)
    return found


HOOKS = """
atexit.register(lambda: record(f"atexit-of-import {os.getpid()}"))

@on_worker_start
def begin():
    record(f"start {os.getpid()}")
    atexit.register(lambda: record(f"atexit-of-start {os.getpid()}"))

@on_worker_exit
def end():
    record(f"exit {os.getpid()}")

on_worker_exit(lambda: 1 / 0)  # which harms no other
"""
LIFE = ["start", "job", "exit", "atexit-of-start", "atexit-of-import"]


@pytest.mark.parametrize("options", [[], ["--no-preload"]], ids=["preload", "no-preload"])
@pytest.mark.parametrize("how", ["stop", "reload", "max-jobs", "max-rss"])
def test_hooks_and_exit_functions_run_at_every_end_in_their_order(
    embedded_site: Bench, how: str, options: list[str]
) -> None:
    site = embedded_site
    more = {"max-jobs": ["--max-jobs", "1"], "max-rss": ["--max-rss", "1"]}.get(how, [])
    worker = site.worker("--workers", "1", *more, *options, app=write_app(site, HOOKS))
    run_jobs(site, 1)
    if how == "stop":
        assert worker.stop() == 0
    elif how == "reload":
        worker.signal(signal.SIGHUP)
    until(lambda: LIFE in by_process(site).values())
    assert "ZeroDivisionError" in worker.log


def test_a_start_hook_that_raises_says_why_and_another_process_is_tried(embedded_site: Bench) -> None:
    site = embedded_site
    flag = site.folder / "may-start"
    code = f"""
@on_worker_start
def begin():
    if not os.path.exists({str(flag)!r}):
        raise RuntimeError("no database yet")
"""
    worker = site.worker("--workers", "1", app=write_app(site, code))
    worker.wait_for("RuntimeError: no database yet")
    worker.wait_for("a worker process did not start: exited with code 1")
    flag.touch()
    run_jobs(site, 1)
    assert worker.stop() == 0


def test_exit_functions_that_hang_are_cut_off_with_the_place_where_they_hang(embedded_site: Bench) -> None:
    site = embedded_site
    code = "\ndef hang():\n    threading.Event().wait()\natexit.register(hang)\n"
    worker = site.worker("--workers", "1", app=write_app(site, code))
    run_jobs(site, 1)
    assert worker.stop() == 0
    assert "the exit functions of a worker process did not end within 5 s" in worker.log
    assert "in hang" in worker.log


def test_threads_that_a_job_left_behind_keep_no_process(embedded_site: Bench) -> None:
    site = embedded_site
    code = "\ndef work(environ):\n    record(f'job 1')\n    threading.Thread(target=threading.Event().wait).start()\n"
    worker = site.worker("--workers", "1", app=write_app(site, code))
    run_jobs(site, 1)
    assert worker.stop() == 0
    assert "did not end" not in worker.log


def test_what_was_made_for_all_processes_outlives_the_end_of_one(embedded_site: Bench) -> None:
    site = embedded_site
    code = """
folder = tempfile.TemporaryDirectory()
import multiprocessing
helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,), daemon=True)
helper.start()
def work(environ):
    os.kill(helper.pid, 0)
    with open(f"/proc/{helper.pid}/stat") as file:
        assert file.read().split()[2] not in "ZX"
    record(f"job {os.path.isdir(folder.name)}")
"""
    site.worker("--workers", "1", "--max-jobs", "1", app=write_app(site, code))
    run_jobs(site, 3)
    assert site.runs() == {"job True": 3}


# -- what must not be forked ------------------------------------------------------------------------------------------


@pytest.fixture
def database() -> Iterator[int]:
    """The port of a server that keeps its connections; what it is sent it sends back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


CONNECTS = """
import socket
connection = socket.create_connection(("127.0.0.1", {port}))
def work(environ):
    me = str(os.getpid()).encode()
    connection.sendall(me)
    record(f"job {{connection.recv(100) == me}}-{{connection.getsockname()[1]}}")
"""


def test_a_connection_of_import_is_no_two_processes_and_said_aloud(embedded_site: Bench, database: int) -> None:
    site = embedded_site
    worker = site.worker("--workers", "2", app=write_app(site, CONNECTS.format(port=database)))
    assert "WARNING: the application has opened connections while it was loaded" in worker.log
    assert f"(127.0.0.1:{database})" in worker.log
    run_jobs(site, 200)
    answers = {line.split()[1] for line in site.lines()}
    assert len(answers) == 2 and all(answer.startswith("True-") for answer in answers)
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    assert worker.stop() == 0


def test_a_connection_of_import_under_preload_is_an_error_that_names_it(embedded_site: Bench, database: int) -> None:
    site = embedded_site
    worker = site.start_worker("--preload", app=write_app(site, CONNECTS.format(port=database)))
    assert worker.process.wait(PATIENCE) == 4
    assert f"opens connections while it is loaded (127.0.0.1:{database})" in worker.log


def test_check_names_a_connection_of_import(embedded_site: Bench, database: int) -> None:
    app = write_app(embedded_site, CONNECTS.format(port=database))
    findings = json.loads(embedded_site.run("check", app, "--json", ok=False).stdout)
    [found] = [each for each in findings if f"127.0.0.1:{database}" in each["text"]]
    assert found["state"] == "warning" and f"127.0.0.1:{database}" in found["text"]


def test_an_sqlite_connection_of_import_is_not_forked(embedded_site: Bench) -> None:
    site = embedded_site
    code = """
import sqlite3
database = sqlite3.connect("life.sqlite3")
database.execute("create table if not exists t (n)")
"""
    assert "life.sqlite3)" in site.worker("--workers", "1", app=write_app(site, code)).log


def test_an_event_loop_of_import_is_no_two_processes(embedded_site: Bench) -> None:
    site = embedded_site
    code = """
import asyncio
loop = asyncio.new_event_loop()
def work(environ):
    for _ in range(20):  # each is woken by a thread, through the loop's own socket
        loop.run_until_complete(asyncio.wait_for(loop.run_in_executor(None, lambda: None), 10))
    record("job done")
"""
    worker = site.worker("--workers", "2", app=write_app(site, code))
    assert "opened connections while it was loaded (an event loop of asyncio)" in worker.log
    run_jobs(site, 50)
    assert site.runs() == {"job done": 50}


HARMLESS = {
    "datagrams": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.connect(('127.0.0.1', 514))\n",
    "a pair": "import socket\npair = socket.socketpair()\n",
    "a closed event loop": "import asyncio\nasyncio.run(asyncio.sleep(0))\n",
    "a listener": "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n",
    "a closed one": "import socket\nsocket.create_connection(('127.0.0.1', {port})).close()\n",
    "one in a circle": (
        "import socket\nclass C: pass\nc = C()\nc.c = c\n"
        "c.s = socket.create_connection(('127.0.0.1', {port}))\ndel c\n"
        "import warnings\nwarnings.simplefilter('ignore')\n"
    ),
    "our own": "application.gearman.task('/work')\n",
}


def test_what_is_harmless_when_it_is_forked_keeps_the_preload(embedded_site: Bench, database: int) -> None:
    site = embedded_site
    code = "".join(HARMLESS.values()).format(port=database) + "record('loaded 0')\n"
    worker = site.worker("--workers", "2", app=write_app(site, code))
    assert "WARNING" not in worker.log
    assert site.lines().count("loaded 0") == 1
    assert worker.stop() == 0


DJANGO = """
import django
from django.conf import settings
from django.core.cache.backends.locmem import LocMemCache

class Counting(LocMemCache):
    def __init__(self, *given):
        record(f"cache {os.getpid()}")
        super().__init__(*given)

settings.configure(
    SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.sqlite3"}},
    CACHES={"default": {"BACKEND": __name__ + ".Counting", "LOCATION": "x"}},
)
django.setup()
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path
from django.utils import translation

def view(request):
    cache.set("a", 1)
    record(f"job {translation.get_language()}")
    translation.activate("de")
    return HttpResponse("ok")

urlpatterns = [path("work", view)]
connection.cursor().execute("select 1")
application = GearmanMiddleware(get_wsgi_application())
"""


def test_django_keeps_its_caches_connections_and_nothing_else_between_jobs(embedded_site: Bench) -> None:
    site = embedded_site
    worker = site.worker("--workers", "1", app=write_app(site, DJANGO))
    assert "WARNING" not in worker.log  # its database connection was closed before the fork
    for _ in range(20):
        site.app().gearman.task("GET /work")
    until(lambda: site.runs()["job en-us"] == 20)
    made = [line for line in site.lines() if line.startswith("cache ")]
    assert len(made) == 1
    assert worker.stop() == 0


def test_a_context_variable_of_a_start_hook_is_seen_by_all_jobs_and_a_jobs_by_none(embedded_site: Bench) -> None:
    site = embedded_site
    code = """
own = contextvars.ContextVar("own")
leak = contextvars.ContextVar("leak", default=0)
on_worker_start(lambda: own.set("connection") and None)
def work(environ):
    record(f"job {own.get()}-{leak.get()}")
    leak.set(leak.get() + 1)
    own.set("another")
"""
    site.worker("--workers", "1", app=write_app(site, code))
    run_jobs(site, 3)
    assert site.runs() == {"job connection-0": 3}


# -- what a handler does to its process -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--no-preload"]], ids=["preload", "no-preload"])
def test_gevents_patches_are_borne_with_and_without_preload(embedded_site: Bench, options: list[str]) -> None:
    pytest.importorskip("gevent")
    site = embedded_site
    code = "\ndef work(environ):\n    time.sleep(0.001)\n    record(f'job {os.getpid()}')\n"
    name = write_app(site, code)
    source = (site.folder / "life.py").read_text()
    (site.folder / "life.py").write_text("from gevent import monkey\nmonkey.patch_all()\n" + source)
    worker = site.worker("--workers", "2", "--max-jobs", "5", *options, app=name)
    run_jobs(site, 30)
    assert "killed by" not in worker.log
    assert worker.stop() == 0


def test_a_signal_to_the_handlers_process_group_reaches_no_other_process(embedded_site: Bench) -> None:
    site = embedded_site
    code = """
def work(environ):
    os.kill(0, signal.SIGTERM)
    os.kill(0, signal.SIGINT)
    record(f"job {os.getpid()}")
"""
    worker = site.worker("--workers", "2", app=write_app(site, code))
    run_jobs(site, 10)
    assert "received" in worker.log and "SIGTERM received" not in worker.log and "SIGINT received" not in worker.log
    code = "\ndef work(environ):\n    record('job 9')\n    os.killpg(os.getpgrp(), signal.SIGKILL)\n"
    (site.folder / "life.py").write_text(BASE + code)
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    site.app().gearman.task("/work", max_attempts=1)
    worker.wait_for("killed by SIGKILL")
    assert worker.process.poll() is None
    assert worker.stop() == 0


def test_a_traceback_is_found_by_the_tasks_id(embedded_site: Bench) -> None:
    site = embedded_site
    worker = site.worker("--workers", "1", app=write_app(site, "\ndef work(environ):\n    1 / 0\n"))
    task = site.app().gearman.task("/work", max_attempts=1)
    worker.wait_for(" dead ")
    told = [line for line in worker.log.splitlines() if task.id in line]
    assert any(line.endswith("| ZeroDivisionError: division by zero") for line in told)

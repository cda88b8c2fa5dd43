"""`gearwsgi dev`: everything in one terminal, reloaded on a change, and nothing left of it."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PATIENCE, until

SITE = """
from gearwsgi import GearmanMiddleware

ANSWER = "old"

def app(environ, start_response):
    if environ["PATH_INFO"] == "/start":
        environ["gearman"].task("work.do", {"q": environ["QUERY_STRING"]}, after_response=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    job = environ.get("gearwsgi.job")
    return [f"{ANSWER} {job.data if job else ''}".encode()]

# Addresses and folders that a developer's machine must not touch.
application = GearmanMiddleware(app, servers="192.0.2.1:4730", state_dir="/nonexistent/production")
"""
MARK = "GEARWSGI_DEV_TEST"


class Dev:
    """`gearwsgi dev` as a process, with what it has written so far."""

    def __init__(self, folder: Path, site: str = SITE) -> None:
        self.folder = folder
        self.site = folder / "site_of_dev.py"
        self.site.write_text(site)
        self.out = folder / "out.txt"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("GEAR")}
        self.env[MARK] = str(folder)
        self.process: subprocess.Popen[bytes] | None = None
        self.command = [sys.executable, "-m", "gearwsgi", "dev", "site_of_dev:application", "-p", "0"]
        self.command += ["--jobs-port", "0"]  # the usual one may be another test's

    def start(self, *arguments: str) -> "Dev":
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [*self.command, *arguments],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return self

    @property
    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def line(self, pattern: str, count: int = 1) -> str:
        """Wait for the so manieth line that matches."""

        def found() -> str | None:
            lines = [line for line in self.text.splitlines() if re.search(pattern, line)]
            if len(lines) >= count:
                return lines[count - 1]
            assert self.process is not None
            assert self.process.poll() is None, self.text
            return None

        try:
            return until(found, pattern) or ""
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}") from None

    def get(self, path: str) -> str:
        url = self.line(r"dev \| http://").split()[2]
        with urllib.request.urlopen(url + path.lstrip("/"), timeout=PATIENCE) as response:
            text: str = response.read().decode()
            return text

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def processes(self) -> list[int]:
        """Everything that came from it, found by the environment that it was started with."""
        mark = f"{MARK}={self.folder}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found


@pytest.fixture
def make_dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    made: list[Dev] = []

    def make(site: str = SITE) -> Dev:
        made.append(Dev(tmp_path, site))
        return made[-1]

    yield make
    for dev in made:
        for pid in dev.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if dev.process is not None:
            dev.process.wait()


def test_a_request_and_its_task_have_a_line_each_with_the_same_id_and_ctrl_c_leaves_nothing(
    make_dev: Callable[..., Dev],
) -> None:
    dev = make_dev().start()
    dev.line("worker ready: 2 workers")
    assert dev.get("/start?a=1").startswith("old")
    request = dev.line(r"^   web \| .* GET /start\?a=1 200 OK in .* queued id [0-9a-f]{32}$")
    task_id = request.rpartition(" ")[2]
    assert dev.line(r"dev \| dashboard http://.*/-/gearwsgi/$").endswith(
        dev.line(r"dev \| http://").split()[2] + "-/gearwsgi/"
    )
    assert "<h1>Dead letters</h1>" in dev.get("/-/gearwsgi/dead")
    assert "/-/gearwsgi/" not in dev.text.partition("GET /start")[2]
    assert dev.line(rf"^worker \| .* result .*200 OK .* id {task_id}$").count("'q': 'a=1'") == 1
    assert "\x1b" not in dev.text, "colours are for terminals"
    assert (dev.folder / "var" / "gearwsgi-dev" / "jobs.sqlite3").exists()
    assert not (dev.folder / "var" / "gearwsgi").exists()
    assert dev.end() == 0
    assert dev.processes() == []
    assert "worker stopped" in dev.text


def test_a_change_reloads_web_and_workers_and_loses_neither_request_nor_job(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev().start()
    dev.line("worker ready")
    sent: list[str] = []

    def ask() -> str:
        sent.append(f"n{len(sent)}.")
        return dev.get(f"/start?{sent[-1]}")

    assert ask().startswith("old")
    dev.site.write_text(SITE.replace('"old"', '"new"'))
    until(lambda: ask().startswith("new"), "the new code")
    dev.line("worker ready", 2)
    until(lambda: ask() and " result " in dev.text and "new {'q'" in dev.text, "a task of the new code")
    for name in sent:
        dev.line(rf"result .*200 OK .*'q': '{re.escape(name)}'")
    # What can't be loaded changes nothing.
    dev.site.write_text("this is no Python")
    dev.line("SyntaxError")
    dev.line(r"web .*ERROR: .*site_of_dev")
    dev.line("reload failed, the old code goes on serving")
    dev.line("reload failed, the old code goes on:")
    assert ask().startswith("new")
    assert dev.end(signal.SIGTERM) == 0
    assert dev.processes() == []


def test_an_application_that_does_not_load_ends_it_with_the_traceback(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev("import no_such_module_anywhere\n").start()
    assert dev.process is not None
    assert dev.process.wait(PATIENCE) == 4
    assert "ModuleNotFoundError" in dev.text and "site_of_dev.py" in dev.text
    assert dev.processes() == []


def test_a_second_ctrl_c_is_at_once_and_the_job_runs_the_next_time(make_dev: Callable[..., Dev]) -> None:
    slow = SITE.replace("    job = environ", "    wait(environ)\n    job = environ").replace(
        "def app(", "import os, time\n\ndef wait(environ):\n    while environ['PATH_INFO'] == '/work/do' and "
        "not os.path.exists('go'):\n        time.sleep(0.01)\n\ndef app("
    )  # fmt: skip
    dev = make_dev(slow).start()
    dev.line("worker ready")
    dev.get("/start?n=1")
    dev.line("received work.do")
    assert dev.process is not None
    dev.process.send_signal(signal.SIGINT)
    dev.line("worker draining")
    assert dev.end() == 0
    until(lambda: not dev.processes(), "the end of its processes")
    (dev.folder / "go").touch()
    dev.start()
    dev.line("result .*'q': 'n=1'")
    assert dev.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_killed_it_still_leaves_nothing(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev().start()
    dev.line("worker ready")
    dev.end(signal.SIGKILL)
    until(lambda: not dev.processes(), "the end of its processes")


def test_a_port_that_is_taken_is_one_line(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dev.start("-p", str(taken.getsockname()[1]))
        assert dev.process is not None
        assert dev.process.wait(PATIENCE) == 3
    (line,) = dev.text.splitlines()
    assert "--port" in line


def test_a_second_one_in_the_same_folder_is_told_of_the_state_directory(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev().start()
    dev.line("worker ready")
    second = subprocess.run(dev.command, cwd=dev.folder, env=dev.env, capture_output=True, text=True, timeout=PATIENCE)
    assert second.returncode == 1
    assert "is in use by the server with pid" in second.stdout + second.stderr
    assert "--state-dir" in second.stdout.splitlines()[-1], second.stdout
    assert dev.end() == 0


DJANGO = """
import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], DEBUG=True, STATIC_URL="static/",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin",
                    "django.contrib.messages", "django.contrib.staticfiles"],
)
django.setup()

from django.core.wsgi import get_wsgi_application
from django.urls import path
from gearwsgi import GearmanMiddleware


def boom(request):
    raise LookupError("boom in a view")


urlpatterns = [path("boom", boom)]
application = GearmanMiddleware(get_wsgi_application())
"""


def test_django_says_each_error_once_and_has_the_static_files_of_its_admin(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev(DJANGO).start()
    dev.line("worker ready")
    for path, code in {"/boom": 500, "/no/such/page": 404}.items():
        with pytest.raises(urllib.error.HTTPError) as caught:
            dev.get(path)
        with caught.value as answered:
            assert answered.code == code
    assert "--primary" in dev.get("/static/admin/css/base.css")
    dev.line("GET /static/admin/css/base.css 200 OK")
    assert dev.text.count("LookupError: boom in a view") == 1, dev.text
    assert dev.text.count("Not Found: /no/such/page") == 1, dev.text
    assert dev.end() == 0


def test_on_a_terminal_the_prefixes_have_colours(make_dev: Callable[..., Dev]) -> None:
    dev = make_dev()
    ours, theirs = pty.openpty()
    dev.env.pop("NO_COLOR", None)
    command = [*dev.command, "--no-reload"]
    dev.process = subprocess.Popen(command, cwd=dev.folder, env=dev.env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    while b"worker ready" not in text:
        text += os.read(ours, 65536)
    dev.process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # a terminal that is gone is EIO on Linux
        while data := os.read(ours, 65536):
            text += data
    assert dev.process.wait(PATIENCE) == 0
    os.close(ours)
    assert b"\x1b[35m  jobs |\x1b[0m" in text and b"\x1b[32mworker |\x1b[0m" in text

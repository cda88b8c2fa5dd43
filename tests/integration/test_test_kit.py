"""The test kit in other people's test runs: the pytest plugin, Django's test client, a real worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from gearwsgi.testing import live

DJANGO = """
import django
from django.conf import settings

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"], MIDDLEWARE=[])
django.setup()

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from gearwsgi import GearmanMiddleware
from gearwsgi.testing import capture


def signup(request):
    request.environ["gearman"].task("mail.welcome", {"to": request.POST["name"]}, after_response=True)
    return HttpResponse("welcome", status=400 if request.POST["name"] == "bad" else 200)


def mail(request):
    if "HTTP_X_GEARMAN_TASK" not in request.META:
        return HttpResponse("only for tasks", status=403)
    return HttpResponse("mail")


def boom(request):
    raise LookupError("boom in Django")


urlpatterns = [path("signup", signup), path("mail/welcome", mail), path("boom", boom)]
application = GearmanMiddleware(get_wsgi_application(), servers="127.0.0.1:1", tasks_only=["/mail/*"])


def test_it():
    client = Client()
    with capture(application) as tasks:
        tasks.attach(client)
        assert client.post("/signup", {"name": "bad"}).status_code == 400
        assert len(tasks) == 0
        response = client.post("/signup", {"name": "Ada"})
        assert response.content == b"welcome" and response.status_code == 200
        assert client.post("/mail/welcome", headers={"X-Gearman-Task": "1"}).status_code == 404
        assert tasks[0].data == {"to": "Ada"} and tasks[0].headers["Idempotency-Key"] == tasks[0].id
        (run,) = tasks.run()
        assert run.body == b"mail"
        application.gearman.task("/boom")
        try:
            tasks.run()
        except LookupError as error:
            assert str(error) == "boom in Django"
        else:
            raise AssertionError("not raised")
"""


def run_pytest(folder: Path, *arguments: str, **files: str) -> str:
    """Run pytest in a process of its own on these files, with our plugin; its output."""
    for name, text in files.items():
        (folder / (name.replace("__", ".") if "__" in name else f"{name}.py")).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "gearwsgi.pytest_plugin"]
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
    done = subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    return done.stdout + done.stderr


def test_djangos_test_client_works(tmp_path: Path) -> None:
    assert "1 passed" in (out := run_pytest(tmp_path, "test_django.py", test_django=DJANGO)), out


SITE = """
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    if environ["PATH_INFO"] == "/start":
        environ["gearman"].task("work.do", {"n": 7})
    if environ["PATH_INFO"] == "/fail":
        start_response("403 Forbidden", [])
        return [b"no"]
    start_response("200 OK", [])
    return [b"did " + str(environ.get("gearwsgi.job") and environ["gearwsgi.job"].data).encode()]

# An address that no test may reach; and what is due by the clock, which a live worker has nothing to do with.
application = GearmanMiddleware(app, servers="192.0.2.1:4730", schedule={"work.do": "@yearly"})
"""


def test_the_plugin_brings_a_queue_in_memory_and_a_real_one(tmp_path: Path) -> None:
    tests = """
import site_under_test
from webtest import TestApp

def test_memory(gearman_tasks):
    TestApp(site_under_test.application).get("/start")
    (run,) = gearman_tasks.run()
    assert run.body == b"did {'n': 7}"

def test_live(gearman_live):
    TestApp(site_under_test.application).get("/start")
    site_under_test.application.gearman.task("/fail")
    gearman_live.wait()
    assert "did {'n': 7}" in gearman_live.log
    assert [letter.target for letter in gearman_live.dead] == ["POST /fail"]
"""
    out = run_pytest(
        tmp_path, site_under_test=SITE, test_it=tests, pytest__ini="[pytest]\ngearwsgi_app=site_under_test\n"
    )
    assert "2 passed" in out, out


def test_the_plugin_says_what_to_do_when_it_does_not_know_the_application(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, test_it="def test_it(gearman_tasks): pass", pytest__ini="[pytest]\n")
    assert "set `gearwsgi_app = module:name`" in out and "1 error" in out, out


def test_a_live_worker_runs_the_code_with_the_job_server_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site_of_live.py").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with live("site_of_live:application") as running:
        import site_of_live  # type: ignore[import-not-found]

        task = site_of_live.application.gearman.task("work.do", {"n": 8})
        running.wait()
        assert f"id {task.id}" in running.log and "did {'n': 8}" in running.log
        assert running.dead == [] and running.state_dir.is_dir()
    assert not running.state_dir.exists()


GUARDED = """
import unittest

import pytest
import site_under_test
from webtest import TestApp

gearman = site_under_test.application.gearman


def test_by_accident():
    gearman.task("work.do")

def test_swallowed():
    try:
        gearman.call("work.do")
    except BaseException:
        pass

class TestCaseToo(unittest.TestCase):
    def test_of_a_class(self):
        TestApp(site_under_test.application).get("/start")

@pytest.fixture
def early():
    gearman.task("work.do")

def test_in_a_fixture(early):
    pass

def test_captured(gearman_tasks):
    gearman.task("work.do")
    assert gearman.call("work.do").status_code == 200
    assert len(gearman_tasks) == 1

@pytest.mark.gearwsgi_allow
def test_meant():
    task = gearman.task("work.do")
    assert not task.handle  # no job server is there: it is in the outbox
"""
GUARDED_SITE = SITE.replace('"192.0.2.1:4730"', '"127.0.0.1:1", state_dir="state"')


@pytest.mark.parametrize("ini", ["gearwsgi_app = site_under_test", "gearwsgi_block = true", "--gearwsgi-block"])
def test_a_test_that_queues_real_work_by_accident_fails(tmp_path: Path, ini: str) -> None:
    fixture = (
        "import pytest, site_under_test\n\n@pytest.fixture\ndef gearman_app():\n    return site_under_test.application"
    )
    out = run_pytest(
        tmp_path, "--strict-markers", "-rA", *[ini] * ini.startswith("-"), site_under_test=GUARDED_SITE,
        test_it=GUARDED, conftest=fixture if "block" in ini else "",
        pytest__ini=f"[pytest]\n{'' if ini.startswith('-') else ini}\n",
    )  # fmt: skip
    assert "3 failed, 2 passed" in out and "1 error" in out, out
    for name in ("test_captured", "test_meant"):
        assert f"PASSED test_it.py::{name}" in out, out
    assert "this would queue real work: 'POST http://localhost/work/do HTTP/1.1' on 127.0.0.1:1" in out, out
    for way_out in ("gearman_tasks", "capture(application)", "@pytest.mark.gearwsgi_allow", "gearwsgi_block = false"):
        assert way_out in out, out
    assert len(list((tmp_path / "state" / "outbox").glob("*.http"))) == 1, "what was refused was not queued"


@pytest.mark.parametrize(
    ("ini", "options"),
    [
        ("", []),
        ("gearwsgi_app = site_under_test\ngearwsgi_block = false", []),
        ("gearwsgi_app = site_under_test\ngearwsgi_block = true", ["--no-gearwsgi-block"]),
    ],
)
def test_nothing_is_refused_where_nobody_asked_for_that(tmp_path: Path, ini: str, options: list[str]) -> None:
    test = "import site_under_test\n\ndef test_it():\n    site_under_test.application.gearman.task('work.do')\n"
    out = run_pytest(
        tmp_path,
        "-W",
        "error",
        *options,
        site_under_test=GUARDED_SITE,
        test_it=test,
        pytest__ini=f"[pytest]\n{ini}\n",
    )
    assert "1 passed" in out, out


FACTORY = """
import os
import pytest
from gearwsgi import GearmanMiddleware


def make_app(greeting):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/first":
            environ["gearman"].task("/second")
        if environ["PATH_INFO"] == "/kill":
            os._exit(9)
        start_response("200 OK", [])
        return [f"{greeting} {environ['PATH_INFO']}".encode()]

    return GearmanMiddleware(app, servers="192.0.2.1:4730", secret_keys=["a key that has its length"])


@pytest.fixture
def gearman_app(monkeypatch):
    monkeypatch.setenv("GREETING", "hello from a fixture")
    return make_app(os.environ["GREETING"])


def test_live(gearman_app, gearman_live, capsys):
    gearman_app.gearman.task("/first")
    gearman_live.put(b"PUT /third HTTP/1.1\\r\\n\\r\\n")
    gearman_app.gearman.task("/kill", max_attempts=1)
    gearman_live.wait()
    assert "hello from a fixture /second" in gearman_live.log, gearman_live.log
    assert "hello from a fixture /third" in gearman_live.log, gearman_live.log
    (letter,) = gearman_live.dead
    assert "exit" in letter.reason and letter.target == "POST /kill"
    assert capsys.readouterr() == ("", "")
"""


def test_a_live_worker_has_the_application_that_a_fixture_made(tmp_path: Path) -> None:
    out = run_pytest(tmp_path, "-W", "error", test_it=FACTORY, pytest__ini="[pytest]\ngearwsgi_block = true\n")
    assert "1 passed" in out, out


STRICT = """
import gearwsgi.contrib.django
import gearwsgi.contrib.flask
from flask import Flask, request


def make_app():
    app = Flask(__name__)
    gearwsgi.contrib.flask.Gearman(app, servers="127.0.0.1:1")

    @app.post("/sum/up")
    def sum_up():
        return {"sum": sum(request.json)}

    return app


def test_a_call(gearman_tasks):
    assert gearman_tasks.middleware.gearman.call("sum.up", [1, 2]).json == {"sum": 3}
"""


def test_a_test_run_in_which_warnings_are_errors_passes(tmp_path: Path) -> None:
    fixture = "import pytest, test_it\n\n@pytest.fixture\ndef gearman_app():\n    return test_it.make_app()\n"
    out = run_pytest(tmp_path, "-W", "error", test_it=STRICT, conftest=fixture)
    assert "1 passed" in out, out


def test_the_test_kit_does_not_import_webob() -> None:
    code = "import gearwsgi.testing, gearwsgi.pytest_plugin, sys; assert 'webob' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

"""Django's own: CSRF, the transaction's commit, manage.py, and a project that checks hosts and demands HTTPS."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.frameworks.conftest import HOST, MOUNT, framework_site
from tests.serving import Answer, Site
from tests.support import Bench, Worker, bench, until

pytestmark = pytest.mark.xdist_group("django")

FORGED = {
    "X-Gearman-Task": "1",
    "X-Gearman-Attempt": "1",
    "Idempotency-Key": "1",
    "User-Agent": "gearwsgi/0.1",
    "gearwsgi.job": "1",
    "Gearwsgi-Job": "1",
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with framework_site("mysite.wsgi:application") as made:
        yield made


@pytest.fixture(autouse=True)
def afresh(site: Site) -> None:
    site.forget()


def get(site: Site, path: str) -> Answer:
    return site.web.get(MOUNT + path, Host=HOST)


def manage(site: Site, *arguments: str, **env: str) -> str:
    """What `manage.py` prints, started from another folder."""
    command = [sys.executable, str(site.bench.folder / "manage.py"), *arguments]
    done = subprocess.run(
        command, cwd="/", env={**os.environ, **site.env, **env}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def records(site: Site, count: int) -> list[Any]:
    return [(record["kind"], record["got"]) for record in site.records(count)]


def dead(site: Site) -> list[dict[str, Any]]:
    """The dead letters."""
    found: list[dict[str, Any]] = json.loads(site.bench.run("dead", "list", "--json").stdout)
    return found


# -- CSRF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
def test_a_public_post_without_a_token_is_refused_whatever_its_headers_say(site: Site, headers: dict[str, str]) -> None:
    for path in ("/receive/form", "/defer", "/default/index"):
        assert site.web.post(MOUNT + path, {"name": "x"}, Host=HOST, **headers).status == 403
    assert site.bench.lines() == []


def test_without_the_middleware_a_replay_is_refused_too_and_the_dead_letter_says_403() -> None:
    with framework_site("mysite.wsgi:application", WITHOUT_JOB_MIDDLEWARE="1") as site:
        assert site.web.get(f"{MOUNT}/queue/form", Host=HOST).status == 200
        site.worker.wait_for("403")
        listed = until(lambda: site.bench.run("dead", "list").stdout, "the dead letter")
        assert "403" in listed
        assert site.bench.lines() == []


@pytest.mark.parametrize("upload", [False, True], ids=["form", "multipart"])
def test_a_form_that_the_csrf_check_has_read_is_replayed_whole(site: Site, upload: bool) -> None:
    token = get(site, "/token")
    cookie = (token.header("Set-Cookie") or "").partition(";")[0]
    fields = {"csrfmiddlewaretoken": token.text, "name": "Zoë"}
    headers = {"Host": HOST, "Cookie": cookie, "Referer": f"https://{HOST}/"}
    if upload:
        parts = [f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{fields[key]}\r\n' for key in fields]
        headers["Content-Type"] = "multipart/form-data; boundary=b"
        body = ("".join(parts) + "--b--\r\n").encode()
        answer = site.web.send("POST", f"{MOUNT}/defer?page=7", headers.items(), body)
    else:
        answer = site.web.post(f"{MOUNT}/defer?page=7", fields, **headers)
    assert answer.status == 202, site.web.log
    assert records(site, 1) == [("defer", ["Zoë", "7"])]


def test_a_form_that_redirects_is_done_and_one_that_is_sent_to_the_login_is_dead(site: Site) -> None:
    token = get(site, "/token")
    cookie = (token.header("Set-Cookie") or "").partition(";")[0]
    fields = {"csrfmiddlewaretoken": token.text, "name": "Zoë"}
    for path in ("/sign/members", "/sign"):
        sent = site.web.post(MOUNT + path, fields, Host=HOST, Cookie=cookie, Referer=f"https://{HOST}/")
        assert sent.status == 202, site.web.log
    site.worker.wait_for("result 302 Found from /sign")
    assert records(site, 1) == [("sign", "Zoë")]
    (reason,) = [each["reason"] for each in dead(site) if "/sign" in each["reason"]]
    assert "302 Found from POST /sign/members" in reason and f"{MOUNT}/door?next=" in reason and "login" in reason


def test_the_dead_letter_of_a_host_that_django_disallows_says_which_setting(site: Site) -> None:
    site.bench.run("send", "/default/index", '{"name": "x"}')
    site.worker.wait_for("400 Bad Request after Django's ALLOWED_HOSTS does not have 'localhost'")
    (letter,) = [each for each in dead(site) if "ALLOWED_HOSTS" in each["reason"]]
    assert "set base_url (GEARWSGI_BASE_URL)" in site.bench.run("dead", "show", letter["id"]).stdout


# -- the transaction ---------------------------------------------------------------------------------------------------


def test_a_task_waits_for_the_commit_and_then_sees_what_was_committed(site: Site) -> None:
    before, after = get(site, "/order?how=committed").json
    assert (before, after[:2]) == ("", "H:")
    assert records(site, 1) == [("ordered", ["committed", True])]


def test_a_rolled_back_transaction_queues_nothing(site: Site) -> None:
    assert get(site, "/order?how=rolled+back").json == ["", ""]
    assert get(site, "/order?how=committed").status == 200
    assert records(site, 1) == [("ordered", ["committed", True])]
    until(lambda: site.bench.server.queued() == 0)


def test_inner_blocks_wait_for_the_outermost_commit_and_those_rolled_back_queue_nothing(site: Site) -> None:
    assert get(site, "/order?how=nested").status == 200
    assert get(site, "/order?how=inner+rolled+back").status == 200
    assert records(site, 3) == [
        ("ordered", ["nested", True]),
        ("ordered", ["inner", False]),
        ("ordered", ["inner rolled back", True]),
    ]


def test_without_a_transaction_it_is_submitted_at_once(site: Site) -> None:
    assert get(site, "/order?how=no+transaction").text.startswith("H:")
    assert records(site, 1) == [("ordered", ["no transaction", False])]


def test_what_can_not_be_a_task_is_said_at_the_call_and_rolls_back(site: Site) -> None:
    answer = get(site, "/order?how=bad")
    assert (answer.status, answer.text.partition(":")[0]) == (400, "UnknownService")
    answer = get(site, "/order?how=twice")
    assert (answer.status, "give one" in answer.text) == (400, True)
    assert get(site, "/order?how=committed").status == 200
    assert records(site, 1) == [("ordered", ["committed", True])]


def test_the_request_in_hand_may_wait_for_the_commit_too(site: Site) -> None:
    """Its replay then runs the same handler, which answers 400: it is a replay already."""
    assert get(site, "/order?how=replay").status == 200
    assert records(site, 1) == [("ordered", ["replay", True])]
    site.worker.wait_for("400 Bad Request from GET /order?how=replay")


# -- outside of a request ----------------------------------------------------------------------------------------------


def test_a_command_queues_a_task_that_passes_the_hosts_check_and_the_redirect_to_https(site: Site) -> None:
    assert manage(site, "remind").startswith("H:")
    (found,) = site.records(1)
    assert (found["got"], found["url"]) == ({"n": "from a command"}, f"https://{HOST}/hello/x")


def test_views_can_be_tested_with_djangos_own_client(site: Site) -> None:
    printed = manage(
        site,
        "shell",
        "-c",
        "from django.test import Client\n"
        f"client = Client(enforce_csrf_checks=True, headers={{'host': '{HOST}'}})\n"
        "print('ANSWER', client.get('/queue/json', secure=True).content.decode())\n"
        "print('REFUSED', client.post('/receive/form', {'name': 'x'}, secure=True).status_code)\n",
    )
    assert "ANSWER H:" in printed
    assert "REFUSED 403" in printed
    assert records(site, 1)[0][0] == "json"


def test_an_async_view_queues_too(site: Site) -> None:
    answer = get(site, "/async").text
    assert answer.startswith("H:")
    assert answer.endswith(" True")
    assert records(site, 1) == [("clean", {"n": "async"})]


# -- manage.py gearman_worker ------------------------------------------------------------------------------------------


@pytest.fixture
def bare() -> Iterator[Bench]:
    """The project and a job server; no worker."""
    with bench("embedded") as made:
        apps = Path(__file__).parent / "apps"
        subprocess.run(["cp", "-r", f"{apps}/mysite", f"{apps}/notes.py", f"{apps}/manage.py", made.folder], check=True)
        yield made


def test_manage_py_becomes_the_worker_from_whatever_folder_it_is_started(bare: Bench) -> None:
    log = bare.folder / "manage.log"
    elsewhere = bare.folder / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, str(bare.folder / "manage.py"), "gearman_worker", "--settings=mysite.settings"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--workers", "1", "-t", "30", "--max-jobs=100"],
            cwd=elsewhere,
            env={**os.environ, **bare.env},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        ready = until(lambda: re.search(r"ready: 1 worker,.* pid (\d+)", log.read_text()), "the worker")
        assert int(ready[1]) == process.pid  # no process in between: signals arrive
        bare.app().gearman.task("/receive/raw", body=b"\x01", headers={"Host": HOST, "X-Forwarded-Proto": "https"})
        until(lambda: "/receive/raw" in log.read_text(), "the job")
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "--graceful-timeout"),
        (["--wokers", "2"], "--workers"),
        (["--workers", "none"], "none"),
    ],
)
def test_its_options_are_those_of_the_worker(bare: Bench, arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "gearman_worker", *arguments],
        cwd=bare.folder,
        env={**os.environ, **bare.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said in done.stdout + done.stderr
    assert (done.returncode == 0) == (arguments == ["--help"])


def test_without_a_wsgi_application_it_says_so(bare: Bench) -> None:
    (bare.folder / "unset.py").write_text("from mysite.settings import *\nWSGI_APPLICATION = None\n")
    done = subprocess.run(
        [sys.executable, "manage.py", "gearman_worker", "--settings", "unset"],
        cwd=bare.folder,
        env={**os.environ, **bare.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "WSGI_APPLICATION is not set" in done.stderr


CONFIGURED = """
import os
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.urls import path

settings.configure(
    DEBUG=False, ALLOWED_HOSTS=["*", ".example.org"], SECRET_KEY="x" * 50, ROOT_URLCONF=__name__,
    MIDDLEWARE=["gearwsgi.contrib.django.JobMiddleware"], WSGI_APPLICATION=None,
    GEARWSGI={"servers": "127.0.0.1:4730", "task": {"testTask": "Test.task"}},
)
import django
django.setup()
from gearwsgi.contrib.django import gearman, get_wsgi_application
urlpatterns = []
application = get_wsgi_application()
core = gearman()._core
print(application.settings.tasks["testTask"].target, core.base.host, core.base.scheme)
settings.GEARWSGI = ["127.0.0.1:4730"]
try:
    get_wsgi_application()
except ImproperlyConfigured as error:
    print(error)
settings.GEARWSGI = {"severs": "127.0.0.1:4730"}
try:
    get_wsgi_application()
except Exception as error:
    print(error)
"""


def test_the_settings_are_read_in_the_originals_shape_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "configured.py").write_text(CONFIGURED)
    done = subprocess.run([sys.executable, "configured.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == "Test.task example.org http"
    assert second.startswith("GEARWSGI is list")
    assert "unknown setting 'severs', did you mean 'servers'?" in third


def test_nothing_of_django_or_flask_is_imported_by_the_core() -> None:
    code = "import json, sys, gearwsgi, gearwsgi.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"django", "flask", "werkzeug", "falcon", "pyramid", "bottle", "cherrypy"}
    assert not any(name.startswith("gearwsgi.contrib") for name in json.loads(done.stdout))


def test_the_worker_finds_the_project_by_itself_too(bare: Bench) -> None:
    worker = Worker(bare.folder, "mysite.wsgi:application", "--burst", "--workers", "1", env=bare.env)
    try:
        worker.ready()
        assert worker.process.wait(60) == 0, worker.log
    finally:
        worker.kill()

"""`gearwsgi check`: what it finds, and what its exit code says."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.support import Bench, JobServer, bench, free_port, until

FLASK = """
from flask import Flask
from gearwsgi import GearmanMiddleware

app = Flask(__name__)

@app.post("/mail/welcome")
def welcome(): return ""

@app.get("/pages/")
def pages(): return ""

app.wsgi_app = GearmanMiddleware(app.wsgi_app, tasks={
    "welcome": "/mail/welcome", "dotted": "mail.welcome", "typo": "POST /mail/welcom", "verb": "PUT /mail/welcome",
    "slash": "GET /pages", "nothing": "no target at all",
}, schedule={
    "daily": {"service": "welcome", "cron": "@daily", "timezone": "Europe/Berlin"},
    "nowhere": {"service": "/nowhere", "cron": "@daily"},
    "php": {"service": "App.Hello", "cron": "@daily", "plain": True},
})
"""

DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="x")

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from gearwsgi import GearmanMiddleware

urlpatterns = [path("mail/welcome", lambda r: HttpResponse()), path("pages/", lambda r: HttpResponse())]
app = GearmanMiddleware(get_wsgi_application(), tasks={
    "welcome": "/mail/welcome", "typo": "/mail/welcom", "slash": "/pages",
})
"""

PYRAMID = """
from pyramid.config import Configurator
from gearwsgi import GearmanMiddleware

config = Configurator()
config.add_route("welcome", "/mail/{what}", request_method="POST")
app = GearmanMiddleware(config.make_wsgi_app(), tasks={"welcome": "/mail/welcome", "verb": "GET /mail/welcome"})
"""

PLAIN = """
from gearwsgi import GearmanMiddleware
app = GearmanMiddleware(lambda environ, start: [], tasks={"a": "/a"})
"""


def run(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this folder."""
    command = [sys.executable, "-m", "gearwsgi", "check", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GEAR")}
    return subprocess.run(command, cwd=folder, env={**clean, **env}, capture_output=True, text=True, timeout=60)


def check(folder: Path, text: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found by what it is about."""
    (folder / "site_to_check.py").write_text(text)
    env.setdefault("GEARMAN_SERVERS", f"embedded://127.0.0.1:{free_port()}")
    done = run(folder, "site_to_check:app", "--json", **env)
    assert done.stdout.startswith("["), done.stderr
    return done.returncode, {found["what"]: found for found in json.loads(done.stdout)}


def test_flasks_router_is_asked_for_each_alias(tmp_path: Path) -> None:
    code, found = check(tmp_path, FLASK)
    assert code == 1
    states = {name: found[name]["state"] for name in ("welcome", "dotted", "typo", "verb", "slash", "nothing")}
    assert states == {
        "welcome": "ok",
        "dotted": "ok",
        "typo": "problem",
        "verb": "problem",
        "slash": "problem",
        "nothing": "problem",
    }
    assert "no route" in found["typo"]["text"] and "for OPTIONS, POST" in found["verb"]["text"]
    assert "/pages/" in found["slash"]["text"] and "unknown service" in found["nothing"]["text"]
    entries = {name: found[name]["state"] for name in ("daily", "nowhere", "php")}
    assert entries == {"daily": "ok", "nowhere": "problem", "php": "ok"}
    assert "POST /mail/welcome, next 20" in found["daily"]["text"] and "(Europe/Berlin)" in found["daily"]["text"]


def test_djangos_router_is_asked_for_each_alias(tmp_path: Path) -> None:
    code, found = check(tmp_path, DJANGO)
    assert code == 1 and found["welcome"]["state"] == "ok"
    assert "no URL" in found["typo"]["text"] and "one for /pages/" in found["slash"]["text"]


def test_pyramids_router_is_asked_for_each_alias(tmp_path: Path) -> None:
    code, found = check(tmp_path, PYRAMID)
    assert code == 1 and found["welcome"]["state"] == "ok" and "no route" in found["verb"]["text"]


def test_an_application_that_can_not_be_asked_is_no_problem(tmp_path: Path) -> None:
    code, found = check(tmp_path, PLAIN)
    assert code == 0 and found["a"]["state"] == "ok"
    assert "can't be asked" in found["site_to_check:app"]["text"]
    assert not (tmp_path / "var").exists(), "a check leaves nothing behind"


def test_connections_that_are_opened_at_import_are_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        opens = f"import socket\nshared = socket.create_connection(('127.0.0.1', {port}))\n"
        code, found = check(tmp_path, opens + PLAIN)
    assert code == 0 and found["connections"]["state"] == "warning"
    assert f"127.0.0.1:{port}" in found["connections"]["text"] and "on_worker_start" in found["connections"]["text"]
    assert "connections" not in check(tmp_path, PLAIN)[1]


def test_an_inbox_that_can_not_tell_a_second_delivery_is_a_warning(tmp_path: Path) -> None:
    entry = "inbox=[{'route': 'POST /hooks/x', 'verify': lambda environ, body: True, 'id': 'X-Id'}], tasks="
    _, found = check(tmp_path, PLAIN.replace("tasks=", entry), GEARWSGI_RECORDS="sqlite")
    assert found["POST /hooks/x"]["state"] == "ok"
    code, found = check(tmp_path, PLAIN.replace("tasks=", entry), GEARWSGI_RECORDS="")
    assert (
        code == 0 and found["POST /hooks/x"]["state"] == "warning" and "set records" in found["POST /hooks/x"]["text"]
    )


def test_an_application_that_does_not_load_is_a_problem(tmp_path: Path) -> None:
    code, found = check(tmp_path, "import no_such_module")
    assert code == 1 and "no_such_module" in found["site_to_check:app"]["text"]
    code, found = check(tmp_path, "app = lambda environ, start: []")
    assert code == 1 and "no GearmanMiddleware" in found["site_to_check:app"]["text"]


def test_a_job_server_says_its_version_and_one_that_is_silent_is_a_problem(tmp_path: Path, site: Bench) -> None:
    code, found = check(tmp_path, PLAIN, GEARMAN_SERVERS=site.server.address)
    server = found[site.server.address]
    assert code == 0 and ("version" in server["text"] or "gearmand 1" in server["text"])
    kept = "keeps its jobs over a restart" if site.server.kind == "embedded" else "lost when it ends"
    assert kept in server["text"]
    site.server.kill()
    code, found = check(tmp_path, PLAIN, GEARMAN_SERVERS=site.server.address)
    assert code == 1 and found[site.server.address]["state"] == "problem"


def test_a_gearmand_with_a_file_keeps_its_jobs_and_says_what_a_vanished_host_costs(tmp_path: Path) -> None:
    require("gearmand")
    server = JobServer("gearmand", tmp_path / "gearmand", durable=True).start()
    try:
        _, found = check(tmp_path, PLAIN, GEARMAN_SERVERS=server.address)
    finally:
        server.stop()
    assert found[server.address]["state"] == "ok" and "libsqlite3" in found[server.address]["text"]
    assert "--keepalive" in found[server.address]["text"]


def test_a_job_server_that_knows_no_grab_job_uniq_is_a_problem(tmp_path: Path) -> None:
    def serve() -> None:
        answers = {b"version": b"OK 1.13\n", b"getpid": b"OK 1\n", b"\0REQ": error}
        with listener.accept()[0] as connection:
            while data := connection.recv(1000):
                connection.sendall(next(answer for start, answer in answers.items() if data.startswith(start)))

    error = b"\0RES" + struct.pack("!II", 19, 15) + b"unknown_command"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        code, found = check(tmp_path, PLAIN, GEARMAN_SERVERS=address)
        thread.join()
    assert code == 1 and "GRAB_JOB_UNIQ" in found[address]["text"] and "unknown_command" in found[address]["text"]


def test_a_job_server_that_others_can_reach_needs_keys(tmp_path: Path) -> None:
    away = "192.0.2.1:4730"  # nobody's address (RFC 5737)
    text = PLAIN.replace("tasks=", "connect_timeout=0.05, tasks=")
    code, found = check(tmp_path, text, GEARMAN_SERVERS=away)
    assert code == 1 and away in found["secret_keys"]["text"]
    _, found = check(tmp_path, text, GEARMAN_SERVERS=away, GEARWSGI_SECRET_KEYS="k" * 32)
    assert found["secret_keys"]["state"] == "ok" and "k" * 32 not in json.dumps(found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_directory_that_can_not_be_written_is_a_problem(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, found = check(tmp_path, PLAIN, GEARWSGI_STATE_DIR=str(locked / "state"))
    assert code == 1 and "not writable" in found[str(locked / "state")]["text"]


def test_a_state_directory_that_others_may_write_to_is_a_problem(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    code, found = check(tmp_path, PLAIN, GEARWSGI_STATE_DIR=str(shared))
    assert code == 1 and "everyone" in found[str(shared)]["text"]


def test_what_waits_in_the_outbox_is_worth_a_look(tmp_path: Path) -> None:
    (tmp_path / "state" / "outbox").mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    (tmp_path / "state" / "outbox" / "1-1.http").write_bytes(b"")
    code, found = check(tmp_path, PLAIN, GEARWSGI_STATE_DIR=str(tmp_path / "state"))
    assert code == 0 and found["outbox"]["state"] == "warning"


def test_live_is_true_while_a_supervisor_turns_and_needs_no_application() -> None:
    with bench("embedded") as site:
        assert site.run("check", "--live", ok=False).returncode == 1
        worker = site.worker("--workers", "1")
        until(site.told, "a sign of life")
        assert site.run("check", "--live").returncode == 0
        found = json.loads(site.run("check", "kitchen:application", "--live", "--json").stdout)
        assert [each["part"] for each in found] == ["supervisor"] and str(worker.pid) in found[0]["text"]
        worker.kill()
        assert site.run("check", "--live", ok=False).returncode == 1


def test_without_an_application_there_is_nothing_to_check(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2 and "MODULE:NAME" in done.stderr


def test_a_host_that_django_refuses_is_a_problem_for_what_has_no_request(tmp_path: Path) -> None:
    refused = check(tmp_path, DJANGO)[1]["localhost"]
    taken = check(tmp_path, DJANGO.replace('KEY="x"', 'KEY="x", ALLOWED_HOSTS=["shop.example"]'))[1]["shop.example"]
    assert refused["state"] == "problem" and "GEARWSGI_BASE_URL" in refused["text"]
    assert taken["state"] == "ok" and "http://shop.example/" in taken["text"]


def test_a_host_that_flask_does_not_trust_is_a_problem_for_what_has_no_request(tmp_path: Path) -> None:
    trusts = FLASK.replace("\napp.wsgi_app", '\napp.config["TRUSTED_HOSTS"] = [".shop.example"]\napp.wsgi_app')
    refused = check(tmp_path, trusts)[1]["localhost"]
    taken = check(tmp_path, trusts, GEARWSGI_BASE_URL="https://www.shop.example")[1]["www.shop.example"]
    assert refused["state"] == "problem" and "Flask's TRUSTED_HOSTS" in refused["text"]
    assert taken["state"] == "ok"

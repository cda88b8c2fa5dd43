"""`gearwsgi dead replay` and `dead test`: the failure of last night, in the foreground and as a test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import BadMessage
from gearwsgi.policy import Outcome
from gearwsgi.state.dead import DeadLetters
from gearwsgi.testing import capture
from gearwsgi.wire.payload import Grabbed, open_payload

SITE = """
import os
from flask import Flask, request
from gearwsgi import GearmanMiddleware

app = Flask(__name__)

@app.post("/mail/welcome")
def welcome():
    greeting = "Dear " + request.json["to"]
    if not os.path.exists("mended"):
        raise ConnectionRefusedError("no mail server")
    return greeting + (" with cookie" if "secret-cookie" in request.headers.get("Cookie", "") else "")

app.wsgi_app = GearmanMiddleware(app.wsgi_app, secret_keys=["a key that has its length"], state_dir="state")
"""


def dead_letter(folder: Path, *, trusted: bool = True) -> str:
    """Leave a dead letter in the folder, and the application that it is of; its id."""
    (folder / "site_of_dead.py").write_text(SITE)
    app = GearmanMiddleware(lambda environ, start: [], secret_keys=["a key that has its length"], servers="127.0.0.1:1")
    with capture(app) as tasks:
        app.gearman.task("mail.welcome", {"to": 'Ada "x"'}, headers={"Cookie": "secret-cookie=1"}, max_attempts=1)
    job = Grabbed(b"H:1", b"job", b"u", tasks[0].payload)
    settings = GearmanMiddleware(app.app, state_dir=folder / "state").settings
    task = open_payload(job, settings, 0, trusted=True) if trusted else None
    return DeadLetters(settings).put(job, task, 'ConnectionRefusedError: no """ server', Outcome("exception"))


def run(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run `gearwsgi dead` in this folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GEAR")}
    command = [sys.executable, "-m", "gearwsgi", "dead", *arguments, "--app", "site_of_dead:app"]
    return subprocess.run(command, cwd=folder, env=env, input=given, capture_output=True, text=True, timeout=60)


def test_replay_runs_the_request_here_and_says_what_came_of_it(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "replay", letter)
    assert done.returncode == 1 and "500 INTERNAL SERVER ERROR" in done.stderr
    assert "ConnectionRefusedError: no mail server" in done.stderr, "Flask logs it"
    (tmp_path / "mended").touch()
    done = run(tmp_path, "replay", letter)
    assert done.returncode == 0 and 'Dear Ada "x" with cookie' in done.stdout
    assert letter in run(tmp_path, "list").stdout, "the dead letter stays"


def test_replay_under_pdb_stops_before_the_call_and_where_it_was_raised(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "replay", letter, "--pdb", given="b site_of_dead.py:11\nc\np request.json\nc\np greeting\nq\n")
    assert "{'to': 'Ada \"x\"'}" in done.stdout, done.stdout + done.stderr
    assert "'Dear Ada \"x\"'" in done.stdout, "after the exception, in the frame that raised it"
    assert done.returncode == 1


def test_replay_can_be_left_at_its_start(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "replay", letter, "--pdb", given="q\n")
    assert done.returncode == 1 and "no mail server" not in done.stderr


@pytest.mark.parametrize("command", ["replay", "test"])
def test_what_was_never_verified_is_not_run(tmp_path: Path, command: str) -> None:
    letter = dead_letter(tmp_path, trusted=False)
    done = run(tmp_path, command, letter)
    assert done.returncode == 3 and "never accepted" in done.stderr
    assert run(tmp_path, command, "no-such-id").returncode == 3


def test_the_test_that_is_written_fails_as_the_task_did_and_passes_when_that_is_mended(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "test", letter)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("test_dead_*.py")
    assert path.name in done.stdout
    text = path.read_text()
    assert "secret-cookie" not in text and "[redacted]" in text and "X-Gearman-Signature" not in text
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path.name]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(tmp_path)}
    failed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "ConnectionRefusedError: no mail server" in failed.stdout and "1 failed" in failed.stdout
    (tmp_path / "mended").touch()
    passed = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "1 passed" in passed.stdout, passed.stdout
    assert run(tmp_path, "test", letter).returncode == 3, "a file that is there is not overwritten"
    assert "secret-cookie" in run(tmp_path, "test", letter, "--secrets", "-o", "-").stdout


def test_the_test_kit_takes_messages_of_other_programs() -> None:
    seen = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        seen.append((environ["PATH_INFO"], environ["gearwsgi.job"].data))
        start_response("200 OK", [])
        return []

    wrapped = GearmanMiddleware(app, servers="127.0.0.1:1", secret_keys=["a key that has its length"])
    with capture(wrapped) as tasks:
        tasks.put(b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        tasks.put(b"PUT /b HTTP/1.1\r\n\r\n", queue="mail")
        with pytest.raises(BadMessage):
            tasks.put(b"neither this nor that")
        assert [run.fate for run in tasks.run()] == ["done", "done"]
    assert seen == [("/a", b"x"), ("/b", None)]

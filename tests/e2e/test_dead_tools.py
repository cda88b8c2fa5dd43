"""`gearwsgi dead replay` and `dead test`: the failure of last night, in the foreground and as a test."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from gearwsgi import GearmanMiddleware
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


FAILS = 'raise ConnectionRefusedError("no mail server")'


def dead_letter(
    folder: Path,
    *,
    trusted: bool = True,
    kind: Literal["exception", "timeout", "lost"] = "exception",
    fails: str = FAILS,
) -> str:
    """Leave a dead letter in the folder, and the application that it is of, which fails so; its id."""
    (folder / "site_of_dead.py").write_text(SITE.replace(FAILS, fails))
    app = GearmanMiddleware(lambda environ, start: [], secret_keys=["a key that has its length"], servers="127.0.0.1:1")
    with capture(app) as tasks:
        app.gearman.task("mail.welcome", {"to": 'Ada "x"'}, headers={"Cookie": "secret-cookie=1"}, timeout=2)
    job = Grabbed(b"H:1", b"job", b"u", tasks[0].payload)
    settings = GearmanMiddleware(app.app, state_dir=folder / "state").settings
    task = open_payload(job, settings, 0, trusted=True) if trusted else None
    return DeadLetters(settings).put(job, task, 'ConnectionRefusedError: no """ server', Outcome(kind)).id


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


def run_written(folder: Path, said: str) -> str:
    """Run the test that was written by the command that was shown; its output."""
    command = said.partition("run it with: ")[2].strip().replace("python ", f"{sys.executable} ", 1)
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "gearwsgi.pytest_plugin"}
    done = subprocess.run(
        f"{command} -q -p no:cacheprovider",
        shell=True,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "fails", "reason"),
    [
        ("timeout", "__import__('time').sleep(100)", "timed out after 2 s"),
        ("lost", "os._exit(7)", "exited with code 7"),
    ],
)
def test_one_that_ran_over_its_time_or_ended_its_process_fails_so_in_a_worker_of_the_tests(
    tmp_path: Path, kind: Literal["timeout", "lost"], fails: str, reason: str
) -> None:
    letter = dead_letter(tmp_path, kind=kind, fails=fails)
    done = run(tmp_path, "test", letter)
    assert done.returncode == 0, done.stderr
    failed = run_written(tmp_path, done.stdout)
    assert "1 failed" in failed and f"AssertionError: {reason}" in failed, failed
    (tmp_path / "mended").touch()
    assert "1 passed" in (passed := run_written(tmp_path, done.stdout)), passed


def test_the_test_that_is_written_takes_the_projects_own_application(tmp_path: Path) -> None:
    done = run(tmp_path, "test", dead_letter(tmp_path))
    (tmp_path / "conftest.py").write_text(
        "import pytest\nfrom gearwsgi import GearmanMiddleware\n\n"
        "@pytest.fixture\ndef gearman_app():\n"
        "    def app(environ, start):\n        start('200 OK', [])\n        return []\n"
        "    return GearmanMiddleware(app)\n"
    )
    assert "1 passed" in (passed := run_written(tmp_path, done.stdout)), passed


def test_curl_of_a_path_that_is_only_for_tasks_says_that_it_is_a_404_and_what_runs_it(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "curl", letter)
    assert done.returncode == 0 and "404" not in done.stderr, done.stderr
    site = tmp_path / "site_of_dead.py"
    site.write_text(site.read_text().replace("state_dir=", 'tasks_only=["/mail/*"], state_dir='))
    done = run(tmp_path, "curl", letter)
    assert done.stdout.startswith("curl ") and "404" in done.stderr, done.stderr
    (command,) = re.findall("`gearwsgi dead (replay [^`]*)`", done.stderr)
    assert run(tmp_path, *command.removesuffix(" --app site_of_dead:app").split()).returncode == 1
    assert "ConnectionRefusedError" in run(tmp_path, "replay", letter).stderr


def test_the_test_that_is_written_fails_as_the_task_did_and_passes_when_that_is_mended(tmp_path: Path) -> None:
    letter = dead_letter(tmp_path)
    done = run(tmp_path, "test", letter)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("test_dead_*.py")
    assert path.name in done.stdout
    text = path.read_text()
    assert "secret-cookie" not in text and "[redacted]" in text and "X-Gearman-Signature" not in text
    assert "ConnectionRefusedError: no mail server" in (failed := run_written(tmp_path, done.stdout)), failed
    assert "1 failed" in failed
    (tmp_path / "mended").touch()
    assert "1 passed" in (passed := run_written(tmp_path, done.stdout)), passed
    assert run(tmp_path, "test", letter).returncode == 3, "a file that is there is not overwritten"
    assert "secret-cookie" in run(tmp_path, "test", letter, "--secrets", "-o", "-").stdout

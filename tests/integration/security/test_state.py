"""The state directory: whose it must be, who can read it, and what a file there may say."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import SpoolError
from gearwsgi.message.model import Message
from gearwsgi.message.signature import sign
from gearwsgi.policy import Outcome
from gearwsgi.state.dead import DeadLetters
from gearwsgi.state.outbox import Outbox
from gearwsgi.wire.payload import Grabbed, Submission
from tests.integration.security.conftest import FOREIGN, KEY
from tests.support import APPS, Bench, until
from tests.unit.state.test_spool import BAD, as_root, by_everyone, mode, of_someone_else, settings_of


@pytest.mark.parametrize("make", BAD)
def test_a_state_directory_that_others_could_have_filled_is_refused_by_the_web_process(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "state"
    make(folder)
    app = GearmanMiddleware(lambda environ, start: [], "127.0.0.1:1", state_dir=folder, connect_timeout=0.2)
    with pytest.raises(SpoolError, match="state"):
        app.gearman.task("/x")
    app.client.close()


@pytest.mark.parametrize("make", [by_everyone, pytest.param(of_someone_else, marks=as_root)])
@pytest.mark.parametrize(
    "command",
    [("worker", "kitchen:application", "--workers", "1"), ("dead", "list"), ("dead", "retry", "--all"),
     ("outbox", "flush"), ("server", "--listen", "127.0.0.1:0", "--state-dir", "state")],
    ids=["worker", "dead list", "dead retry", "outbox flush", "server"],
)  # fmt: skip
def test_the_command_line_refuses_such_a_state_directory(
    tmp_path: Path, make: Callable[[Path], None], command: tuple[str, ...]
) -> None:
    (tmp_path / "kitchen.py").write_bytes((APPS / "kitchen.py").read_bytes())
    make(tmp_path / "state")
    done = subprocess.run(
        [sys.executable, "-m", "gearwsgi", *command],
        cwd=tmp_path,
        env={**os.environ, "GEARWSGI_STATE_DIR": "state", "GEARMAN_SERVERS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode not in (0, -9), done.stdout
    assert "Traceback" not in done.stderr
    assert "written by everyone" in done.stderr or "belongs to user 65534" in done.stderr, done.stderr
    assert not list((tmp_path / "state").iterdir())


def test_a_running_worker_and_its_job_server_keep_everything_private_at_umask_0(embedded_site: Bench) -> None:
    before = os.umask(0)
    try:
        embedded_site.server.restart()
        worker = embedded_site.worker("--workers", "1")
    finally:
        os.umask(before)
    app = embedded_site.app()
    app.gearman.task("/status", {"status": "404 Not Found"})
    until(lambda: list((embedded_site.state_dir / "dead").glob("*.http")), "the dead letter")
    until(worker.children, "the status file")
    for folder in (embedded_site.state_dir, embedded_site.server.folder / "server"):
        for path in (folder, *folder.rglob("*")):
            assert mode(path) == ("0o700" if path.is_dir() else "0o600"), path


# -- what a file says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", [False, True], ids=["unsigned", "with a made-up signature"])
@pytest.mark.parametrize("key", [None, FOREIGN], ids=["", "of a foreign key"])
def test_dead_retry_while_no_server_answers_does_not_sign_what_nobody_had_signed(
    tmp_path: Path, forged: bool, key: str | None
) -> None:
    """Dead letter, retried into the outbox, relayed from there: on no step of the way does it get our signature."""
    settings = settings_of(tmp_path, secret_keys=[KEY])
    payload = Message("POST").to_bytes()
    if forged:
        payload = payload.replace(b"\r\n\r\n", b"\r\nX-Gearman-Signature: t=1; v1=" + b"0" * 64 + b"\r\n\r\n")
    if key is not None:
        payload = sign(payload, "job", key.encode(), time.time())
    letters, outbox = DeadLetters(settings), Outbox(settings)
    letters.put(Grabbed(b"H:1", b"job", b"u", payload), None, "signature", Outcome("refused"))
    (letter,) = letters.all()
    outbox.put(letters.submission(letter))
    sent: list[Submission] = []
    outbox.relay(lambda each: sent.append(each) or "H:1")  # type: ignore[func-returns-value]
    assert sent[0].payload == payload

"""What becomes of a job whose worker process died with it."""

import time
from typing import Any

import pytest

from gearwsgi.message.model import Message
from gearwsgi.message.signature import sign
from gearwsgi.policy import Outcome
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.dead import DeadLetters
from gearwsgi.wire.payload import Grabbed
from gearwsgi.worker.held import Held
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.settle import Settler

KEY = b"k" * 16


class DeafSession:
    """A connection that stands, and remembers what was sent and submitted."""

    is_open = True

    def __init__(self) -> None:
        self.unanswered = 1
        self.sent: list[bytes] = []
        self.submitted: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def submit(self, data: bytes, then: Any) -> None:
        self.submitted.append(data)
        then("H:2", None)


def settled(
    tmp_path: Any, payload: bytes, outcome: Outcome, grabbed_at: float = 0.0
) -> tuple[DeafSession, Settings, Settler, Held]:
    settings = read_settings({"servers": "127.0.0.1:1", "state_dir": tmp_path, "secret_keys": [KEY]}, {})
    link = DeafSession()
    job = Grabbed(b"H:1", b"job", b"u", payload)
    held = Held(job, link, grabbed_at or time.time())  # type: ignore[arg-type]
    settler = Settler(settings, Recorder())
    settler.settle(held, outcome)
    return link, settings, settler, held


UNVERIFIED = {
    "unsigned": Message("POST", max_attempts=5).to_bytes(),
    "of another key": sign(Message("POST", max_attempts=5).to_bytes(), "job", b"f" * 16, time.time()),
    "of another queue": sign(Message("POST", max_attempts=5).to_bytes(), "admin", KEY, time.time()),
    "changed": sign(Message("POST", max_attempts=5).to_bytes(), "job", KEY, time.time()) + b"x",
    "a plain call": b'{"service":"/x"}',
}


@pytest.mark.parametrize("payload", UNVERIFIED.values(), ids=UNVERIFIED.keys())
@pytest.mark.parametrize("kind", ["lost", "timeout", "exception", "response"])
def test_a_worker_that_dies_with_an_unverified_message_gets_it_no_signature_and_no_retry(
    tmp_path: Any, payload: bytes, kind: Any
) -> None:
    link, settings, settler, held = settled(tmp_path, payload, Outcome(kind, "died", status=503))
    assert link.submitted == []
    (letter,) = DeadLetters(settings).all()
    assert (letter.trusted, letter.payload) == (False, payload)
    assert "signature" in letter.reason
    assert not settler.hand_back(held, "it waited") and link.submitted == []


def test_a_worker_that_dies_with_a_signed_message_gets_it_a_retry_that_is_signed(tmp_path: Any) -> None:
    payload = sign(Message("POST", max_attempts=5).to_bytes(), "job", KEY, time.time())
    link, settings, _, _ = settled(tmp_path, payload, Outcome("lost", "died"))
    (submitted,) = link.submitted
    assert b"X-Gearman-Attempt: 2" in submitted and b"X-Gearman-Signature: t=" in submitted
    assert not list(DeadLetters(settings).all())


def test_a_signature_that_grows_too_old_while_the_job_runs_is_retried_all_the_same(tmp_path: Any) -> None:
    grabbed_at = time.time() - 30 * 86400
    payload = sign(Message("POST", max_attempts=5).to_bytes(), "job", KEY, grabbed_at)
    link, _, _, _ = settled(tmp_path, payload, Outcome("lost", "died"), grabbed_at=grabbed_at)
    assert len(link.submitted) == 1

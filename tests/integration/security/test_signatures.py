"""A worker with keys runs what they signed, and nothing else: end to end, on both job servers."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gearwsgi.message.followups import FollowUp
from gearwsgi.message.signature import sign
from tests.integration.security.conftest import FOREIGN, KEY, OLDER, Attacker, a_message
from tests.support import Bench, until

pytestmark = pytest.mark.xdist_group("security-signatures")


def signed(key: str = KEY, queue: str = "job", age: float = 0.0) -> bytes:
    data = a_message(headers=[("Content-Type", "application/json")], body=b'{"n":"attack"}')
    return sign(data, queue, key.encode(), time.time() - age)


def line_of(data: bytes) -> bytes:
    return next(line for line in data.split(b"\r\n") if line.startswith(b"X-Gearman-Signature"))


ATTACKS: dict[str, Callable[[], bytes]] = {
    "unsigned": lambda: a_message(body=b"{}", headers=[("Content-Type", "application/json")]),
    "a plain call": lambda: b'{"service":"/good","n":"attack"}',
    "nothing": lambda: b"\0",
    "rubbish": lambda: bytes(range(256)) * 100,
    "a changed body": lambda: signed().replace(b'"attack"', b'"attacK"'),
    "a changed target": lambda: signed().replace(b"/good", b"/exit"),
    "a changed header": lambda: signed().replace(b"application/json", b"application/yaml"),
    "a changed attempt": lambda: signed().replace(b"X-Gearman-Attempt: 1", b"X-Gearman-Attempt: 2"),
    "a header added": lambda: signed().replace(b"\r\nHost", b"\r\nCookie: admin=1\r\nHost"),
    "a longer body": lambda: signed() + b"{}",
    "the signature removed": lambda: signed().replace(b"\r\n" + line_of(signed()), b""),
    "the signature doubled": lambda: signed().replace(b"\r\nHost", b"\r\n" + line_of(signed()) + b"\r\nHost"),
    "the signature doubled in another spelling": lambda: signed().replace(
        b"\r\nHost", b"\r\n" + line_of(signed()).replace(b"-Gearman-", b"_gearman_") + b"\r\nHost"
    ),
    "an empty signature": lambda: a_message().replace(b"\r\nHost", b"\r\nX-Gearman-Signature:\r\nHost"),
    "another key": lambda: signed(FOREIGN),
    "too old": lambda: signed(age=1001),
    "moved from another queue": lambda: signed(queue="admin"),
    "moved from the queue that needs none": lambda: signed(queue="legacy"),
    "a signed message after another": lambda: a_message() + signed(),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_runs_nothing_and_is_one_dead_letter_and_one_line(guarded: Attacker, attack: Callable[[], bytes]) -> None:
    process, ran, count = guarded.pid(), guarded.ran(), guarded.count()
    payload = attack()
    handle = guarded.push(payload)
    letter = guarded.letter_of(handle)
    assert "signature" in letter.reason
    assert (letter.payload, letter.queue, letter.attempts, letter.trusted) == (payload, "job", 0, False)
    assert guarded.pid() == process
    assert guarded.ran() == ran
    assert guarded.count() == count + 1
    (line,) = [line for line in guarded.bench.workers[-1].log.splitlines() if f" {handle} " in line]
    assert f" {handle} dead " in line and "signature" in line


def test_what_the_keys_signed_runs_also_with_the_older_one(guarded: Attacker) -> None:
    before = guarded.ran().count("good attack 1")
    for key in (KEY, OLDER):
        guarded.push(signed(key))
    guarded.pid()
    assert guarded.ran().count("good attack 1") == before + 2


def test_a_captured_message_that_is_sent_again_runs_again(guarded: Attacker) -> None:
    captured = signed()
    before = guarded.ran().count("good attack 1")
    for _ in range(3):
        guarded.push(captured)
    guarded.pid()
    assert guarded.ran().count("good attack 1") == before + 3


def test_unsigned_messages_and_plain_calls_run_in_the_queue_that_accepts_them(guarded: Attacker) -> None:
    guarded.push(b'{"service":"/good","n":"php"}', "legacy")
    guarded.push(a_message(id="by-shell"), "legacy")
    until(lambda: {"good php 1", "good by-shell 1"} <= set(guarded.ran()), "both")


@pytest.mark.parametrize("attack", ["a changed body", "another key", "too old", "moved from another queue"])
def test_a_wrong_signature_is_refused_also_where_none_is_needed(guarded: Attacker, attack: str) -> None:
    letter = guarded.letter_of(guarded.push(ATTACKS[attack](), "legacy"))
    assert "signature" in letter.reason


def test_an_unsigned_message_is_followed_only_in_queues_that_accept_such(guarded: Attacker) -> None:
    before = guarded.ran()
    inside = FollowUp("good", "POST", "/good", "legacy", 1)
    outside = FollowUp("good", "POST", "/good", "admin", 1)
    for name in ("then", "on_dead"):
        for bad in (outside, replace(inside, then=outside), replace(inside, on_dead=outside)):
            letter = guarded.letter_of(guarded.push(a_message(**{name: bad}), "legacy"))
            assert "no signature: what follows it goes to the queue admin" in letter.reason
    guarded.pid()
    assert guarded.ran() == before
    guarded.push(a_message(id="followed", then=inside), "legacy")
    until(lambda: len(guarded.ran()) == len(before) + 2, "it, and what follows it")


def test_retries_and_delays_are_signed_anew(guarded: Attacker) -> None:
    flaky = guarded.app.gearman.task("/flaky", {"n": "again", "good": 3})
    late = guarded.app.gearman.task("/good", {"n": "late"}, delay=1)
    guarded.wait_until_run(flaky)
    guarded.wait_until_run(late)
    assert [line for line in guarded.ran() if " again " in line] == ["flaky again 1", "flaky again 2", "flaky again 3"]


def test_a_signed_poison_job_is_retried_signed_by_the_supervisor(guarded: Attacker) -> None:
    task = guarded.app.gearman.task("/exit", {"n": "poison"}, max_attempts=2)
    until(lambda: any(letter.id == task.id for letter in guarded.letters()), "the dead letter")
    assert [line for line in guarded.ran() if " poison " in line] == ["exit poison 1", "exit poison 2"]


@pytest.mark.parametrize("unsigned", [True, False], ids=["unsigned", "with a made-up signature"])
def test_dead_retry_never_signs_what_nobody_had_signed(guarded: Attacker, unsigned: bool) -> None:
    forged = a_message().replace(b"\r\nHost", b"\r\nX-Gearman-Signature: t=1; v1=" + b"0" * 64 + b"\r\nHost")
    payload = a_message() if unsigned else forged
    letter = guarded.letter_of(guarded.push(payload))
    ran, known = guarded.ran(), {each.name for each in guarded.letters()}
    guarded.cli("dead", "retry", letter.id, secret_keys=[KEY, OLDER])
    (again,) = until(lambda: [each for each in guarded.letters() if each.name not in known], "the next dead letter")
    assert (again.payload, again.trusted) == (payload, False)
    assert "signature" in again.reason
    guarded.pid()
    assert guarded.ran() == ran


def test_dead_retry_signs_anew_what_was_verified(guarded: Attacker) -> None:
    task = guarded.app.gearman.task("/status", {"n": "dead", "status": "404 Not Found"})
    until(lambda: any(letter.id == task.id for letter in guarded.letters()), "the dead letter")
    guarded.cli("dead", "retry", task.id, secret_keys=[KEY, OLDER])
    until(lambda: guarded.ran().count("status dead 1") == 2, "the second run")


def test_rotation_without_downtime_or_a_dead_letter(site: Bench) -> None:
    keys = site.folder / "keys"
    (site.folder / "rotating.py").write_text(
        "from gearwsgi import GearmanMiddleware\nfrom kitchen import app\n"
        "application = GearmanMiddleware(app, secret_keys=open('keys').read().split())\n"
    )

    def reload(*names: str) -> None:
        keys.write_text("\n".join(names))
        before = worker.log.count(" ready: ")
        worker.process.send_signal(1)
        worker.wait_for(" ready: ", before + 1)

    keys.write_text(OLDER)
    worker = site.worker("--workers", "1", app="rotating:application")
    old, new = site.app(secret_keys=[OLDER]), site.app(secret_keys=[KEY, OLDER])
    sent = []

    def send(app: object, label: str) -> None:
        sent.append(f"good {label} 1")
        app.gearman.task("/good", {"n": label})  # type: ignore[attr-defined]

    send(old, "before")
    reload(OLDER, KEY)  # 1. every worker knows both, none signs with the new one
    send(old, "old web process")
    send(new, "new web process")  # 2. the web processes sign with the new one
    reload(KEY, OLDER)
    send(new, "both reloaded")
    until(lambda: len(site.lines()) == 4, "four runs")
    reload(KEY)  # 3. nothing that the old one signed is left
    send(site.app(secret_keys=[KEY]), "after")
    until(lambda: len(site.lines()) == 5, "five runs")
    assert sorted(site.lines()) == sorted(sent)
    assert not list((site.state_dir / "dead").glob("*.http"))

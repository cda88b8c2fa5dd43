"""Payloads from anyone, at a worker that asks for no signature: a bad one never restarts a process or stops others."""

import os

import pytest

from gearwsgi.errors import BadMessage
from gearwsgi.message import model, plain
from tests.integration.security.conftest import Attacker, a_message
from tests.support import until
from tests.unit.message.test_message import REFUSED, REFUSED_PLAIN, SLOW, http

pytestmark = pytest.mark.xdist_group("security-payloads")

FAILING = b"POST http://h/status/ HTTP/1.1"


def test_every_payload_that_the_reader_refuses_is_one_dead_letter_and_no_process_is_lost(unguarded: Attacker) -> None:
    process, ran = unguarded.pid(), unguarded.ran()
    payloads = [payload or b"\0" for payload in (*REFUSED.values(), *REFUSED_PLAIN.values())]
    payloads.append(SLOW["blanks before a control character"])
    before = unguarded.count()
    handles = [unguarded.push(payload) for payload in payloads]
    assert unguarded.pid() == process
    until(lambda: unguarded.count() == before + len(payloads), "a dead letter for each")
    assert unguarded.ran() == ran
    log = unguarded.bench.workers[-1].log
    for handle in handles:
        assert log.count(f" {handle} dead ") == log.count(f" {handle} ") == 1
    assert not any(letter.trusted for letter in unguarded.letters()[before:])


ODD = {
    "an id of Chinese": http("X-Gearman-Task: 你好", first=b"POST http://h/boom HTTP/1.1"),
    "an id of bytes that are no text": http(b"X-Gearman-Task: \xff\xfe\x80", first=b"POST http://h/boom HTTP/1.1"),
    "an id that climbs": http("X-Gearman-Task: ../../../../../../tmp/climbed", first=b"POST http://h/boom HTTP/1.1"),
    "an id that is a path": http("X-Gearman-Task: /tmp/climbed", first=b"POST http://h/boom HTTP/1.1"),
    "an id of ten kilobytes": http("X-Gearman-Task: " + "x" * 10_000, first=b"POST http://h/boom HTTP/1.1"),
    "an id of nothing but percents": http("X-Gearman-Task: %s%d%n{0}{settings}", first=b"POST http://h/boom HTTP/1.1"),
    "an id that a terminal obeys": http(b"X-Gearman-Task: \xc2\x9b2J\xc2\x85", first=b"POST http://h/boom HTTP/1.1"),
    "a service of Chinese": http("X-Gearman-Service: 发邮件", first=b"POST http://h/boom HTTP/1.1"),
    "a service of other bytes": http(b"X-Gearman-Service: \xff\xe9", first=b"POST http://h/boom HTTP/1.1"),
    "failures of other bytes": http(*[b"X-Gearman-Failed: \xff\xc3"] * 30, first=b"POST http://h/boom HTTP/1.1"),
    "a script name": http("X-Gearman-Script-Name: /a%ff", first=b"POST http://h/a%ff/boom HTTP/1.1"),
    "a user of other bytes": http(b"X-Gearman-Remote-User: \xff\x80", first=b"POST http://h/boom HTTP/1.1"),
    "an attempt near the largest": http(
        "X-Gearman-Attempt: 999999998", "X-Gearman-Max-Attempts: 999999999", first=b"POST http://h/boom HTTP/1.1"
    ),
    "headers of other bytes": http(b"X-A: \xff\x80", b"Cookie: \xe9", first=b"POST http://h/boom HTTP/1.1"),
    "a path of other bytes": http(first=b"POST http://h/boom%ff%00%0d%0a?%ff%00 HTTP/1.1"),
    "a host of brackets": http(first=b"POST http://[::1]:80/boom HTTP/1.1"),
    "no path": http(first=b"POST http://h HTTP/1.1"),
    "a method of its own": http(first=b"!#$%&'*+-.^_`|~ http://h/boom HTTP/1.1"),
    "data of half a surrogate pair": b'{"service":"/boom","a":"\\ud800","\\udfff":1}',
}


UNIQUES = (b"\xff\xfe../../x", b"/tmp/climbed")


@pytest.mark.parametrize(
    ("payload", "unique"), [(payload, UNIQUES[n % 2]) for n, payload in enumerate(ODD.values())], ids=ODD.keys()
)
def test_an_odd_one_fails_is_retried_and_is_kept_under_a_name_of_ours(
    unguarded: Attacker, payload: bytes, unique: bytes
) -> None:
    process, before = unguarded.pid(), unguarded.count()
    if b"Max-Attempts" not in payload and payload[:1] != b"{":
        payload = payload.replace(b"\r\n\r\n", b"\r\nX-Gearman-Max-Attempts: 2\r\nX-Gearman-Backoff: 0 0\r\n\r\n", 1)
    unguarded.push(payload, unique=unique)
    until(lambda: unguarded.count() == before + 1, "the dead letter")
    assert unguarded.pid() == process
    for path in unguarded.bench.state_dir.rglob("*"):
        name = path.name.removesuffix(".http")
        assert path.is_dir() or path.suffix != ".http" or set(name) <= set("0123456789abcdef"), path
    assert not os.path.exists("/tmp/climbed") and not os.path.exists("/tmp/climbed.http")


@pytest.mark.parametrize("seconds", ["0.000000001", "0.0001", "999999999", "1000000000"])
def test_a_time_limit_at_the_edge_of_what_a_timer_takes_costs_no_process(unguarded: Attacker, seconds: str) -> None:
    process, before = unguarded.pid(), unguarded.count()
    unguarded.push(http(f"X-Gearman-Timeout: {seconds}", "X-Gearman-Max-Attempts: 1", first=FAILING))
    until(lambda: unguarded.count() == before + 1, "the dead letter")
    assert unguarded.pid() == process


def test_a_backoff_of_centuries_is_a_retry_in_centuries_and_costs_no_process(unguarded: Attacker) -> None:
    process = unguarded.pid()
    data = {"X-Gearman-Task": "b" * 32, "X-Gearman-Backoff": "999999999 999999999", "X-Gearman-Max-Attempts": "2"}
    handle = unguarded.push(http(*[f"{name}: {value}" for name, value in data.items()], first=b"POST /boom HTTP/1.1"))
    log = unguarded.bench.workers[-1]
    until(lambda: any(f" {handle} failed " in line for line in log.log.splitlines()), "the retry")
    assert unguarded.pid() == process


def test_the_same_id_in_another_queue_overwrites_no_dead_letter(unguarded: Attacker) -> None:
    def push(queue: str) -> None:
        unguarded.push(http("X-Gearman-Task: " + "c" * 32, first=FAILING), queue)

    push("job")
    first = until(lambda: [each for each in unguarded.letters() if each.id == "c" * 32], "the dead letter")
    push("legacy")
    until(lambda: len([each for each in unguarded.letters() if each.id == "c" * 32]) == 2, "the other one")
    assert first[0] in unguarded.letters()


def test_a_job_over_max_body_is_a_dead_letter_and_is_never_held_whole(unguarded: Attacker) -> None:
    if unguarded.bench.server.kind == "embedded":
        pytest.skip("the embedded job server takes no such job")
    process = unguarded.pid()
    size = model.MAX_BODY + 10 * 2**20
    handle = unguarded.push(http(f"Content-Length: {size}", body=bytes(size)))
    letter = unguarded.letter_of(handle)
    assert "is over max_body=67108864" in letter.reason
    assert len(letter.payload) < 2**17
    assert unguarded.pid() == process


def test_a_body_of_max_body_runs(unguarded: Attacker) -> None:
    data = a_message(id="d" * 32, headers=[("Content-Type", "x/y")], body=bytes(model.MAX_BODY))
    unguarded.push(data)
    until(lambda: f"good {'d' * 32} 1" in unguarded.ran(), "the run")


def test_nothing_in_a_payload_is_formatted_imported_or_unpickled(unguarded: Attacker) -> None:
    before = unguarded.count()
    for name in ("os:system", "os.system{0}", "%(secret_keys)s", "{settings.secret_keys}", "cos\nsystem\n(S'id'\ntR."):
        with pytest.raises(BadMessage):
            plain.read_plain(plain.write_plain(name, None), {}, None, id="x")
        unguarded.push(plain.write_plain(name, None))
    until(lambda: unguarded.count() == before + 5, "five dead letters")

"""What the other ends of sockets send: a job server's packets, a worker process's frames, a Retry-After."""

import contextlib
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import BadMessage, ProtocolError
from gearwsgi.message.model import Message
from gearwsgi.message.signature import sign
from gearwsgi.policy import MAX_RETRY_AFTER, Outcome, retry_after
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.dead import DeadLetters
from gearwsgi.wire import packets
from gearwsgi.wire.packets import PacketReader
from gearwsgi.wire.payload import Grabbed, open_payload
from gearwsgi.worker.channel import DONE, FOREIGN, FrameReader, frame
from gearwsgi.worker.settle import Held, Settler
from tests.fuzz import CORPUS, run_all
from tests.support import APPS, Worker, until

KEY = b"k" * 16


def packet(kind: int, *parameters: bytes) -> bytes:
    body = b"\0".join(parameters)
    return struct.pack("!4sII", b"\0RES", kind, len(body)) + body


def feed(reader: Any, *parts: bytes) -> list[Any]:
    return [each for part in parts for each in reader.feed(part)]


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 40))
def test_packets_are_the_same_wherever_the_bytes_are_cut(payloads: list[bytes], size: int) -> None:
    data = b"".join(packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job", b"u", payload) for payload in payloads)
    parts = [data[place : place + size] for place in range(0, len(data), size)]
    found = feed(PacketReader(), *parts)
    assert [parameters[3] for _, parameters in found] == payloads


@given(st.binary(max_size=64))
def test_any_bytes_are_packets_or_an_error_of_ours(data: bytes) -> None:
    for reader in (PacketReader(), FrameReader()):
        try:
            feed(reader, data, b"\0RES" + data)
        except ProtocolError:
            continue


def test_only_packets_with_data_may_announce_much() -> None:
    for kind in (*range(1, 43), 9999):
        header = struct.pack("!4sII", b"\0RES", kind, packets.SMALL + 1)
        if kind in packets.LARGE:
            assert feed(PacketReader(), header) == []
        else:
            with pytest.raises(ProtocolError):
                feed(PacketReader(), header)
    with pytest.raises(ProtocolError):
        feed(PacketReader(max_job=1_000_000), struct.pack("!4sII", b"\0RES", packets.WORK_COMPLETE, 1_000_001))


@pytest.mark.parametrize(
    "data",
    [packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job"), packet(packets.JOB_ASSIGN_UNIQ),
     packet(packets.WORK_STATUS, b"H"), packet(packets.STATUS_RES, b"H:1", b"1"),
     struct.pack("!4sII", b"\0REQ", 8, 0), b"HTTP/1.1 400 Bad Request\r\n",
     struct.pack("!4sII", b"\0RES", 8, packets.MAX_PACKET + 1), b"ERR unknown_command Unknown+server+command\r\n"],
)  # fmt: skip
def test_a_packet_without_its_parameters_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        feed(PacketReader(), data)


@pytest.mark.parametrize("step", [1 << 20, 70_000, 4096])
def test_a_job_that_is_too_large_is_not_kept_and_what_follows_is_read(step: int) -> None:
    large = b"x" * 3_000_000
    job = packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job", b"u", large)
    data = packet(packets.NOOP) + job + packet(packets.JOB_CREATED, b"H:2") + job + packet(packets.NO_JOB)
    reader = PacketReader(max_job=1_000_000)
    found = []
    for place in range(0, len(data), step):
        found += list(reader.feed(data[place : place + step]))
        assert len(reader._buffer) <= step + 70_000
    kinds = [packets.NOOP, packets.JOB_TOO_LARGE, packets.JOB_CREATED, packets.JOB_TOO_LARGE, packets.NO_JOB]
    assert [kind for kind, _ in found] == kinds
    handle, queue, unique, beginning, size = found[1][1]
    assert (handle, queue, unique, size) == (b"H:1", b"job", b"u", b"%d" % (len(job) - 12))
    assert large.startswith(beginning) and len(beginning) > 60_000


def test_a_job_of_four_gigabytes_is_announced_and_not_waited_for_in_memory() -> None:
    head = struct.pack("!4sII", b"\0RES", packets.JOB_ASSIGN_UNIQ, 0xFFFFFFFF) + b"H:1\0job\0u\0"
    reader = PacketReader(max_job=1_000_000)
    assert feed(reader, head, *[b"x" * 65536] * 100) == []
    assert len(reader._buffer) == 0


def test_a_beginning_that_would_be_a_message_by_itself_does_not_run() -> None:
    payload = Message("POST").to_bytes()
    job = Grabbed(b"H:1", b"job", b"u", payload, cut=10**9)
    with pytest.raises(BadMessage, match="payload of 1000000000 bytes is over max_body=67108864"):
        open_payload(job, read_settings({"servers": "127.0.0.1:1"}, {}), time.time())


def test_a_frame_of_a_length_that_no_frame_has_is_rubbish_and_not_waited_for() -> None:
    endless = frame(DONE, 1)[:-4] + b"\xff\xff\xff\xff"
    assert feed(FrameReader(), endless + frame(DONE, 2)) == [(FOREIGN, 0, b""), (DONE, 2, b"")]


@given(st.text(max_size=60) | st.from_regex(r"(Mon, )?\d{1,3} \w{3,9} \d{1,5} \d\d:\d\d(:\d\d)? ?[+-]?\w{0,6}"))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after(value, time.time())
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


# -- a job server that is none -----------------------------------------------------------------------------------------

NASTY = {
    "rubbish": b"rubbish" * 10,
    "a request instead of an answer": struct.pack("!4sII", b"\0REQ", 10, 0),
    "a length of four gigabytes": struct.pack("!4sII", b"\0RES", 8, 0xFFFFFFFF),
    "a job of a queue that nobody asked for": packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"\xff", b"u", b"x"),
    "a job without a payload": packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job"),
    "a kind that there is not": packet(0xFFFFFFFF, b"x"),
    "a job without a unique, of another kind": packet(packets.JOB_ASSIGN, b"H:1", b"job", b"x"),
    "an end": b"",
}
HARMLESS = [
    packet(packets.ERROR),
    packet(packets.ERROR, b"\xff", b"\x1b[2J"),
    packet(packets.JOB_CREATED, b"H:9"),
    packet(packets.NOOP),
    packet(packets.ECHO_RES, b"x"),
]


def test_a_worker_survives_whatever_its_job_server_says_and_connects_again(tmp_path: Any) -> None:
    served = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def serve() -> None:
            nonlocal served
            for nasty in NASTY.values():
                connection, _ = server.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.settimeout(60)
                    while b"\0REQ\0\0\0\x1e" not in connection.recv(65536):  # GRAB_JOB_UNIQ
                        pass
                    connection.sendall(b"".join(HARMLESS) + nasty)
                    if nasty:
                        while connection.recv(65536):
                            pass
                served += 1
            server.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "kitchen.py").write_bytes((APPS / "kitchen.py").read_bytes())
        env = {"GEARMAN_SERVERS": address, "GEARWSGI_STATE_DIR": "state", "RECORD": "record"}
        worker = Worker(tmp_path, "kitchen:application", "--workers", "1", env=env)
        try:
            until(lambda: served == len(NASTY) or worker.process.poll() is not None, "all of it")
            assert worker.process.poll() is None, worker.log
            assert worker.stop() == 0
            assert "Traceback" not in worker.log and "\x1b" not in worker.log
        finally:
            worker.kill()
            thread.join()


# -- the supervisor holds a message that nobody verified ---------------------------------------------------------------


class DeafSession:
    """A connection that stands, and remembers what was sent and submitted."""

    is_open = True

    def __init__(self) -> None:
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
    settler = Settler(settings)
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
    assert not settler.hand_back(held) and link.submitted == []


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


@pytest.mark.parametrize("seed", sorted((CORPUS / "inputs").iterdir()), ids=lambda path: path.name)
def test_what_the_fuzzer_begins_with_passes_all_readers(seed: Path) -> None:
    run_all(seed.read_bytes())

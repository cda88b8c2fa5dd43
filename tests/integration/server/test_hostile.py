"""What strangers, slow readers and crowds do to the server: nothing."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.server.conftest import Embedded
from tests.integration.server.wire import (
    CAN_DO,
    ECHO_REQ,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_UNIQ,
    HEADER,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_DATA,
    Wire,
    packet,
    until,
)

Start = Callable[..., Embedded]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def memory(server: Embedded) -> int:
    """Resident bytes of the server."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def log(server: Embedded) -> str:
    return server.server.log()


GARBAGE = [
    b"\0REQ\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0REQ\0\0\0\x12\xff\xff\xff\xff",
    b"\0REQ\0\0\0\x12\0\0",
    b"\0REQ\0\0\0\0\0\0\0\0",
    b"\0RES\0\0\0\x08\0\0\0\x01x",
    b"\0ABC\0\0\0\1\0\0\0\0",
    b"\0" * 100_000,
    b"\xff" * 100_000,
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    b"version\n\0REQ\0\0\0\x10\0\0\0\x01xgarbage\0\0\0\n",
    b"\n" * 10_000,
]


def test_garbage_is_logged_once_a_connection_and_the_server_lives(embedded: Start) -> None:
    server = embedded("--max-packet", "1000000")
    for data in GARBAGE:
        wire = server.connect()
        try:
            wire.raw(data)
            wire.socket.shutdown(socket.SHUT_WR)
            wire.ended()
        except OSError:
            pass  # it was closed while we wrote
        server.connect().submit(b"f")
    assert "Traceback" not in log(server)
    assert 3 <= len(log(server).splitlines()) <= len(GARBAGE)


def test_a_packet_that_is_too_large_is_refused_and_the_connection_lives(embedded: Start) -> None:
    server = embedded("--max-packet", "1000000")
    wire = server.connect()
    wire.send(SUBMIT_JOB_BG, b"f", b"u", bytes(5_000_000))
    assert wire.error() == b"ARGUMENT_TOO_LARGE"
    wire.nothing_more()
    wire.submit(b"f", b"u", bytes(999_990))
    assert wire.status(b"f") == (1, 0, 0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.binary(max_size=100)
        | st.builds(
            lambda kind, args: packet(kind, *args),
            st.integers(0, 50),
            st.lists(st.sampled_from([b"", b"f", b"1", b"H:x:1", b"\xff" * 70]), max_size=5),
        )
        | st.sampled_from([b"status\n", b"workers\r\n", b"cancel job x\n", b"maxqueue f x\n", b"drop function f\n"]),
        max_size=15,
    )
)
def test_no_sequence_of_packets_text_and_garbage_hurts_the_server(shared: Embedded, parts: list[bytes]) -> None:
    wire = shared.connect()
    try:
        for part in parts:
            wire.raw(part)
        wire.socket.shutdown(socket.SHUT_WR)
        wire.ended()
    except OSError:
        pass
    wire.close()
    other = shared.connect()
    other.nothing_more()
    other.close()
    assert "Traceback" not in log(shared)


@pytest.fixture
def shared(embedded: Start) -> Embedded:
    return embedded("--max-packet", "100000")


@linux
def test_a_client_that_never_reads_is_held_back(embedded: Start) -> None:
    server = embedded()
    other, deaf = server.connect(), server.connect()
    before = memory(server)
    deaf.socket.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 400_000_000:
            deaf.raw(packet(ECHO_REQ, bytes(100_000)) * 10)
            sent += 1_000_000
    other.nothing_more()
    assert memory(server) - before < 50_000_000
    deaf.socket.settimeout(20)


@linux
@pytest.mark.parametrize("command", [b"status\n", b"workers\n", b"show jobs\n"])
def test_small_questions_with_large_answers_cost_no_more_than_what_is_read(embedded: Start, command: bytes) -> None:
    server = embedded()
    deaf, other = server.connect(), server.worker(*(b"a function with a long name %d" % n for n in range(300)))
    for n in range(300):
        other.submit(b"f", b"%d" % n)
    before = memory(server)
    deaf.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        for _ in range(1000):
            deaf.raw(command * 20_000)
    other.nothing_more()
    assert memory(server) - before < 50_000_000


@linux
def test_a_client_that_does_not_read_results_is_let_go_and_its_worker_goes_on(embedded: Start) -> None:
    server = embedded()
    deaf, worker = server.connect(), server.worker(b"f")
    handle = deaf.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    before = memory(server)
    for _ in range(100):
        worker.send(WORK_DATA, handle, bytes(1_000_000))
    worker.complete(handle)
    worker.nothing_more()
    until(lambda: len(worker.table(b"workers")) == 1)
    assert memory(server) - before < 60_000_000
    assert "does not read" in log(server)


@linux
def test_unfinished_packets_together_have_a_limit(embedded: Start) -> None:
    server = embedded("--max-packet", "5000000")
    before = memory(server)
    wires = [server.connect() for _ in range(30)]
    lost = 0
    for wire in wires:
        try:
            wire.raw(HEADER.pack(b"\0REQ", SUBMIT_JOB_BG, 5_000_000) + b"f\0u\0" + bytes(4_900_000))
        except OSError:
            lost += 1
    server.connect().nothing_more()
    until(lambda: "unfinished packets" in log(server))
    assert memory(server) - before < 60_000_000
    wires[-1].raw(bytes(100_000 - 4))
    wires[-1].expect(JOB_CREATED)


@linux
def test_memory_comes_back_after_large_payloads(embedded: Start) -> None:
    server = embedded()
    client, worker = server.connect(), server.worker(b"f")
    client.submit(b"f")
    worker.drain()
    before = memory(server)
    for size in (30_000_000, 10_000_000):
        client.submit(b"f", b"u", bytes(size))
        assert memory(server) - before > size
        job = worker.grab()
        assert job is not None
        worker.complete(job[0])
    until(lambda: memory(server) - before < 8_000_000)


def test_a_thousand_sleepers_are_woken_one_at_a_time(embedded: Start) -> None:
    server = embedded()
    count = 1000 if _descriptors() >= 1200 else 200
    workers = [server.connect() for _ in range(count)]
    for worker in workers:
        worker.raw(packet(CAN_DO, b"f") + packet(PRE_SLEEP))
    for worker in workers:
        worker.nothing_more()
    client = server.connect()
    for n in range(20):
        client.submit(b"f", b"%d" % n)

    def next_woken() -> Wire | None:
        # Who slept last is woken first, and grabs at once: who takes too long has another one woken.
        for worker in reversed(workers):
            worker.send(ECHO_REQ, b"")
            if worker.read()[0] == NOOP:
                worker.read()
                workers.remove(worker)
                return worker
        return None

    for _ in range(20):
        worker = next_woken()
        assert worker is not None and worker.grab() is not None
    assert next_woken() is None
    client.submit(b"f", b"20")
    lost = next_woken()
    assert lost is not None
    lost.close()  # its job goes to another sleeper
    until(lambda: (worker := next_woken()) is not None and worker.grab() is not None)
    assert client.status(b"f") == (21, 21, count - 1)


def _descriptors() -> int:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 4096) if hard != resource.RLIM_INFINITY else 4096
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_slow_sender_and_a_silent_one_keep_nobody_waiting(embedded: Start) -> None:
    server = embedded()
    silent, slow, worker = server.connect(), server.connect(), server.worker(b"f")
    silent.raw(b"\0REQ\0\0\0\x12\0\0\x10\0half")
    stream = packet(SUBMIT_JOB_BG, b"f", b"slow", b"slow data")
    for n, byte in enumerate(stream):
        slow.raw(bytes([byte]))
        quick = server.connect()
        quick.submit(b"f", b"%d" % n)
        quick.close()
    slow.expect(JOB_CREATED)
    worker.send(GRAB_JOB_UNIQ)
    assert worker.read()[0] != NO_JOB
    assert worker.status(b"f") == (len(stream) + 1, 1, 1)


def test_many_grabs_of_large_jobs_are_answered_as_they_are_read(embedded: Start) -> None:
    server = embedded()
    client, worker = server.connect(), server.worker(b"f")
    for n in range(30):
        client.submit(b"f", b"%d" % n, bytes([n]) * 1_000_000)
    worker.raw(packet(GRAB_JOB) * 31)
    for n in range(30):
        _, args = worker.read()
        assert args[-1][:1] == bytes([n])[:1].replace(b"\0", b"")
        worker.send(WORK_COMPLETE, args[0], b"")
    assert worker.read()[0] == NO_JOB


def test_a_burst_that_is_answered_in_parts_is_answered_whole(embedded: Start) -> None:
    wire: Wire = embedded().connect()
    wire.raw(packet(ECHO_REQ, bytes(50_000)) * 40 + b"version\n")
    for _ in range(40):
        wire.read()
    until(lambda: wire.buffer.endswith(b"\n") or wire._more())


@linux
def test_a_crowd_of_functions_costs_no_memory_for_ever_and_no_silence(embedded: Start) -> None:
    server = embedded()
    other = server.connect()
    other.nothing_more()
    before = memory(server)
    for round in range(10):
        wire = server.connect()
        wire.raw(b"".join(packet(CAN_DO, b"%d of %d" % (n, round)) for n in range(10_000)))
        wire.nothing_more()
        wire.send(CAN_DO, b"one more")
        wire.nothing_more()
        assert wire.status(b"one more") is None
        wire.close()
    assert "gets no jobs of more" in log(server)
    until(lambda: len(other.table(b"status")) <= 1000)
    assert memory(server) - before < 40_000_000
    other.raw(packet(GET_STATUS_UNIQUE, b"nobody") * 2000)
    for _ in range(2000):
        other.read()


@linux
def test_connections_notice_that_the_other_host_has_vanished(embedded: Start) -> None:
    server = embedded()
    wire = server.connect()
    wire.nothing_more()
    mine = wire.socket.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        local, remote = (int(words[place].partition(":")[2], 16) for place in (1, 2))
        if (local, remote) == (server.address[1], mine):
            timer, _, when = words[5].partition(":")
            assert timer == "02", "the keepalive timer of this connection runs"
            assert int(when, 16) <= 60 * os.sysconf("SC_CLK_TCK")
            return
    raise AssertionError("no such connection")

"""What was said to be queued is there after a crash, in order; what was done is not."""

import contextlib
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable

import pytest

from gearwsgi.state.spool import Spool
from tests.integration.server.conftest import Embedded
from tests.integration.server.wire import (
    ERROR,
    JOB_CREATED,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
    WORK_FAIL,
    Wire,
    packet,
    until,
)

Start = Callable[..., Embedded]
KINDS = (SUBMIT_JOB_HIGH_BG, SUBMIT_JOB_BG, SUBMIT_JOB_LOW_BG)


def rows(server: Embedded) -> int:
    """Jobs on disk, read from a copy of the files; -1 where they changed meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(server.state_dir.glob("jobs.sqlite3*")):
            shutil.copy(path, folder)
        try:
            with contextlib.closing(sqlite3.connect(f"{folder}/jobs.sqlite3")) as db:
                return int(db.execute("SELECT count(*) FROM job").fetchone()[0])
        except sqlite3.DatabaseError:
            return -1


def fill(client: Wire, count: int, size: int = 100) -> list[bytes]:
    """Submit so many jobs in the three priorities, pipelined; their data in the order in which they are to come."""
    jobs = [(KINDS[n % 3], b"%06d" % n + bytes(size - 6)) for n in range(count)]
    for begin in range(0, count, 500):
        some = jobs[begin : begin + 500]
        client.raw(b"".join(packet(kind, b"f", data[:6], data) for kind, data in some))
        for _ in some:
            client.expect(JOB_CREATED)
    return [data for wanted in KINDS for kind, data in jobs if kind == wanted]


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_after_kill_9_all_jobs_are_back_in_order_and_none_that_was_done_is(embedded: Start, durability: str) -> None:
    server = embedded("--durability", durability)
    client, worker = server.connect(), server.worker(b"f")
    expected = fill(client, 5000)
    due = time.time() + 1000
    for n in range(5):
        client.later(b"g", b"late%d" % n, due + n)
    soon = client.later(b"g", b"soon", time.time() + 1)
    client.submit(b"g", b"waits", b"foreground", SUBMIT_JOB)
    for _ in range(3):
        job = worker.grab()
        assert job is not None
        worker.complete(job[0])
    running = worker.grab()
    assert running is not None
    assert b"\0".join(running[3:]) == expected[3]
    until(lambda: rows(server) == 5000 - 3 + 6, "what is done goes from disk")
    server.crash()
    worker = server.worker(b"f")
    assert [row[1:3] for row in worker.table(b"status") if row[0] == b"g"] == [[b"6", b"0"]]
    found = []
    while job := worker.grab():
        found.append(b"\0".join(job[3:]))
        worker.complete(job[0])
    assert found == expected[3:]
    delayed = server.worker(b"g")
    assert (until(delayed.grab))[0] == soon
    assert delayed.grab() is None
    until(lambda: rows(server) == 6)


def test_a_job_is_on_disk_when_it_is_said_to_be(embedded: Start) -> None:
    server = embedded()
    client = server.connect()
    for n in range(20):
        client.submit(b"f", b"%d" % n)
        assert rows(server) == n + 1


def test_empty_uniques_empty_data_dashes_and_any_bytes_come_back(embedded: Start) -> None:
    server = embedded()
    jobs = [(b"", b""), (b"", b""), (b"-", b"x"), (b"\xff\xfe\n", b"\0\xff"), (b"u", b"")]
    for unique, data in jobs:
        server.connect().submit(b"f\xff", unique, data)
    server.crash()
    client, worker = server.connect(), server.worker(b"f\xff")
    handle = client.submit(b"f\xff", b"-", b"x")
    assert client.submit(b"f\xff", b"u", b"other") != handle
    found = []
    while job := worker.grab():
        found.append((job[2], b"\0".join(job[3:])))
        worker.complete(job[0])
    assert found == jobs


def test_handles_never_repeat(embedded: Start) -> None:
    server, handles = embedded(), set()
    for turn in range(4):
        client, worker = server.connect(), server.worker(b"f")
        handles |= {client.submit(b"f", b"", b"", kind) for kind in (SUBMIT_JOB, *KINDS)}
        worker.drain()
        server.crash() if turn % 2 else server.restart()
    assert len(handles) == 16


def test_a_handle_means_the_same_job_after_a_restart(embedded: Start) -> None:
    server = embedded()
    handle = server.connect().submit(b"f", b"u")
    server.restart()
    assert (server.worker(b"f").grab() or [])[0] == handle


def test_a_job_that_was_queued_again_keeps_its_new_place(embedded: Start) -> None:
    server = embedded()
    client, worker = server.connect(), server.worker(b"f")
    for data in (b"1", b"2", b"3"):
        client.submit(b"f", data, data)
    assert worker.grab() is not None
    worker.close()
    until(lambda: client.status(b"f") == (3, 0, 0))
    server.restart()
    assert server.worker(b"f").drain() == [b"2", b"3", b"1"]


def test_a_running_job_that_was_cancelled_does_not_come_back(embedded: Start) -> None:
    server = embedded()
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"cancelled")
    assert worker.grab() is not None
    assert client.text(b"cancel job " + handle) == b"OK"
    assert client.submit(b"f", b"u", b"new") != handle
    worker.close()
    until(lambda: client.status(b"f") == (1, 0, 0))
    server.restart()
    assert server.worker(b"f").drain() == [b"new"]


def test_attempts_are_counted_across_crashes_and_a_job_without_any_left_is_a_dead_letter(embedded: Start) -> None:
    server = embedded("--job-retries", "3")
    handle = server.connect().submit(b"mail", b"u", b"poison")
    for attempt in range(3):
        worker = server.worker(b"mail")
        assert (worker.grab() or [])[0] == handle
        if attempt == 1:
            server.crash()
        else:
            worker.close()
    watcher = server.worker(b"mail")
    until(lambda: watcher.status(b"mail") == (0, 0, 1))
    assert watcher.grab() is None
    dead = Spool(server.state_dir / "dead", "dead letter")
    (name,) = dead.names()
    letter = dead.get(name)
    assert letter.message == b"poison"
    assert letter.fields["queue"] == "mail"
    assert letter.fields["handle"] == handle.decode()
    assert letter.fields["attempts"] == "3"
    server.restart()
    assert server.worker(b"mail").grab() is None
    assert dead.names() == [name]


def test_a_foreground_job_without_attempts_left_fails(embedded: Start) -> None:
    server = embedded("--job-retries", "1")
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    worker.close()
    assert client.expect(WORK_FAIL) == [handle]
    assert not (server.state_dir / "dead").exists()


def test_the_file_becomes_small_again_after_a_backlog(embedded: Start) -> None:
    server = embedded()
    client, worker = server.connect(), server.worker(b"f")
    fill(client, 5000, size=2000)

    def size() -> int:
        return sum(path.stat().st_size for path in server.state_dir.glob("jobs.sqlite3*"))

    assert size() > 10_000_000
    while job := worker.grab():
        worker.complete(job[0])
    until(lambda: size() < 2_500_000)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit(2)")
def test_a_full_disk_refuses_jobs_and_loses_none(embedded: Start) -> None:
    server = embedded()
    client = server.connect()
    # A file may grow no further from now on: what the process gets is an error of the write, as on a full disk.
    unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    created, refused = [], 0
    sleeper = server.worker(b"f")
    for n in range(300):
        client.send(SUBMIT_JOB_BG, b"f", b"%d" % n, b"%03d" % n + b"x" * 2000)
        kind, args = client.read()
        if kind == ERROR:
            assert args[0] == b"QUEUE_ERROR"
            refused += 1
        else:
            assert kind == JOB_CREATED
            created.append(b"%03d" % n)
    assert created
    assert refused
    client.nothing_more()
    assert (client.status(b"f") or ())[0] == len(created)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)
    client.submit(b"f", b"again", b"yes")
    sleeper.send(PRE_SLEEP)
    server.crash()
    assert [data[:3] for data in server.worker(b"f").drain()] == [*created, b"yes"]


def test_jobs_that_are_missing_are_counted_in_the_log(embedded: Start) -> None:
    server = embedded()
    fill(server.connect(), 500, 1000)
    server.server.stop(30)
    server.start()
    fill(server.connect(), 1500, 1000)  # 500 of them are there already
    server.server.kill()
    log = server.state_dir / "jobs.sqlite3-wal"
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)
    server.start()
    left = (server.connect().status(b"f") or (0,))[0]
    assert 0 < left < 1500
    assert f"{1500 - left} jobs are missing in {server.state_dir}/jobs.sqlite3, which held 1500" in server.server.log()
    server.restart()
    assert "missing" not in server.server.log()


def test_no_job_is_missing_after_crashes_and_full_disks(embedded: Start) -> None:
    server = embedded()
    for _ in range(3):
        client, worker = server.connect(), server.worker(b"f")
        fill(client, 50)
        for _ in range(20):
            job = worker.grab()
            assert job is not None
            worker.complete(job[0])
        worker.nothing_more()
        server.crash()
        assert "missing" not in server.server.log()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit is Linux's")
def test_jobs_that_were_done_on_a_full_disk_do_not_run_again_after_a_crash(embedded: Start) -> None:
    server = embedded()
    fill(server.connect(), 300, 1000)
    worker = server.worker(b"f")
    wal = server.state_dir / "jobs.sqlite3-wal"
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, resource.RLIM_INFINITY))
    assert len(worker.drain()) == 300
    worker.nothing_more()
    until(lambda: "can't write" in server.server.log())
    server.server.kill()
    assert rows(server) > 0, "the disk was not full after all"
    server.start()
    assert server.connect().status(b"f") in (None, (0, 0, 0))
    until(lambda: rows(server) == 0)
    assert "missing" not in server.server.log()

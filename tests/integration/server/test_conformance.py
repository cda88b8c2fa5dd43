"""One suite for gearmand and the embedded server; where gearmand differs, the test says so and why."""

import time

import pytest

from tests.integration.server.conftest import Server
from tests.integration.server.wire import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    ECHO_RES,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    RESET_ABILITIES,
    SET_CLIENT_ID,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    packet,
    until,
)

# Submitting and grabbing


@pytest.mark.parametrize(
    ("grab", "answer", "fields"),
    [
        (GRAB_JOB, JOB_ASSIGN, [b"f", b"some data"]),
        (GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ, [b"f", b"u", b"some data"]),
        (GRAB_JOB_ALL, JOB_ASSIGN_UNIQ, [b"f", b"u", b"some data"]),
    ],
)
def test_a_background_job_is_created_grabbed_and_completed(
    server: Server, grab: int, answer: int, fields: list[bytes]
) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"some data")
    assert handle.startswith(b"H:")
    assert client.status(b"f") == (1, 0, 1)
    worker.send(grab)
    assert worker.expect(answer) == [handle, *fields]
    assert client.status(b"f") == (1, 1, 1)
    worker.complete(handle, b"done")
    worker.nothing_more()
    assert client.status(b"f") == (0, 0, 1)
    client.nothing_more()


def test_high_goes_before_normal_before_low_and_each_is_first_in_first_out(server: Server) -> None:
    client = server.connect()
    for number in (b"1", b"2"):
        for kind, name in (
            (SUBMIT_JOB_LOW_BG, b"low"),
            (SUBMIT_JOB_BG, b"normal"),
            (SUBMIT_JOB_HIGH_BG, b"high"),
            (SUBMIT_JOB_LOW, b"low foreground"),
            (SUBMIT_JOB, b"normal foreground"),
            (SUBMIT_JOB_HIGH, b"high foreground"),
        ):
            client.submit(b"f", name + number, name + number, kind)
    assert client.table(b"prioritystatus") == [[b"f", b"4", b"4", b"4", b"0"]]
    kinds = [(b"high1", b"high2"), (b"normal1", b"normal2"), (b"low1", b"low2")]
    expected = [job for one, two in kinds for job in (one, one[:-1] + b" foreground1", two, two[:-1] + b" foreground2")]
    assert server.worker(b"f").drain() == expected


def test_a_pipelined_burst_is_answered_in_order(server: Server) -> None:
    client = server.connect()
    client.raw(b"".join(packet(SUBMIT_JOB_BG, b"f", b"u%d" % n, b"%d" % n) for n in range(500)))
    handles = [client.expect(JOB_CREATED)[0] for _ in range(500)]
    assert len(set(handles)) == 500
    worker = server.worker(b"f")
    for n in range(500):
        job = worker.grab()
        assert job == [handles[n], b"f", b"u%d" % n, b"%d" % n]
        worker.complete(job[0])


def test_a_worker_gets_no_job_where_there_is_none_for_it(server: Server) -> None:
    server.connect().submit(b"other")
    worker = server.worker(b"f")
    for grab in (GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL):
        worker.send(grab)
        worker.expect(NO_JOB)


def test_an_answer_and_the_next_grab_go_in_one_write(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handles = [client.submit(b"f", b"u%d" % n) for n in range(10)]
    worker.send(GRAB_JOB)
    for handle in handles:
        assert worker.expect(JOB_ASSIGN)[0] == handle
        worker.raw(packet(WORK_COMPLETE, handle, b"") + packet(GRAB_JOB))
    worker.expect(NO_JOB)


def test_several_jobs_are_held_at_once_and_answered_in_any_order(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handles = [client.submit(b"f", b"u%d" % n) for n in range(3)]
    worker.raw(packet(GRAB_JOB) * 4)
    assert [worker.expect(JOB_ASSIGN)[0] for _ in range(3)] == handles
    worker.expect(NO_JOB)
    for handle in reversed(handles):
        worker.complete(handle)
    worker.nothing_more()
    assert client.status(b"f") == (0, 0, 1)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_a_payload_comes_back_byte_for_byte(server: Server, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", data, SUBMIT_JOB)
    job = worker.grab()
    assert job is not None
    assert b"\0".join(job[3:]) == data
    worker.complete(handle, data)
    assert b"\0".join(client.expect(WORK_COMPLETE)[1:]) == data


def test_packets_that_come_byte_by_byte_are_put_together(server: Server) -> None:
    wire = server.connect()
    stream = packet(CAN_DO, b"f") + packet(SUBMIT_JOB_BG, b"f", b"u", b"d\0d") + b"version\r\n" + packet(GRAB_JOB)
    for byte in stream:
        wire.raw(bytes([byte]))
    wire.expect(JOB_CREATED)
    until(lambda: wire.buffer.startswith(b"OK ") or wire._more())
    wire.buffer = wire.buffer.partition(b"\n")[2]
    assert wire.expect(JOB_ASSIGN)[1:] == [b"f", b"d", b"d"]


# Coalescing


def test_a_unique_coalesces_while_its_job_is_queued_or_running(server: Server) -> None:
    client, other, worker = server.connect(), server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"same", b"first")
    assert other.submit(b"f", b"same", b"second", SUBMIT_JOB_HIGH_BG) == handle
    assert (worker.grab() or [])[0] == handle
    assert client.submit(b"f", b"same", b"third") == handle
    assert worker.grab() is None
    worker.complete(handle)
    worker.nothing_more()
    again = client.submit(b"f", b"same", b"fourth")
    assert again != handle
    assert worker.drain() == [b"fourth"]


def test_a_unique_belongs_to_its_function(server: Server) -> None:
    client = server.connect()
    assert client.submit(b"f", b"same") != client.submit(b"g", b"same")


def test_an_empty_unique_never_coalesces(server: Server) -> None:
    client = server.connect()
    assert client.submit(b"f") != client.submit(b"f")
    assert client.status(b"f") == (2, 0, 0)


def test_a_dash_coalesces_by_the_data(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"-", b"one")
    assert client.submit(b"f", b"-", b"one") == handle
    assert client.submit(b"f", b"-", b"two") != handle
    assert worker.grab() == [handle, b"f", b"-", b"one"]


def test_a_delayed_job_coalesces_with_one_for_now(server: Server) -> None:
    client = server.connect()
    handle = client.later(b"f", b"same", time.time() + 1000)
    assert client.submit(b"f", b"same") == handle
    assert server.worker(b"f").grab() is None


def test_a_unique_has_at_most_64_bytes(server: Server) -> None:
    client = server.connect()
    client.submit(b"f", b"u" * 64)
    client.send(SUBMIT_JOB_BG, b"f", b"u" * 65, b"d")
    assert client.error() == b"ARGUMENT_TOO_LARGE"
    client.nothing_more()
    assert client.status(b"f") == (1, 0, 0)
    server.differs("cuts a unique of 64 bytes to 63 when it hands the job out")
    assert (server.worker(b"f").grab() or [])[2] == b"u" * 64


# Clients that wait


def test_all_that_a_worker_says_goes_to_all_who_wait(server: Server) -> None:
    clients, worker = [server.connect() for _ in range(3)], server.worker(b"f")
    handles = {client.submit(b"f", b"same", b"d", SUBMIT_JOB) for client in clients}
    (handle,) = handles
    assert (worker.grab() or [])[0] == handle
    said = [
        (WORK_DATA, [handle, b"part"]),
        (WORK_WARNING, [handle, b"careful"]),
        (WORK_STATUS, [handle, b"1", b"3"]),
        (WORK_COMPLETE, [handle, b"result"]),
    ]
    for kind, args in said:
        worker.send(kind, *args)
    for client in clients:
        assert [client.read() for _ in said] == said
        client.nothing_more()


def test_a_client_that_waits_for_a_background_job_gets_its_result(server: Server) -> None:
    client, waiter, worker = server.connect(), server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"same")
    assert waiter.submit(b"f", b"same", b"d", SUBMIT_JOB) == handle
    assert worker.grab() is not None
    worker.complete(handle, b"result")
    assert waiter.expect(WORK_COMPLETE) == [handle, b"result"]
    client.nothing_more()


def test_a_failure_is_told_to_the_client(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    worker.send(WORK_FAIL, handle)
    assert client.expect(WORK_FAIL) == [handle]
    assert client.status(b"f") == (0, 0, 1)


def test_an_exception_is_told_to_clients_that_asked_for_exceptions_and_is_a_failure_to_others(server: Server) -> None:
    plain, asked, worker = server.connect(), server.connect(), server.worker(b"f")
    asked.send(OPTION_REQ, b"exceptions")
    assert asked.expect(OPTION_RES) == [b"exceptions"]
    handle = plain.submit(b"f", b"same", b"d", SUBMIT_JOB)
    asked.submit(b"f", b"same", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    worker.send(WORK_EXCEPTION, handle, b"it broke")
    assert plain.expect(WORK_FAIL)[0] == handle
    assert asked.expect(WORK_EXCEPTION) == [handle, b"it broke"]
    worker.complete(handle)
    assert worker.error() == b"JOB_NOT_FOUND"


def test_a_queued_foreground_job_is_dropped_when_its_last_client_goes(server: Server) -> None:
    one, two, watcher = server.connect(), server.connect(), server.connect()
    one.submit(b"f", b"same", b"d", SUBMIT_JOB)
    two.submit(b"f", b"same", b"d", SUBMIT_JOB)
    keeper = server.connect()
    keeper.submit(b"f", b"kept", b"kept", SUBMIT_JOB)
    one.close()
    two.close()
    worker = server.worker(b"f")
    # gearmand counts the dropped job until a worker asks.
    until(lambda: worker.drain() == [] and watcher.status(b"f") == (0, 0, 1))
    assert keeper.expect(WORK_COMPLETE)


def test_a_background_job_survives_the_connection_that_submitted_it(server: Server) -> None:
    client = server.connect()
    handle = client.submit(b"f", b"u")
    client.close()
    assert (server.worker(b"f").grab() or [])[0] == handle


def test_a_background_job_survives_a_client_that_waited_for_it_too(server: Server) -> None:
    client, waiter, watcher = server.connect(), server.connect(), server.connect()
    handle = client.submit(b"f", b"same")
    assert waiter.submit(b"f", b"same", b"d", SUBMIT_JOB) == handle
    server.differs("drops the background job with the client that waited for it")
    waiter.close()
    until(lambda: watcher.table(b"show jobs") and len(watcher.table(b"workers")) == 2)
    assert (server.worker(b"f").grab() or [])[0] == handle


def test_a_foreground_job_that_was_also_submitted_for_the_background_is_done_in_any_case(server: Server) -> None:
    waiter, client, watcher = server.connect(), server.connect(), server.connect()
    handle = waiter.submit(b"f", b"same", b"d", SUBMIT_JOB)
    assert client.submit(b"f", b"same") == handle
    server.differs("drops it with the client that waited, though it said JOB_CREATED for the background")
    waiter.close()
    until(lambda: len(watcher.table(b"workers")) == 2)
    assert (server.worker(b"f").grab() or [])[0] == handle


# Workers that go, and their jobs


def test_a_lost_workers_job_is_queued_again_at_the_tail_of_its_priority(server: Server) -> None:
    client, worker, next_worker = server.connect(), server.worker(b"f"), server.worker(b"f")
    for kind, name in ((SUBMIT_JOB_BG, b"1"), (SUBMIT_JOB_BG, b"2"), (SUBMIT_JOB_LOW_BG, b"3")):
        client.submit(b"f", name, name, kind)
    assert (worker.grab() or [])[3] == b"1"
    worker.close()
    until(lambda: client.status(b"f") == (3, 0, 1))
    assert next_worker.drain() == [b"2", b"1", b"3"]


def test_a_lost_workers_foreground_job_is_done_by_another(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    worker.close()
    other = server.worker(b"f")
    assert until(other.grab)[0] == handle
    other.complete(handle, b"result")
    assert client.expect(WORK_COMPLETE) == [handle, b"result"]


def test_a_sleeping_worker_is_woken_when_another_loses_its_job(server: Server) -> None:
    client, worker, sleeper = server.connect(), server.worker(b"f"), server.worker(b"f")
    client.submit(b"f")
    assert worker.grab() is not None
    sleeper.send(PRE_SLEEP)
    sleeper.nothing_more()
    worker.close()
    sleeper.expect(NOOP)
    assert sleeper.grab() is not None


def test_only_the_connection_that_grabbed_a_job_can_answer_for_it(server: Server) -> None:
    client, worker, other = server.connect(), server.worker(b"f"), server.worker(b"f")
    handle = client.submit(b"f")
    assert worker.grab() is not None
    for kind, args in (
        (WORK_COMPLETE, [b""]),
        (WORK_FAIL, []),
        (WORK_STATUS, [b"1", b"2"]),
        (WORK_DATA, [b"x"]),
        (WORK_EXCEPTION, [b"x"]),
    ):
        other.send(kind, handle, *args)
        assert other.error() == b"JOB_NOT_FOUND"
        other.send(kind, b"H:nowhere:1", *args)
        assert other.error() == b"JOB_NOT_FOUND"
    assert client.status(b"f") == (1, 1, 2)
    worker.complete(handle)
    worker.complete(handle)
    assert worker.error() == b"JOB_NOT_FOUND"
    worker.nothing_more()


# Sleeping and waking


def test_a_sleeping_worker_is_woken_by_a_submit(server: Server) -> None:
    worker = server.worker(b"f")
    worker.send(PRE_SLEEP)
    worker.nothing_more()
    server.connect().submit(b"f", b"u")
    worker.expect(NOOP)
    assert worker.grab() is not None


def test_a_worker_that_goes_to_sleep_while_jobs_wait_is_woken_at_once(server: Server) -> None:
    server.connect().submit(b"f", b"u")
    worker = server.worker(b"f")
    worker.send(PRE_SLEEP)
    worker.expect(NOOP)


def test_a_sleeping_worker_is_not_woken_for_another_function(server: Server) -> None:
    worker = server.worker(b"f")
    worker.send(PRE_SLEEP)
    worker.nothing_more()
    server.connect().submit(b"g", b"u")
    worker.nothing_more()


def test_every_job_of_a_burst_finds_a_sleeping_worker(server: Server) -> None:
    workers = [server.worker(b"f") for _ in range(10)]
    for worker in workers:
        worker.send(PRE_SLEEP)
        worker.nothing_more()
    client = server.connect()
    for n in range(10):
        client.submit(b"f", b"u%d" % n)
    for worker in workers:
        worker.expect(NOOP)
        assert worker.grab() is not None


# Delays


def test_a_delayed_job_is_counted_and_not_handed_out_before_it_is_due(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.later(b"f", b"u", time.time() + 1000)
    assert client.status(b"f") == (1, 0, 1)
    assert worker.grab() is None
    client.send(GET_STATUS, handle)
    assert client.expect(STATUS_RES) == [handle, b"1", b"0", b"0", b"0"]


@pytest.mark.parametrize("epoch", [b"0", b"1", b"soon", b""])
def test_a_delay_that_is_over_or_unreadable_is_none(server: Server, epoch: bytes) -> None:
    client = server.connect()
    client.send(SUBMIT_JOB_EPOCH, b"f", b"u", epoch, b"d")
    handle = client.expect(JOB_CREATED)[0]
    assert (server.worker(b"f").grab() or [])[0] == handle


@pytest.mark.parametrize("how", [b"%d.5", b" %d", b"\t\n%d", b"+%d", b"%d\n", b"%dx", b"0%d", b"\v\f\r %d"])
def test_a_delay_is_the_number_at_its_beginning(server: Server, how: bytes) -> None:
    client = server.connect()
    client.send(SUBMIT_JOB_EPOCH, b"f", b"u", how % int(time.time() + 1000), b"d")
    client.expect(JOB_CREATED)
    assert server.worker(b"f").grab() is None


@pytest.mark.parametrize("how", [b"-%d", b"++%d", b"+ %d", b"\xa0%d", b"0x%d", b"x%d"])
def test_a_delay_that_begins_with_no_number_is_none(server: Server, how: bytes) -> None:
    client = server.connect()
    client.send(SUBMIT_JOB_EPOCH, b"f", b"u", how % int(time.time() + 1000), b"d")
    client.expect(JOB_CREATED)
    assert server.worker(b"f").grab() is not None


def test_a_delayed_job_keeps_the_place_at_which_it_was_submitted(server: Server) -> None:
    client = server.connect()
    client.submit(b"f", b"1", b"before")
    client.later(b"f", b"2", time.time() + 2, b"delayed")
    client.submit(b"f", b"3", b"after")
    worker = server.worker(b"f")
    worker.send(PRE_SLEEP)
    worker.expect(NOOP)
    probe = server.worker(b"g")
    client.later(b"g", b"probe", time.time() + 2)
    until(probe.grab)  # due no sooner than the other one
    assert worker.drain() == [b"before", b"delayed", b"after"]


def test_a_sleeping_worker_is_woken_when_a_delayed_job_is_due(server: Server) -> None:
    worker = server.worker(b"f")
    worker.send(PRE_SLEEP)
    worker.nothing_more()
    handle = server.connect().later(b"f", b"u", time.time() + 1)
    server.differs("never wakes a sleeping worker for a delayed job")
    worker.expect(NOOP)
    assert (worker.grab() or [])[0] == handle


# Abilities


def test_a_worker_gets_no_jobs_of_what_it_can_not_do_any_more(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f", b"g", b"h")
    for name in (b"f", b"g", b"h"):
        client.submit(name, b"u", name)
    worker.send(CANT_DO, b"f")
    worker.send(CANT_DO, b"never heard of")
    assert sorted(worker.drain()) == [b"g", b"h"]
    assert client.status(b"f") == (1, 0, 0)
    worker.send(RESET_ABILITIES)
    client.submit(b"g", b"u")
    assert worker.grab() is None
    assert client.status(b"g") == (1, 0, 0)


def test_a_worker_of_several_functions_serves_them_in_turn(server: Server) -> None:
    client = server.connect()
    for n in range(3):
        for name in (b"f", b"g"):
            client.submit(name, b"%d" % n, name)
    worker = server.worker(b"f", b"g")
    server.differs("drains the function that was added last first, without its option -R")
    assert worker.drain() == [b"f", b"g"] * 3


def test_a_time_limit_queues_a_background_job_again_and_only_then(server: Server) -> None:
    server.differs("queues a finished job again once its time limit is over")
    client, worker, other = server.connect(), server.connect(), server.worker(b"f")
    worker.send(CAN_DO_TIMEOUT, b"f", b"1")
    slow, quick = client.submit(b"f", b"slow"), client.submit(b"f", b"quick")
    assert (worker.grab() or [])[0] == slow
    assert (worker.grab() or [])[0] == quick
    worker.complete(quick)
    other.send(PRE_SLEEP)
    other.expect(NOOP)
    assert (other.grab() or [])[0] == slow
    worker.complete(slow)
    assert worker.error() == b"JOB_NOT_FOUND"
    other.complete(slow)
    other.nothing_more()
    assert client.status(b"f") == (0, 0, 2)


def test_a_time_limit_is_in_milliseconds_and_a_second_at_least(server: Server) -> None:
    limits = {b"f": b"1", b"g": b"1000", b"h": b" 1200x"}
    client, other = server.connect(), server.worker(*limits)
    handles = {client.submit(function, b"u") for function in limits}
    for function, milliseconds in limits.items():  # one each: gearmand has one clock for all jobs of a worker
        worker = server.connect()
        worker.send(CAN_DO_TIMEOUT, function, milliseconds)
        assert worker.grab() is not None
    assert other.grab() is None
    assert {until(other.grab)[0] for _ in limits} == handles


def test_a_long_time_limit_and_none_leave_a_job_where_it_is(server: Server) -> None:
    limits = {b"f": b"100000", b"g": b"0", b"h": b"", b"i": b"-1", b"j": b"x1"}
    client, other = server.connect(), server.worker(*limits)
    for function, milliseconds in limits.items():
        worker = server.connect()
        worker.send(CAN_DO_TIMEOUT, function, milliseconds)
        client.submit(function, b"u")
        assert worker.grab() is not None
    probe = server.connect()
    probe.send(CAN_DO_TIMEOUT, b"probe", b"1500")
    probe.nothing_more()
    client.submit(b"probe", b"u")
    assert probe.grab() is not None
    watcher = server.worker(b"probe")
    assert until(watcher.grab)  # its limit, which is longer than the shortest there is, is over
    assert other.grab() is None


def test_a_client_is_told_that_its_job_ran_over_its_time_limit(server: Server) -> None:
    server.differs("tells its client nothing")
    client, worker = server.connect(), server.connect()
    worker.send(CAN_DO_TIMEOUT, b"f", b"1")
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    assert client.expect(WORK_FAIL) == [handle]
    assert client.status(b"f") == (0, 0, 1)


# Asking


def test_get_status_follows_a_job_from_queued_to_gone(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u")

    def state() -> list[bytes]:
        client.send(GET_STATUS, handle)
        args = client.expect(STATUS_RES)
        assert args[0] == handle
        return args[1:]

    assert state() == [b"1", b"0", b"0", b"0"]
    assert worker.grab() is not None
    assert state() == [b"1", b"1", b"0", b"0"]
    worker.send(WORK_STATUS, handle, b"3", b"10")
    worker.nothing_more()
    assert state() == [b"1", b"1", b"3", b"10"]
    worker.complete(handle)
    worker.nothing_more()
    assert state() == [b"0", b"0", b"0", b"0"]


@pytest.mark.parametrize("rest", [b"\0", b"\0\0x", b"\0junk"])
def test_a_handle_a_unique_and_an_option_end_at_the_first_nul(server: Server, rest: bytes) -> None:
    client, worker = server.connect(), server.worker(b"f")
    worker.send(SET_CLIENT_ID, b"me" + rest)
    worker.nothing_more()
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert any(b" me : f" in row[0] for row in client.table(b"workers"))
    client.send(GET_STATUS, handle + rest)
    assert client.expect(STATUS_RES) == [handle, b"1", b"0", b"0", b"0"]
    client.send(GET_STATUS_UNIQUE, b"u" + rest)
    assert client.expect(STATUS_RES_UNIQUE) == [b"u", b"1", b"0", b"0", b"0", b"1"]
    client.send(OPTION_REQ, b"Exceptions" + rest)
    assert client.expect(OPTION_RES) == (b"Exceptions" + rest).split(b"\0")
    assert worker.grab() is not None
    worker.send(WORK_FAIL, handle + rest)
    assert client.expect(WORK_FAIL)[0] == handle
    worker.nothing_more()


@pytest.mark.parametrize(
    ("numerator", "denominator", "shown"),
    [
        (b"5x", b" 10", [b"5", b"10"]),
        (b"-1", b"2", [b"4294967295", b"2"]),
        (b"4294967296", b"4294967295", [b"0", b"4294967295"]),
        (b"99999999999999999999", b"007", [b"4294967295", b"7"]),
        (b"", b"x", [b"0", b"0"]),
        (b"+3", b"1.9", [b"3", b"1"]),
        (b"1", b"2\0x", [b"1", b"2"]),
    ],
)
def test_progress_is_answered_in_numbers_and_forwarded_as_it_came(
    server: Server, numerator: bytes, denominator: bytes, shown: list[bytes]
) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u", b"d", SUBMIT_JOB)
    assert worker.grab() is not None
    worker.send(WORK_STATUS, handle, numerator, denominator)
    assert client.expect(WORK_STATUS) == [handle, numerator, *denominator.split(b"\0")]
    client.send(GET_STATUS, handle)
    assert client.expect(STATUS_RES) == [handle, b"1", b"1", *shown]


def test_get_status_unique_counts_the_clients_that_wait(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")

    def state() -> list[bytes]:
        client.send(GET_STATUS_UNIQUE, b"u")
        return client.expect(STATUS_RES_UNIQUE)

    assert state() == [b"u", b"0", b"0", b"0", b"0", b"0"]
    client.submit(b"f", b"u")
    assert state() == [b"u", b"1", b"0", b"0", b"0", b"0"]
    server.connect().submit(b"f", b"u", b"d", SUBMIT_JOB)
    handle = (worker.grab() or [])[0]
    worker.send(WORK_STATUS, handle, b"1", b"2")
    worker.nothing_more()
    assert state() == [b"u", b"1", b"1", b"1", b"2", b"1"]


@pytest.mark.parametrize("data", [b"", b"hello", b"a\0b\0", b"x" * 100_000])
def test_echo_answers_the_same_bytes(server: Server, data: bytes) -> None:
    wire = server.connect()
    wire.send(ECHO_REQ, data)
    assert b"\0".join(wire.expect(ECHO_RES)) == data


def test_errors_leave_the_connection_usable(server: Server) -> None:
    wire = server.connect()
    wire.send(OPTION_REQ, b"no such option")
    assert wire.error() == b"UNKNOWN_OPTION"
    wire.raw(packet(ECHO_REQ, b"x", magic=b"\0RES"))
    assert wire.error() == b"INVALID_MAGIC"
    for kind in (NOOP, JOB_CREATED, 5):
        wire.send(kind, b"")
        assert wire.error() == b"INVALID_COMMAND"
    wire.nothing_more()


@pytest.mark.parametrize("kind", [0, 35, SUBMIT_REDUCE_JOB, 38, 40, 43, 99, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_packet_that_nobody_knows_is_an_error_and_the_connection_lives(server: Server, kind: int) -> None:
    server.differs("closes the connection, and ends itself for 0xffffffff")
    wire = server.connect()
    wire.send(kind, b"a", b"b", b"c")
    assert wire.error() == b"INVALID_COMMAND"
    wire.nothing_more()


@pytest.mark.parametrize("kind", [SUBMIT_JOB, SUBMIT_JOB_BG, SUBMIT_JOB_EPOCH, WORK_STATUS, CAN_DO_TIMEOUT])
def test_missing_arguments_are_an_error_and_the_connection_lives(server: Server, kind: int) -> None:
    server.differs("closes the connection")
    wire = server.connect()
    wire.send(kind, b"only one")
    assert wire.error() == b"INVALID_PACKET"
    wire.nothing_more()


# Text


def test_workers_are_listed_with_their_names_and_functions(server: Server) -> None:
    worker, watcher = server.worker(b"f"), server.connect()
    worker.send(SET_CLIENT_ID, b"my worker")
    worker.nothing_more()
    lines = [row[0] for row in watcher.table(b"workers")]
    assert len(lines) == 2
    (mine,) = [line for line in lines if b"my worker" in line]
    descriptor, address, rest = mine.split(b" ", 2)
    assert descriptor.isdigit()
    assert address == b"127.0.0.1"
    assert rest == b"my worker : f"
    assert any(line.endswith(b" 127.0.0.1 - :") for line in lines)


def test_status_counts_jobs_running_jobs_and_workers(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f", b"g")
    server.worker(b"f")
    for n in range(3):
        client.submit(b"f", b"%d" % n)
    assert worker.grab() is not None
    assert sorted(client.table(b"status")) == [[b"f", b"3", b"1", b"2"], [b"g", b"0", b"0", b"1"]]
    assert sorted(client.table(b"prioritystatus")) == [
        [b"f", b"0", b"2", b"0", b"2"],
        [b"g", b"0", b"0", b"0", b"1"],
    ]


def test_version_and_pid_are_answered(server: Server) -> None:
    wire = server.connect()
    assert wire.text(b"version").startswith(b"OK ")
    assert wire.text(b"getpid") == b"OK %d" % server.pid
    assert wire.text(b"VERSION").startswith(b"OK ")


def test_jobs_and_uniques_are_shown(server: Server) -> None:
    client = server.connect()
    handles = [client.submit(b"f", b"u%d" % n) for n in range(3)]
    rows = client.table(b"show jobs")
    assert sorted(row[0] for row in rows) == sorted(handles)
    assert [row[1:] for row in rows] == [[b"0", b"0", b"1"]] * 3
    assert sorted(row[0] for row in client.table(b"show unique jobs")) == [b"u0", b"u1", b"u2"]


def test_a_cancelled_job_is_not_handed_out(server: Server) -> None:
    client = server.connect()
    handle = client.submit(b"f", b"u", b"cancelled")
    client.submit(b"f", b"v", b"kept")
    assert client.text(b"cancel job " + handle) == b"OK"
    assert server.worker(b"f").drain() == [b"kept"]
    assert client.text(b"cancel job H:nowhere:1") == b"ERR UNKNOWN_JOB"
    server.differs("loses a later submit with the cancelled job's unique")
    assert client.submit(b"f", b"u", b"again") != handle
    assert server.worker(b"f").drain() == [b"again"]


def test_a_running_job_that_is_cancelled_runs_on(server: Server) -> None:
    client, worker = server.connect(), server.worker(b"f")
    handle = client.submit(b"f", b"u")
    assert worker.grab() is not None
    assert client.text(b"cancel job " + handle) == b"OK"
    worker.complete(handle)
    worker.nothing_more()
    assert client.status(b"f") == (0, 0, 1)


def test_a_full_queue_refuses_jobs(server: Server) -> None:
    client = server.connect()
    client.submit(b"f", b"1")
    assert client.text(b"maxqueue f 2") == b"OK"
    client.submit(b"f", b"2")
    client.send(SUBMIT_JOB_BG, b"f", b"3", b"d")
    assert client.error() == b"QUEUE_ERROR"
    client.submit(b"f", b"2")
    client.submit(b"g", b"3")
    assert client.text(b"maxqueue f") == b"OK"
    client.submit(b"f", b"3")
    assert client.text(b"maxqueue").startswith(b"ERR INVALID_ARGUMENTS")


def test_functions_are_created_and_dropped(server: Server) -> None:
    wire = server.connect()
    assert wire.text(b"create function made") == b"OK"
    assert wire.status(b"made") == (0, 0, 0)
    assert wire.text(b"drop function made") == b"OK"
    assert wire.text(b"drop function made").startswith(b"ERR")
    server.worker(b"served")
    assert wire.text(b"drop function served").startswith(b"ERR")
    assert wire.text(b"create").startswith(b"ERR INVALID_ARGUMENTS")
    server.differs("drops a function with the jobs in it, and cuts a name's last letter before a bare newline")
    wire.submit(b"busy", b"u")
    assert wire.text(b"drop function busy").startswith(b"ERR")
    wire.raw(b"create function letters\n")
    until(lambda: wire.status(b"letters") == (0, 0, 0))


def test_an_unknown_text_command_is_an_error(server: Server) -> None:
    wire = server.connect()
    assert wire.text(b"nonsense") == b"ERR UNKNOWN_COMMAND Unknown+server+commandnonsense"
    assert wire.text(b"show nonsense") == b"ERR UNKNOWN_SHOW_ARGUMENTS"
    assert wire.text(b"").startswith(b"ERR UNKNOWN_COMMAND")
    wire.nothing_more()

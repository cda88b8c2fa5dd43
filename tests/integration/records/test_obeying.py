"""What supervisors do when queues are paused and tasks cancelled, on both kinds of job server and in both databases."""

import signal

from gearwsgi.submit.actions import Actions
from tests.integration.records.stand import Stand
from tests.support import until


def actions(stand: Stand) -> Actions:
    return Actions(stand.app.client, "alice")


def test_a_paused_queues_jobs_stay_on_the_job_server_until_it_is_resumed(stand: Stand) -> None:
    act = actions(stand)
    worker = stand.worker("--queues", "job,mail")
    go = stand.bench.folder / "go"
    running = stand.task("/until", {"file": str(go)})
    stand.until(running, "running")
    assert act.pause("job").text == "job is paused"
    worker.wait_for("queue job is paused by alice")
    ahead = [stand.task("/good", {"n": n}) for n in range(20)]
    other = stand.task("/good", {"n": 100}, queue="mail")
    go.touch()
    stand.until(other, "done")
    stand.until(running, "done")
    assert stand.bench.lines()[-1] == "good 100 1" and stand.bench.server.queued("job") == 20
    assert stand.bench.server.workers("job") == 0 and stand.bench.server.workers("mail") == 1
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    assert worker.stop() == 0
    again = stand.worker("--queues", "job,mail")
    last = stand.task("/good", {"n": 101}, queue="mail")
    stand.until(last, "done")
    assert stand.bench.server.queued("job") == 20
    assert act.resume("job").did and not act.resume("job").did
    for task in ahead:
        stand.until(task, "done")
    again.wait_for("queue job is resumed")
    assert all(number == 1 for line, number in stand.bench.runs().items() if line.startswith("good"))


def test_jobs_held_ahead_go_back_when_their_queue_is_paused(busy: Stand) -> None:
    act = actions(busy)
    short = [busy.task("/slow", {"seconds": 0.005}) for _ in range(800)]
    until(lambda: busy.bench.server.queued("job") < 750)
    act.pause("job")
    until(lambda: busy.bench.server.workers("job") == 0)
    left = busy.bench.server.queued("job")
    assert left > 0
    assert busy.app.gearman.status(short[-1]) == "queued"
    act.resume("job")
    until(lambda: not busy.bench.server.queued("job"))


def test_a_pause_for_a_time_ends_by_itself(busy: Stand) -> None:
    act = actions(busy)
    (worker,) = busy.bench.workers
    paused, resumed = (worker.log.count(f"queue mail is {what}") for what in ("paused", "resumed"))
    act.pause("mail", 3600.0)
    worker.wait_for("queue mail is paused", paused + 1)
    task = busy.task("/good", {"n": 1}, queue="mail")
    # Of a worker that is slow to look, a short pause could be over before it is seen: it is made short only now.
    act.pause("mail", 1.5)
    busy.until(task, "done")
    worker.wait_for("queue mail is resumed", resumed + 1)


def test_a_task_that_waits_is_cancelled_and_never_runs(stand: Stand) -> None:
    act = actions(stand)
    unseen = stand.task("/good", {"n": 1})
    delayed = stand.task("/good", {"n": 2}, delay=3)
    gearman = stand.app.gearman
    assert gearman.cancel(unseen) == "cancelled" and act.cancel(delayed.id).state == "cancelled"
    assert gearman.record(unseen.id).state == "cancelled"
    stand.worker()
    retried = stand.task("/retry", {"delay": 4})
    stand.until(retried, "retrying")
    assert act.cancel(retried.id[:12]).text == f"{retried.id} is cancelled"
    assert gearman.status(retried) == "cancelled"
    until(lambda: not stand.bench.server.queued("job"))
    record = until(lambda: (found := gearman.record(unseen.id)).service == "/good" and found)
    assert (record.state, record.reason, record.attempts) == ("cancelled", "cancelled", 0)
    record = gearman.record(retried)
    assert (record.state, record.reason, record.attempts) == ("cancelled", "cancelled by alice", 1)
    assert [each.outcome for each in record.history] == ["retried"]
    assert [(each.what, each.by) for each in stand.store.story(retried.id)] == [("cancelled", "alice")]
    assert stand.bench.lines() == [line for line in stand.bench.lines() if "good" not in line]
    assert not stand.bench.run("dead", "list").stdout
    assert act.cancel(retried).text == f"{retried.id} is cancelled already: nothing is changed"


def test_a_task_that_runs_is_ended_as_a_time_out_is(busy: Stand) -> None:
    act = actions(busy)
    (worker,) = busy.bench.workers
    tasks = [busy.task(service, {"file": str(busy.bench.folder / "never")}) for service in ("/until", "/deaf")]
    for task in tasks:
        busy.until(task, "running")
        assert act.cancel(task.id).state == "running"
    for task in tasks:
        record = busy.until(task, "cancelled")
        assert [(each.outcome, each.reason) for each in record.history] == [("cancelled", "cancelled by alice")]
        assert record.ended is not None and record.attempts == 1
        worker.wait_for(f"cancelled by alice, id {task.id}")
    until(lambda: not busy.bench.server.queued("job"))
    after = busy.task("/good", {"n": 1})
    busy.until(after, "done")
    assert act.cancel(after).text == f"{after.id} is done already: nothing is changed"
    assert not busy.bench.run("dead", "list").stdout


def test_what_a_task_prints_and_its_traceback_are_found_in_the_log_by_its_id(busy: Stand) -> None:
    (worker,) = busy.bench.workers
    printed, failed = busy.task("/print"), busy.task("/boom", max_attempts=1)
    busy.until(printed, "done")
    busy.until(failed, "dead")
    for task in (printed, failed):
        worker.wait_for(f"id {task.id} | ")
    assert f"id {failed.id} | ValueError: boom on purpose" in worker.log

"""What a supervisor writes of its jobs, on both kinds of job server and in both databases."""

import json
import signal
import time

from gearwsgi.state.status import read_all
from tests.integration.records.stand import Stand
from tests.support import Bench, until


def test_a_task_that_was_done_is_one_record_with_one_attempt(busy: Stand) -> None:
    (worker,) = busy.bench.workers
    before = time.time()
    task = busy.task("/good", {"n": 1}, priority="high")
    record = busy.until(task, "done")
    assert (record.service, record.method, record.path, record.queue) == ("/good", "POST", "/good", "job")
    assert (record.priority, record.attempts, record.max_attempts, record.status) == ("high", 1, 5, 200)
    assert record.queued is not None and record.started is not None and record.ended is not None
    assert before - 0.01 <= record.queued.timestamp() <= record.started.timestamp() + 0.01
    assert record.started <= record.ended
    (attempt,) = record.history
    assert (attempt.outcome, attempt.status, attempt.reason, attempt.traceback) == ("done", 200, None, None)
    assert record.host == attempt.host
    until(lambda: attempt.pid in worker.children())


def test_each_attempt_that_failed_is_in_the_history_with_its_traceback(busy: Stand) -> None:
    task = busy.task("/boom", max_attempts=3)
    record = busy.until(task, "dead")
    assert [(each.attempt, each.outcome) for each in record.history] == [(1, "retried"), (2, "retried"), (3, "dead")]
    assert all("do_boom" in (each.traceback or "") for each in record.history)
    assert record.attempts == 3 and record.reason is not None and "ValueError: boom on purpose" in record.reason
    shown = busy.bench.run("dead", "show", task.id).stdout
    assert "do_boom" in shown and "Traceback (most recent call last)" in shown


def test_a_task_that_waits_for_its_next_attempt_is_retrying_and_says_when(busy: Stand) -> None:
    answer = {"status": "503 Service Unavailable", "headers": [["Retry-After", "1000"]]}
    task = busy.task("/status", answer, headers={"X-Request-ID": "r-7"})
    record = busy.until(task, "retrying")
    assert record.attempts == 1 and record.ended is None and record.request_id == "r-7"
    assert record.due is not None and record.due.timestamp() > time.time()
    assert record.reason is not None


def test_a_task_that_runs_for_a_second_is_there_as_running_with_its_progress(busy: Stand) -> None:
    go = busy.bench.folder / "go"
    task = busy.task("/until", {"file": str(go)})
    record = busy.until(task, "running")
    assert record.started is not None and record.ended is None and record.attempts == 1
    assert [each.is_fresh for each in busy.store.tasks(state="running")] == [True]
    go.touch()
    busy.until(task, "done")


def test_a_worker_process_that_dies_by_a_fatal_signal_leaves_its_python_stack(busy: Stand) -> None:
    task = busy.task("/abort", max_attempts=1)
    record = busy.until(task, "dead")
    assert record.status is None and record.reason is not None and "SIGABRT" in record.reason
    (attempt,) = record.history
    assert attempt.traceback is not None and "do_abort" in attempt.traceback


def test_what_a_killed_supervisor_had_running_is_corrected_when_it_is_handed_out_again(stand: Stand) -> None:
    first = stand.worker()
    go = stand.bench.folder / "go"
    task = stand.task("/until", {"file": str(go)})
    stand.until(task, "running")
    first.kill()
    stand.worker()
    go.touch()
    record = stand.until(task, "done")
    assert record.attempts == 1


def test_payloads_that_nobody_vouches_for_are_dead_and_not_believed(stand: Stand) -> None:
    stand.worker(secret_keys=["0123456789abcdef-hush"])
    task = stand.task("/good")
    found = until(lambda: stand.store.tasks(state="dead"))
    (record,) = [each.record for each in found]
    assert (record.service, record.path, record.attempts) == ("-", "-", 0)
    assert record.id != task.id and record.reason is not None and "signature" in record.reason


def test_a_supervisor_says_who_it_is_and_leaves_when_it_ends(stand: Stand) -> None:
    worker = stand.worker("--queues", "job,mail")
    (supervisor,) = until(stand.store.fleet)
    assert supervisor.about["pid"] == worker.pid and supervisor.silent < 10
    assert worker.stop() == 0
    assert not stand.store.fleet()


def test_records_that_are_off_leave_no_file_and_change_nothing(embedded_site: Bench) -> None:
    worker = embedded_site.worker("--workers", "1", env={"GEARWSGI_RECORDS": ""})
    embedded_site.app(records="").gearman.task("/good", {"n": 1})
    until(lambda: embedded_site.lines() == ["good 1 1"])
    assert worker.stop() == 0
    assert not list(embedded_site.state_dir.glob("records*"))


def test_a_reload_loses_no_record_and_counts_on(busy: Stand) -> None:
    (worker,) = busy.bench.workers
    before = counts(busy)
    tasks = [busy.task("/good", {"n": f"r{n}"}) for n in range(50)]
    worker.signal(signal.SIGHUP)
    tasks += [busy.task("/good", {"n": f"r{n}"}) for n in range(50, 100)]
    for task in tasks:
        busy.until(task, "done")
    worker.wait_for("worker ready", 2)
    (supervisor,) = busy.store.fleet()
    assert supervisor.about["pid"] == worker.pid
    after = counts(busy)
    assert after == {**before, "done": before["done"] + 100}, busy.tell(*tasks)
    (known,) = json.loads(busy.bench.run("status", "--json").stdout)["supervisors"]
    assert (known["pid"], known["counts"]) == (worker.pid, after)


def counts(stand: Stand) -> dict[str, int]:
    """How many attempts have ended how, as its one supervisor tells from now on."""
    now = time.time()
    values = until(lambda: next((each for each in read_all(stand.bench.state_dir) if each["at"] > now), None))
    return dict(values["counts"])

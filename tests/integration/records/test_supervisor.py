"""What a supervisor writes of its jobs, on both kinds of job server and both databases."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware, Task
from gearwsgi.errors import RecordsUnavailable, UnknownTask
from gearwsgi.settings import Settings
from gearwsgi.state.records.model import Record
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from tests.conftest import KINDS, require
from tests.support import Bench, Worker, bench, until


@dataclass
class Stand:
    """A job server, a database, and what is started for a test."""

    bench: Bench
    records: str
    app: GearmanMiddleware
    store: Store

    def worker(self, *arguments: str, **settings: Any) -> Worker:
        env = {"GEARWSGI_RECORDS": self.records, "SETTINGS": json.dumps(settings)}
        return self.bench.worker("--workers", "1", *arguments, env=env)

    def task(self, service: str, data: Any = None, **keywords: Any) -> Task:
        return self.app.gearman.task(service, data, **keywords)

    def record(self, task: Task) -> Record | None:
        try:
            return self.store.find(task.id)
        except (UnknownTask, RecordsUnavailable):
            return None

    def until(self, task: Task, state: str) -> Record:
        """Wait until the records say that a task is in this state."""

        def found() -> Record | None:
            record = self.record(task)
            return record if record is not None and record.state == state else None

        record = until(found, f"{state} of {task!r}: {self.record(task)}")
        assert record is not None
        return record


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest, records: str) -> Iterator[Stand]:
    require(request.param)
    with bench(request.param) as made:
        app = made.app(records=records, backoff_min=0.1, backoff_max=0.1)
        settings: Settings = app.settings
        database = open_database(settings)
        assert database is not None
        yield Stand(made, records, app, Store(database))
        database.close()


FAST = {"backoff_min": 0.0, "backoff_max": 0.0}


def test_a_task_that_was_done_is_one_record_with_one_attempt(stand: Stand) -> None:
    worker = stand.worker()
    before = time.time()
    task = stand.task("/good", {"n": 1}, priority="high")
    record = stand.until(task, "done")
    assert (record.service, record.method, record.path, record.queue) == ("/good", "POST", "/good", "job")
    assert (record.priority, record.attempts, record.max_attempts, record.status) == ("high", 1, 5, 200)
    assert record.queued is not None and record.started is not None and record.ended is not None
    assert before - 0.01 <= record.queued.timestamp() <= record.started.timestamp() + 0.01
    assert record.started <= record.ended
    (attempt,) = record.history
    assert (attempt.outcome, attempt.status, attempt.reason, attempt.traceback) == ("done", 200, None, None)
    assert record.host == attempt.host
    until(lambda: attempt.pid in worker.children())


def test_each_attempt_that_failed_is_in_the_history_with_its_traceback(stand: Stand) -> None:
    stand.worker(**FAST)
    task = stand.task("/boom", max_attempts=3)
    record = stand.until(task, "dead")
    assert [(each.attempt, each.outcome) for each in record.history] == [(1, "retried"), (2, "retried"), (3, "dead")]
    assert all("do_boom" in (each.traceback or "") for each in record.history)
    assert record.attempts == 3 and record.reason is not None and "ValueError: boom on purpose" in record.reason
    shown = stand.bench.run("dead", "show", task.id).stdout
    assert "do_boom" in shown and "Traceback (most recent call last)" in shown


def test_a_task_that_waits_for_its_next_attempt_is_retrying_and_says_when(stand: Stand) -> None:
    stand.worker(backoff_min=1000.0, backoff_max=3000.0)
    task = stand.task("/status", {"status": "503 Service Unavailable"}, headers={"X-Request-ID": "r-7"})
    record = stand.until(task, "retrying")
    assert record.attempts == 1 and record.ended is None and record.request_id == "r-7"
    assert record.due is not None and record.due.timestamp() > time.time()
    assert record.reason is not None


def test_a_task_that_runs_for_a_second_is_there_as_running_with_its_progress(stand: Stand) -> None:
    stand.worker()
    go = stand.bench.folder / "go"
    task = stand.task("/until", {"file": str(go)})
    record = stand.until(task, "running")
    assert record.started is not None and record.ended is None and record.attempts == 1
    assert [each.is_fresh for each in stand.store.tasks(state="running")] == [True]
    go.touch()
    stand.until(task, "done")


def test_a_worker_process_that_dies_by_a_fatal_signal_leaves_its_python_stack(stand: Stand) -> None:
    stand.worker(**FAST)
    task = stand.task("/abort", max_attempts=1)
    record = stand.until(task, "dead")
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


def test_records_that_are_off_leave_no_file_and_change_nothing(stand: Stand) -> None:
    worker = stand.bench.worker("--workers", "1", env={"GEARWSGI_RECORDS": ""})
    stand.task("/good", {"n": 1})
    until(lambda: stand.bench.lines() == ["good 1 1"])
    assert worker.stop() == 0
    assert not list(stand.bench.state_dir.glob("records*"))


@pytest.mark.parametrize("number", [signal.SIGHUP])
def test_a_reload_loses_no_record_and_counts_on(stand: Stand, number: signal.Signals) -> None:
    worker = stand.worker()
    tasks = [stand.task("/good", {"n": n}) for n in range(50)]
    worker.signal(number)
    tasks += [stand.task("/good", {"n": n}) for n in range(50, 100)]
    for task in tasks:
        stand.until(task, "done")
    (supervisor,) = stand.store.fleet()
    assert supervisor.about["pid"] == worker.pid

    def counts() -> dict[str, int]:
        known = json.loads(stand.bench.run("status", "--json").stdout)
        return dict(known["supervisors"][0]["counts"])

    until(lambda: counts()["done"] == 100, "the count goes on over the reload")
    assert counts() == {"done": 100, "retried": 0, "dead": 0, "cancelled": 0, "records_dropped": 0}

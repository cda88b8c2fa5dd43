"""A job server, records, and what tests start beside them."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gearwsgi import GearmanMiddleware, Task
from gearwsgi.errors import RecordsUnavailable, UnknownTask
from gearwsgi.state.records.model import Record
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from gearwsgi.state.status import read_all
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

        try:
            record = until(found)
        except AssertionError:
            raise AssertionError(f"no record of {task!r} says {state}\n{self.tell(task)}") from None
        assert record is not None
        return record

    def tell(self, *tasks: Task) -> str:
        """All that is known of these tasks, and of the workers: what a test says that fails."""
        queued = [f"{name}: {self.bench.server.queued(name)} jobs" for name in ("job", "mail")]
        told = [f"{task!r}: {self.app.gearman.status(task)}, {self.record(task)}" for task in tasks]
        about = [str(each) for each in read_all(self.bench.state_dir)]
        kept = [str(path) for path in self.bench.state_dir.rglob("*.http")]
        often = [f"{line}: {number} times" for line, number in self.bench.runs().items() if number > 1]
        logs = [f"{worker.log_path.name}:\n{worker.log[-5000:]}" for worker in self.bench.workers]
        return "\n".join([*queued, *told, *about, *kept, *often, *logs])


@contextlib.contextmanager
def standing(kind: str, records: str) -> Iterator[Stand]:
    """A stand with a job server of this kind and what the setting `records` is."""
    with bench(kind) as made:
        app = made.app(records=records, backoff_min=0.1, backoff_max=0.1)
        database = open_database(app.settings)
        assert database is not None
        try:
            yield Stand(made, records, app, Store(database))
        finally:
            database.close()

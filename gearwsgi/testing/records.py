"""Records of the tasks in memory, as real records would have them."""

import contextlib
import math
import os
import socket
from collections.abc import Iterator

from ..errors import UnknownTask
from ..state.records import model
from ..state.records.model import Record, moment
from ..state.records.steering import cancelled
from .attempts import QueuedTask, Run
from .queue import Queue


class _Seen:
    """What is known of one delivery of a webhook."""

    def __init__(self, records: "Records", key: str) -> None:
        self._records = records
        self._key = key

    def claim(self) -> bool | None:
        return self._records.claim(self._key)

    def keep(self, seconds: float) -> None:
        self._records.keep(self._key, seconds)

    def release(self) -> None:
        self._records.keep(self._key, None)


class Records:
    """Records in memory. For any number of threads.

    Args:
        queue: where the tasks are.
    """

    lag = 0.0

    def __init__(self, queue: Queue) -> None:
        self.runs: list[Run] = []
        self._queue = queue
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._cancelled: dict[str, tuple[float, str]] = {}
        self._seen: dict[str, float] = {}

    def find(self, task_id: str) -> Record:
        with self._queue.lock:
            found = {
                task.id: task for task in reversed([*self._queue.queued, *self._queue.calls, *self._queue.waiting])
            }
            ids = [task_id] if task_id in found else [each for each in found if each.startswith(task_id)]
            if len(ids) != 1:
                raise UnknownTask(f"{task_id!r} is no task's id, or several begin so", is_ambiguous=bool(ids))
            return self._record(found[ids[0]])

    def cancel(self, task: Record, *, by: str = "") -> str:
        """Cancel a task: one that waits never runs; one that runs, in this very process, goes on."""
        with self._queue.lock:
            state = self.find(task.id).state
            if state not in model.ENDED and state != model.RUNNING:
                self._queue.waiting[:] = [each for each in self._queue.waiting if each.id != task.id]
                self._cancelled[task.id] = (self._queue.clock.now(), cancelled(by))
            return state

    def result(self, task_id: str) -> bytes | None:
        until, content = self._kept.get(task_id, (0.0, b""))
        return content if until > self._queue.clock.now() else None

    def keep_result(self, task_id: str, content: bytes, seconds: float) -> None:
        """Keep a response for so many seconds."""
        self._kept[task_id] = self._queue.clock.now() + seconds, content

    @contextlib.contextmanager
    def look_for(self, key: str) -> Iterator[_Seen]:
        """What is known of a delivery."""
        yield _Seen(self, key)

    def claim(self, key: str) -> bool:
        """Claim a delivery; whether it is new."""
        with self._queue.lock:
            is_new = self._seen.get(key, 0.0) <= self._queue.clock.now()
            if is_new:
                self._seen[key] = math.inf
            return is_new

    def keep(self, key: str, seconds: float | None) -> None:
        """Note for how many seconds a delivery counts as seen; None: it was not seen."""
        with self._queue.lock:
            if seconds is None:
                del self._seen[key]
            else:
                self._seen[key] = self._queue.clock.now() + seconds

    def message(self, task_id: str) -> bytes | None:
        with self._queue.lock:
            return next((task.payload for task in self._queue.queued if task.id == task_id), None)

    def clear(self) -> None:
        """Forget everything."""
        with self._queue.lock:
            self._queue.clear()
            self.runs.clear()
            self._kept.clear()
            self._cancelled.clear()
            self._seen.clear()

    def _record(self, task: QueuedTask) -> Record:
        runs = [run for run in self.runs if run.task.id == task.id]
        last = runs[-1] if runs else None
        waiting = next((each for each in self._queue.waiting if each.id == task.id), None)
        running = self._queue.running(task.id)
        now = running or waiting
        if running is not None:
            state = model.RUNNING
        elif waiting is not None:
            later = model.SCHEDULED if waiting.due > self._queue.clock.now() else model.QUEUED
            state = model.RETRYING if last is not None and last.fate == "retry" else later
        else:
            state = last.fate if last is not None else model.QUEUED
        at, why = self._cancelled.get(task.id, (None, None))
        state = model.CANCELLED if at is not None else state
        host, pid = socket.gethostname(), os.getpid()
        history = tuple([run.attempt(host, pid) for run in runs if run.fate != "continue"])
        has_begun = running is not None or last is not None
        return Record(
            id=task.id, service=task.service, method=task.method, path=task.path, queue=task.queue,
            priority=task.priority, state=state, queued=moment(task.due - task.delay),
            due=moment((now or task).due) if (now or task).delay else None,
            started=moment(runs[0].at) if runs else None,
            ended=moment(at) or (moment(last.at) if last is not None and now is None else None),
            attempts=running.attempt if running is not None else last.task.attempt if last is not None else 0,
            max_attempts=task.max_attempts, progress=None, status=history[-1].status if history else None,
            reason=why or next((each.reason for each in reversed(history) if each.reason), None),
            host=host if has_begun else None, pid=pid if has_begun else None,
            request_id=task.headers.get("X-Request-ID"), traceparent=task.headers.get("traceparent"), history=history,
        )  # fmt: skip

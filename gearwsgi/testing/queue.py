"""A job server that is a list. Nothing here sleeps: the test moves the clock."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BadMessage
from ..message.limits import split_queue
from ..message.model import PRIORITIES, Message
from ..settings import Settings
from ..submit.servers import Answer, Receipt, Servers
from ..submit.task import Status
from ..wire.payload import Grabbed, Submission, make_unique, open_payload, own_id
from .attempts import QueuedTask

SERVER = "memory"


class Clock:
    """The time of the queue, which stands still until the test moves it."""

    def __init__(self) -> None:
        self._now = time.time()

    def now(self) -> float:
        """Unix time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move it on, and answer the new time.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock is not turned back: {seconds!r} s")
        self._now += seconds
        return self._now


class Queue(Servers):
    """A job server in memory. For any number of threads.

    Args:
        settings: the middleware's.
        clock: the queue's time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(settings)
        self.clock = clock
        self.queued: list[QueuedTask] = []
        self.waiting: list[QueuedTask] = []
        self.calls: list[QueuedTask] = []
        self.lock = threading.RLock()
        self._settings = settings
        self._running: dict[str, tuple[QueuedTask, Status]] = {}
        self._numbers = itertools.count(1)

    def status(self, handle: str, server: str, uniques: Sequence[str] = (), *, retries: Sequence[str] = ()) -> Status:
        with self.lock:
            for task, status in self._running.values():
                if task.handle == handle or task.unique in (*uniques, *retries):
                    return status
            for task in self.waiting:
                if task.handle == handle or task.unique in uniques:
                    return Status("queued")
                if task.unique in retries:
                    return Status("retrying")
        return Status("unknown")

    def find_uniques(self, beginning: str, server: str = "") -> list[str]:
        with self.lock:
            there = self._all_there()
        return [task.unique for task in there if task.unique.startswith(beginning)]

    def count_waiting(self, queue: str) -> int:
        with self.lock:
            return sum(task.function == queue for task in self.waiting)

    def submit(self, batch: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Answer]:
        now = time.time()
        return [Receipt(self.accept(submission, now)[0].handle, SERVER) for submission in batch]

    def put(self, payload: bytes, queue: str) -> QueuedTask:
        """Queue a payload that is given in bytes."""
        unique = make_unique(f"put-{next(self._numbers)}", 1)
        return self.accept(Submission(queue, unique, payload), time.time())[0]

    def accept(self, submission: Submission, now: float) -> tuple[QueuedTask, bool]:
        """Queue a task; or, with False, find the one that it coalesces with.

        Args:
            submission: the task.
            now: the time by the caller's clock, from which its delay counts.
        """
        with self.lock:
            for task in self._all_there():
                if (task.function, task.unique) == (submission.queue, submission.unique):
                    # Coalesced: the handle is the first one's, and the data of the second is dropped.
                    return task, False
            task = self._read(submission, now)
            self.queued.append(task)
            self.waiting.append(task)
            return task, True

    def accept_call(self, submission: Submission) -> QueuedTask:
        """Take the job of a caller who waits: it never waits in the queue, but is run at once."""
        task = self._read(submission, time.time())
        with self.lock:
            self.calls.append(task)
        return task

    def _read(self, submission: Submission, now: float) -> QueuedTask:
        """The task in the queue. The caller's clock may differ from ours: delays count from now on ours."""
        number = next(self._numbers)
        delay = round(submission.at - now, 3) if submission.at > now else 0.0
        skew = self.clock.now() - now
        return self._look(submission, f"H:{SERVER}:{number}", number, delay, skew)

    def _look(self, submission: Submission, handle: str, number: int, delay: float, skew: float) -> QueuedTask:
        job = Grabbed(handle.encode(), submission.queue.encode(), submission.unique.encode(), submission.payload)
        try:
            task = open_payload(job, self._settings, 0, trusted=True)
        except BadMessage:
            # A plain call of a service that only a worker in PHP knows; if it may not run, that shows when it is run.
            call = _read_json(submission.payload)
            if not isinstance(call, dict):
                raise
            task = Message("", path="", service=str(call.pop("service", "")), id=own_id(job), plain=call)
        queue, key = split_queue(submission.queue)
        return QueuedTask(
            id=submission.id or task.id,
            service=task.service,
            queue=queue,
            handle=handle,
            unique=submission.unique,
            priority=submission.priority,
            delay=delay,
            due=self.clock.now() + delay,
            data=task.data(),
            method=task.method,
            path=task.path,
            body=task.body,
            attempt=task.attempt,
            max_attempts=self._settings.attempts_of(task),
            identity=task.identity.partition(":")[2] or None,
            verified=task.verified,
            cursor=json.loads(task.cursor) if task.cursor else None,
            limit=key or None,
            payload=submission.payload,
            function=submission.queue,
            skew=skew,
            number=number,
            _headers=tuple(task.headers),
        )

    def _all_there(self) -> list[QueuedTask]:
        return [*self.waiting, *(task for task, _ in self._running.values())]

    def take(self, queue: str | None) -> QueuedTask | None:
        """The next task that is due, in the order of a job server: by priority, then by age."""
        with self.lock:
            due = [task for task in self._of(queue) if task.due <= self.clock.now()]
            # gearmand has no delayed jobs with a priority: they come as normal ones.
            order = {task.handle: PRIORITIES.index("normal" if task.delay else task.priority) for task in due}
            due.sort(key=lambda task: (order[task.handle], task.due if task.delay else 0.0, task.number))
            return due[0] if due and self.take_this(due[0]) else None

    def _of(self, queue: str | None) -> list[QueuedTask]:
        return [task for task in self.waiting if queue is None or task.queue == queue]

    def take_this(self, task: QueuedTask) -> bool:
        """Take this task, since it runs now; False where it does not wait any more."""
        with self.lock:
            if task not in self.waiting:
                return False
            self.waiting.remove(task)
            self._running[task.handle] = (task, Status("running"))
            return True

    def step(self, queue: str | None) -> bool:
        """Move the clock to when the next task is due; whether there is one."""
        with self.lock:
            due = min((task.due for task in self._of(queue)), default=None)
            if due is not None:
                self.clock.advance(max(0.0, due - self.clock.now()))
            return due is not None

    def running(self, task_id: str) -> QueuedTask | None:
        """The attempt of a task that runs now."""
        return next((task for task, _ in self._running.values() if task.id == task_id), None)

    def report(self, task: QueuedTask, done: int, total: int) -> None:
        """Note the progress that a handler reports."""
        with self.lock:
            self._running[task.handle] = (task, Status("running", done, total))

    def end(self, task: QueuedTask) -> None:
        """Note that it does not run any more."""
        with self.lock:
            self._running.pop(task.handle, None)

    def clear(self) -> None:
        """Forget all that was queued."""
        for kept in (self.queued, self.waiting, self.calls):
            kept.clear()

    def add(self, submission: Submission, delay: float) -> None:
        """Queue a task that follows from an attempt; its delay counts from now."""
        with self.lock:
            number = next(self._numbers)
            self.waiting.append(self._look(submission, f"H:{SERVER}:{number}", number, delay, 0.0))


def _read_json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return None

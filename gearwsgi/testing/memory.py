"""A client whose job server is a list: tasks go through the true messages, signatures and policy, and nothing else.

For `gearwsgi.testing`. Nothing here sleeps; time is a clock that the test moves.
"""

import contextvars
import io
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..app import replay
from ..app.context import ready_context
from ..app.replay import Job, Result, Retry, notice_exceptions
from ..environ import WSGIApplication
from ..errors import BadMessage, CallFailed, GearwsgiError
from ..message import plain, response, signature
from ..message.model import PRIORITIES, Message
from ..policy import Dead, Done, decide
from ..settings import Settings
from ..submit.client import Client, Receipt, Status
from ..wire.payload import Grabbed, Submission, make_unique, next_attempt, open_payload, own_id

SERVER = "memory"


class TaskFailed(GearwsgiError, AssertionError):
    """A task became a dead letter without an exception: the application's answer was no 2xx and is not retried.

    Attributes:
        run: the attempt, with its reason and the beginning of the response.
    """

    def __init__(self, run: "Run") -> None:
        shown = run.response.decode("utf-8", "replace").strip()
        super().__init__(f"{run.task.service} is a dead letter: {run.reason}" + (f"\n\n{shown}" if shown else ""))
        self.run = run


class Clock:
    """The queue's time. It stands still until the test moves it."""

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


class Headers(Mapping[str, str]):
    """A request's headers by their names in any case; what is repeated is joined with commas."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, tuple[str, str]] = {}
        for name, value in pairs:
            known, before = self._values.get(name.lower(), (name, ""))
            self._values[name.lower()] = known, f"{before}, {value}" if before else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._values.values()])

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class QueuedTask:
    """One attempt of a task in the queue, read back from the bytes that a job server would have.

    Attributes:
        id: the task's id, the same in all attempts.
        service: what the caller called.
        queue: the queue (Gearman function).
        handle: as the job server's; `str(task)` of the `Task` that the handler got.
        unique: Gearman's coalescing key.
        priority: `high`, `normal` or `low`.
        delay: seconds from when it was queued to when it is due; 0: at once.
        due: when it is due, in the clock's time.
        data: what the caller gave, decoded.
        method: the request's; empty where a plain call names a service that is not this application's.
        path: the request's target with its query, relative to the application.
        body: the request's body.
        attempt: 1-based.
        max_attempts: how often it is tried.
        payload: the message's bytes.
    """

    id: str
    service: str
    queue: str
    handle: str
    unique: str
    priority: str
    delay: float
    due: float
    data: Any
    method: str
    path: str
    body: bytes
    attempt: int
    max_attempts: int
    payload: bytes
    _headers: Sequence[tuple[str, str]]
    _skew: float
    _sequence: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers; their names in any case."""
        return Headers(self._headers)

    def __repr__(self) -> str:
        when = f" in {self.delay:g} s" if self.delay else ""
        return (
            f"<QueuedTask {self.service} {self.method} {self.path} {self.data!r}{when}, "
            f"attempt {self.attempt} of {self.max_attempts}, id {self.id}>"
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt that was run.

    Attributes:
        task: what was run.
        fate: `done`, `retry` (the next attempt is in the queue) or `dead`.
        status: the response's status line, such as `200 OK`; empty where there was none.
        body: a good response's body: what WORK_COMPLETE carries.
        response: status, headers and the body's beginning of a response that was no 2xx.
        reason: why it is tried again, or dead.
        retry_in: seconds until the next attempt; None where there is none.
        error: what the handler raised.
        output: what was written to `wsgi.errors`.
    """

    task: QueuedTask
    fate: Literal["done", "retry", "dead"]
    status: str = ""
    body: bytes = b""
    response: bytes = field(default=b"", repr=False)
    reason: str = ""
    retry_in: float | None = None
    error: BaseException | None = None
    output: str = field(default="", repr=False)

    @property
    def json(self) -> Any:
        """The good response's body, read as JSON."""
        return json.loads(self.body)


class Memory(Client):
    """A client whose job server is a list. Any number of threads."""

    def __init__(self, settings: Settings, app: WSGIApplication, clock: Clock, *, inline: bool, raises: bool) -> None:
        super().__init__(settings)
        self.clock = clock
        self.queued: list[QueuedTask] = []
        self.waiting: list[QueuedTask] = []
        self.runs: list[Run] = []
        self.calls: list[QueuedTask] = []
        self._app = app
        self._inline = inline
        self._raises = raises
        self._running: dict[str, tuple[QueuedTask, Status]] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._context: contextvars.Context | None = None

    # -- what a middleware asks of its client ------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission]) -> list[Receipt]:
        now = time.time()
        added = [self._submit(submission, now) for submission in submissions]
        for task, is_new in added:
            if self._inline and is_new and task.due <= self.clock.now() and self._take_this(task):
                self.run(task, raises=self._raises)
        return [Receipt(task.handle, SERVER) for task, _ in added]

    def submit_now(self, submission: Submission) -> str:
        return self._submit(submission, time.time())[0].handle

    def put(self, payload: bytes, queue: str) -> QueuedTask:
        """Queue a payload that is given in bytes."""
        unique = make_unique(f"put-{next(self._numbers)}", 1)
        return self._submit(Submission(queue, unique, seal_given(payload, queue, self.settings)), time.time())[0]

    def call(self, submission: Submission, timeout: float) -> tuple[str, list[tuple[str, str]], bytes]:
        task = self._read(submission, time.time())
        with self._lock:
            self.calls.append(task)
        run = self.run(task, raises=False)
        if run.fate == "dead":
            raise CallFailed(f"job {task.handle} was refused by the worker: {run.reason}")
        return response.read_response(run.body)

    def status(self, handle: str, server: str, uniques: Sequence[str] = (), queue: str = "") -> Status:
        with self._lock:
            for task, status in self._running.values():
                if task.handle == handle or task.unique in uniques:
                    return status
            if any(task.handle == handle or task.unique in uniques for task in self.waiting):
                return Status("queued")
        return Status("unknown")

    # -- the queue ---------------------------------------------------------------------------------------------------

    def _submit(self, submission: Submission, now: float) -> tuple[QueuedTask, bool]:
        with self._lock:
            for task in [*self.waiting, *(task for task, _ in self._running.values())]:
                if (task.queue, task.unique) == (submission.queue, submission.unique):
                    return task, False  # coalesced: the first one's handle, and the second one's data is dropped
            task = self._read(submission, now)
            self.queued.append(task)
            self.waiting.append(task)
            return task, True

    def _read(self, submission: Submission, now: float) -> QueuedTask:
        """What lies in the queue. Times are what the caller's clock said, so they count from now on ours."""
        number = next(self._numbers)
        delay = round(submission.at - now, 3) if submission.at > now else 0.0
        skew = self.clock.now() - now
        return self._look(submission, f"H:{SERVER}:{number}", number, delay, skew)

    def _look(self, submission: Submission, handle: str, number: int, delay: float, skew: float) -> QueuedTask:
        job = Grabbed(handle.encode(), submission.queue.encode(), submission.unique.encode(), submission.payload)
        try:
            task = open_payload(job, self.settings, 0, trusted=True)
        except BadMessage:
            # A plain call of a service that only PHP's worker knows; whether it may run shows when it is run.
            call = _read_json(submission.payload)
            if not isinstance(call, dict):
                raise
            task = Message("", path="", service=str(call.pop("service", "")), id=own_id(job), plain=call)
        return QueuedTask(
            id=submission.id or task.id,
            service=task.service,
            queue=submission.queue,
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
            max_attempts=self.settings.retry_limits(task).max_attempts,
            payload=submission.payload,
            _headers=tuple(task.headers),
            _skew=skew,
            _sequence=number,
        )

    def take(self, queue: str | None) -> QueuedTask | None:
        """The next task that is due, as a job server hands them out: by priority, then in order."""
        with self._lock:
            due = [task for task in self._of(queue) if task.due <= self.clock.now()]
            # gearmand has no delayed jobs with a priority: they come as normal ones.
            order = {task.handle: PRIORITIES.index("normal" if task.delay else task.priority) for task in due}
            due.sort(key=lambda task: (order[task.handle], task.due if task.delay else 0.0, task._sequence))
            return due[0] if due and self._take_this(due[0]) else None

    def _of(self, queue: str | None) -> list[QueuedTask]:
        return [task for task in self.waiting if queue is None or task.queue == queue]

    def _take_this(self, task: QueuedTask) -> bool:
        with self._lock:
            if task not in self.waiting:
                return False
            self.waiting.remove(task)
            self._running[task.handle] = (task, Status("running"))
            return True

    def step(self, queue: str | None) -> bool:
        """Move the clock to when the next task is due; whether one waits."""
        with self._lock:
            due = min((task.due for task in self._of(queue)), default=None)
            if due is not None:
                self.clock.advance(max(0.0, due - self.clock.now()))
            return due is not None

    def clear(self) -> None:
        """Forget everything that was queued and run."""
        with self._lock:
            for kept in (self.queued, self.waiting, self.runs, self.calls):
                kept.clear()

    # -- one attempt -------------------------------------------------------------------------------------------------

    def run(self, queued: QueuedTask, *, raises: bool) -> Run:
        """Replay it, do with it what its outcome asks for, and then raise what its handler raised."""
        try:
            run = self._attempt(queued)
        finally:
            with self._lock:
                self._running.pop(queued.handle, None)
        with self._lock:
            self.runs.append(run)
        if raises and run.error is not None and not isinstance(run.error, Retry):
            raise run.error
        if raises and run.fate == "dead" and run.error is None:
            raise TaskFailed(run)
        return run

    def _attempt(self, queued: QueuedTask) -> Run:
        handle = queued.handle.encode()
        job = Grabbed(handle, queued.queue.encode(), queued.unique.encode(), queued.payload)
        try:
            task = open_payload(job, self.settings, self.clock.now() - queued._skew)
        except BadMessage as error:
            return Run(queued, "dead", reason=str(error))
        limits = self.settings.retry_limits(task)

        def report(done: int, total: int) -> None:
            with self._lock:
                self._running[queued.handle] = (queued, Status("running", done, total))

        known = Job.of(task, queue=queued.queue, handle=queued.handle, max_attempts=limits.max_attempts, report=report)
        errors = io.StringIO()
        notice_exceptions()
        if self._context is None:
            self._context = ready_context(contextvars.Context())
        result = replay.run(self._app, task, known, errors, self._context)
        return self._settle(queued, task, result, errors.getvalue())

    def _settle(self, queued: QueuedTask, task: Message, result: Result, output: str) -> Run:
        outcome = result.outcome
        status = outcome.reason if outcome.kind == "response" else ""
        now = self.clock.now()
        limits = self.settings.retry_limits(task)
        # The jitter's ceiling: a test's retries come when they come at the latest, and always then.
        fate = decide(outcome, task.attempt, limits, now, target=task.target, random=lambda: 1.0)
        run = Run(queued, "done", status, result.data, outcome.response, error=result.error, output=output)
        if isinstance(fate, Done) or task.wants_reply:
            return run
        if isinstance(fate, Dead):
            return replace(run, fate="dead", reason=fate.reason)
        self._retry(queued, task, fate.at, fate.reason, limits.max_attempts)
        return replace(run, fate="retry", reason=fate.reason, retry_in=fate.at - now)

    def _retry(self, queued: QueuedTask, task: Message, at: float, reason: str, max_attempts: int) -> None:
        now = self.clock.now()
        following, payload = next_attempt(task, queued.queue, self.settings, max_attempts, reason, at, now)
        unique = make_unique(task.id, following.attempt)
        submission = Submission(queued.queue, unique, payload, task.priority, at, task.id)
        with self._lock:
            number = next(self._numbers)
            self.waiting.append(self._look(submission, f"H:{SERVER}:{number}", number, at - now, 0.0))


def seal_given(payload: bytes, queue: str, settings: Settings) -> bytes:
    """A payload that is given in bytes, signed anew where there are keys and it is a message."""
    if plain.is_plain(payload) or not settings.secret_keys:
        return payload
    return signature.sign(payload, queue, settings.secret_keys[0], time.time())


def _read_json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return None

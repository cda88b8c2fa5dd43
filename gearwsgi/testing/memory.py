"""A client whose job server is a list: tasks go through the true messages, signatures and policy, and nothing else.

For `gearwsgi.testing`. Nothing here sleeps; time is a clock that the test moves.
"""

import contextlib
import contextvars
import io
import itertools
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..app import replay
from ..app.context import ready_context
from ..app.job import Job, Retry
from ..app.replay import Result, notice_exceptions
from ..environ import WSGIApplication
from ..errors import BadMessage, CallFailed, GearwsgiError, RecordsUnavailable, UnknownTask
from ..message import plain, response, signature
from ..message.fields import MAILBOX
from ..message.limits import split_queue
from ..message.model import PRIORITIES, Message
from ..policy import Dead, Done, GoOnAt, decide
from ..settings import Settings
from ..state.records import model
from ..state.records.model import Record, moment
from ..state.records.steering import cancelled
from ..submit.client import Client, Receipt, Status
from ..submit.deferral.desk import Desk
from ..submit.followups import follow
from ..telemetry import tracing
from ..wire.payload import Grabbed, Submission, make_unique, next_attempt, next_piece, open_payload, own_id
from .attempts import QueuedTask, Run

SERVER = "memory"


class TaskFailed(GearwsgiError, AssertionError):
    """A task became a dead letter without an exception: the application's answer was no 2xx and is not retried.

    Attributes:
        run: the attempt, with its reason and the beginning of the response.
    """

    def __init__(self, run: Run) -> None:
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


class _Seen:
    """What a queue in memory knows of one delivery."""

    def __init__(self, memory: "Memory", key: str) -> None:
        self._memory = memory
        self._key = key

    def claim(self) -> bool | None:
        return self._memory.claim(self._key)

    def keep(self, seconds: float) -> None:
        self._memory.keep(self._key, seconds)

    def release(self) -> None:
        self._memory.keep(self._key, None)


class _Desk(Desk):
    """Nothing runs while somebody waits: the response is there at once, or not at all."""

    def __init__(self, memory: "Memory") -> None:
        super().__init__(memory)
        self._memory = memory
        self.name = MAILBOX + "memory"

    def mailbox(self) -> contextlib.AbstractContextManager["_Desk"]:
        return contextlib.nullcontext(self)

    def fetch(self, server: str, task_id: str, deadline: float) -> bytes:
        return self._memory.result(task_id) or b""


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
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._cancelled: dict[str, tuple[float, str]] = {}
        self._seen: dict[str, float] = {}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._context: contextvars.Context | None = None
        self.stop_requested = False

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

    def status(self, handle: str, server: str, uniques: Sequence[str] = (), *, retries: Sequence[str] = ()) -> Status:
        with self._lock:
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
        with self._lock:
            there = [*self.waiting, *(task for task, _ in self._running.values())]
        return [task.unique for task in there if task.unique.startswith(beginning)]

    def count_waiting(self, queue: str) -> int:
        with self._lock:
            return sum(task._function == queue for task in self.waiting)

    @property
    def desk(self) -> Desk:
        if self._desk is None:
            self._desk = _Desk(self)
        return self._desk

    # -- records -----------------------------------------------------------------------------------------------------

    lag = 0.0

    @contextlib.contextmanager
    def open_records(self, *, make: bool = False) -> Iterator["Memory"]:
        if not self.settings.records:
            raise RecordsUnavailable("records are off: set records='sqlite'")
        yield self

    def find(self, task_id: str) -> Record:
        with self._lock:
            found = {task.id: task for task in reversed([*self.queued, *self.calls, *self.waiting])}
            ids = [task_id] if task_id in found else [each for each in found if each.startswith(task_id)]
            if len(ids) != 1:
                raise UnknownTask(f"{task_id!r} is no task's id, or several begin so", is_ambiguous=bool(ids))
            return self._record(found[ids[0]])

    def cancel(self, task: Record, *, by: str = "") -> str:
        """One that waits never runs; what runs in this process goes on."""
        with self._lock:
            state = self.find(task.id).state
            if state not in model.ENDED and state != model.RUNNING:
                self.waiting[:] = [each for each in self.waiting if each.id != task.id]
                self._cancelled[task.id] = (self.clock.now(), cancelled(by))
            return state

    def result(self, task_id: str) -> bytes | None:
        until, content = self._kept.get(task_id, (0.0, b""))
        return content if until > self.clock.now() else None

    @contextlib.contextmanager
    def look_for(self, key: str) -> Iterator["_Seen"]:
        yield _Seen(self, key)

    def claim(self, key: str) -> bool:
        """Whether a delivery is new, and from now on it is not."""
        with self._lock:
            is_new = self._seen.get(key, 0.0) <= self.clock.now()
            if is_new:
                self._seen[key] = math.inf
            return is_new

    def keep(self, key: str, seconds: float | None) -> None:
        """For how long a delivery was seen; None: it was not."""
        with self._lock:
            if seconds is None:
                del self._seen[key]
            else:
                self._seen[key] = self.clock.now() + seconds

    def message(self, task_id: str) -> bytes | None:
        with self._lock:
            return next((task.payload for task in self.queued if task.id == task_id), None)

    def record(self, submissions: Sequence[Submission]) -> None:
        pass  # they are in the list

    def _record(self, task: QueuedTask) -> Record:
        runs = [run for run in self.runs if run.task.id == task.id]
        last = runs[-1] if runs else None
        waiting = next((each for each in self.waiting if each.id == task.id), None)
        running = next(((each, status) for each, status in self._running.values() if each.id == task.id), None)
        now = running[0] if running is not None else waiting
        if running is not None:
            state = model.RUNNING
        elif waiting is not None:
            later = model.SCHEDULED if waiting.due > self.clock.now() else model.QUEUED
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
            started=moment(runs[0]._at) if runs else None,
            ended=moment(at) or (moment(last._at) if last is not None and now is None else None),
            attempts=running[0].attempt if running is not None else last.task.attempt if last is not None else 0,
            max_attempts=task.max_attempts, progress=None, status=history[-1].status if history else None,
            reason=why or next((each.reason for each in reversed(history) if each.reason), None),
            host=host if has_begun else None, pid=pid if has_begun else None,
            request_id=task.headers.get("X-Request-ID"), traceparent=task.headers.get("traceparent"), history=history,
        )  # fmt: skip

    # -- the queue ---------------------------------------------------------------------------------------------------

    def _submit(self, submission: Submission, now: float) -> tuple[QueuedTask, bool]:
        with self._lock:
            for task in [*self.waiting, *(task for task, _ in self._running.values())]:
                if (task._function, task.unique) == (submission.queue, submission.unique):
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
            max_attempts=self.settings.retry_limits(task).max_attempts,
            identity=task.identity.partition(":")[2] or None,
            verified=task.verified,
            cursor=json.loads(task.cursor) if task.cursor else None,
            limit=key or None,
            payload=submission.payload,
            _function=submission.queue,
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
            self._kept.clear()
            self._cancelled.clear()
            self._seen.clear()

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
        job = Grabbed(handle, queued._function.encode(), queued.unique.encode(), queued.payload)
        try:
            task = open_payload(job, self.settings, self.clock.now() - queued._skew)
        except BadMessage as error:
            return Run(queued, "dead", reason=str(error), _at=self.clock.now())
        limits = self.settings.retry_limits(task)

        progress = task.progress

        def report(done: int, total: int) -> None:
            nonlocal progress
            progress = done, total
            with self._lock:
                self._running[queued.handle] = (queued, Status("running", done, total))

        known = Job.of(
            task,
            queue=queued.queue,
            handle=queued.handle,
            max_attempts=limits.max_attempts,
            report=report,
            stops=lambda: self.stop_requested,
        )
        if progress is not None:
            report(*progress)
        errors = io.StringIO()
        notice_exceptions()
        if self._context is None:
            self._context = ready_context(contextvars.Context())
        seconds = self.settings.keeps_result(task)
        span = None
        if tracing.MODULE in sys.modules:
            span = tracing.begin_process(task, queued.queue, trace_parent=self.settings.trace_parent)
        context = self._context if span is None else span.inside(self._context)
        keep = seconds > 0 or task.awaited is not None
        result = replay.run(self._app, task, known, errors, context, keep=keep)
        if span is not None:
            span.end(result.outcome, result.error)
        run = self._settle(queued, replace(task, progress=progress), result, errors.getvalue())
        if result.kept:
            seconds = max(seconds, 1.0 if task.awaited is not None else 0.0)
            self._kept[task.id] = self.clock.now() + seconds, result.kept
        return run

    def _settle(self, queued: QueuedTask, task: Message, result: Result, output: str) -> Run:
        outcome = result.outcome
        status = outcome.reason if outcome.kind == "response" else ""
        now = self.clock.now()
        limits = self.settings.retry_limits(task)
        # The jitter's ceiling: a test's retries come when they come at the latest, and always then.
        fate = decide(outcome, task.attempt, limits, now, target=task.target, random=lambda: 1.0)
        run = Run(queued, "done", status, result.data, outcome.response, error=result.error, output=output, _at=now)
        if task.wants_reply:
            return run
        if isinstance(fate, Done):
            self._follow(follow(task, self.settings, now, status=outcome.status))
            return run
        if isinstance(fate, Dead):
            self._follow(follow(task, self.settings, now, status=outcome.status, reason=fate.reason))
            return replace(run, fate="dead", reason=fate.reason)
        if isinstance(fate, GoOnAt):
            rest = next_piece(task, queued._function, self.settings, outcome.cursor, None, fate.at, now)
            self._add(rest, fate.at - now)
            return replace(run, fate="continue", retry_in=fate.at - now)
        self._retry(queued, task, fate.at, fate.reason, limits.max_attempts)
        return replace(run, fate="retry", reason=fate.reason, retry_in=fate.at - now)

    def _follow(self, submission: Submission | None) -> None:
        """Queue what follows a task, if anything does."""
        if submission is not None:
            self._submit(submission, self.clock.now())

    def _retry(self, queued: QueuedTask, task: Message, at: float, reason: str, max_attempts: int) -> None:
        now = self.clock.now()
        following, payload = next_attempt(task, queued._function, self.settings, max_attempts, reason, at, now)
        unique = make_unique(task.id, following.attempt)
        self._add(Submission(queued._function, unique, payload, task.priority, at, task.id), at - now)

    def _add(self, submission: Submission, delay: float) -> None:
        """Queue what follows from an attempt, as from now on the clock."""
        with self._lock:
            number = next(self._numbers)
            self.waiting.append(self._look(submission, f"H:{SERVER}:{number}", number, delay, 0.0))


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

"""A client whose job server is a list. Messages, signatures and policy are the real ones; there is nothing else.

For `gearwsgi.testing`. Nothing here sleeps; time is a clock that the test moves.
"""

import contextlib
import contextvars
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..app import replay
from ..app.context import ready_context
from ..app.job import Job, Retry
from ..app.replay import Result, notice_exceptions
from ..environ import WSGIApplication
from ..errors import BadMessage, CallFailed, GearwsgiError, RecordsUnavailable
from ..message import plain, signature
from ..message.fields import MAILBOX
from ..message.model import Message
from ..message.response import read_response
from ..policy import Dead, Done, GoOnAt, decide
from ..settings import Settings
from ..submit.client import Client, Seen
from ..submit.deferral.desk import Desk
from ..submit.followups import follow
from ..submit.servers import Receipt
from ..telemetry import tracing
from ..wire.payload import Grabbed, Submission, make_unique, next_attempt, next_piece, open_payload
from .attempts import QueuedTask, Run
from .queue import SERVER, Clock, Queue
from .records import Records


class TaskFailed(GearwsgiError, AssertionError):
    """A task became a dead letter without an exception: the application's answer was no 2xx and is not retried.

    Attributes:
        run: the attempt, with its reason and the beginning of the response.
    """

    def __init__(self, run: Run) -> None:
        shown = run.response.decode("utf-8", "replace").strip()
        super().__init__(f"{run.task.service} is a dead letter: {run.reason}" + (f"\n\n{shown}" if shown else ""))
        self.run = run


class _Desk(Desk):
    """A desk at which nobody waits: the response is there at once, or not at all."""

    def __init__(self, memory: "Memory") -> None:
        super().__init__(memory)
        self._memory = memory
        self.name = MAILBOX + "memory"

    def mailbox(self) -> contextlib.AbstractContextManager["_Desk"]:
        return contextlib.nullcontext(self)

    def fetch(self, server: str, task_id: str, deadline: float) -> bytes:
        return self._memory.records.result(task_id) or b""


class Memory(Client):
    """The client of `capture`. For any number of threads.

    Attributes:
        queue: the job server: a list.
        records: what became of its tasks.
        stop_requested: what `job.stop_requested` is to say.
    """

    def __init__(self, settings: Settings, app: WSGIApplication, clock: Clock, *, inline: bool, raises: bool) -> None:
        super().__init__(settings)
        self.queue = self.servers = Queue(settings, clock)
        self.clock = clock
        self.records = Records(self.queue)
        self.stop_requested = False
        self._app = app
        self._inline = inline
        self._raises = raises
        self._context: contextvars.Context | None = None

    # -- what a middleware asks of its client ------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Receipt]:
        now = time.time()
        added = [self.queue.accept(submission, now) for submission in submissions]
        for task, is_new in added:
            if self._inline and is_new and task.due <= self.clock.now() and self.queue.take_this(task):
                self.run(task, raises=self._raises)
        return [Receipt(task.handle, SERVER) for task, _ in added]

    def call(self, submission: Submission, timeout: float) -> tuple[str, list[tuple[str, str]], bytes]:
        task = self.queue.accept_call(submission)
        run = self.run(task, raises=False)
        if run.fate == "dead":
            raise CallFailed(f"job {task.handle} was refused by the worker: {run.reason}")
        return read_response(run.body)

    def count_waiting(self, queue: str) -> int:
        return self.queue.count_waiting(queue)

    @property
    def desk(self) -> Desk:
        if self._desk is None:
            self._desk = _Desk(self)
        return self._desk

    def record(self, submissions: Sequence[Submission]) -> None:
        pass  # they are in the list

    @contextlib.contextmanager
    def open_records(self, *, make: bool = False) -> Iterator[Records]:
        if not self.settings.records:
            raise RecordsUnavailable("records are off: set records='sqlite'")
        yield self.records

    def look_for(self, key: str) -> contextlib.AbstractContextManager[Seen]:
        return self.records.look_for(key)

    # -- one attempt -------------------------------------------------------------------------------------------------

    def run(self, queued: QueuedTask, *, raises: bool) -> Run:
        """Replay a task, do what its outcome asks for, and then raise what its handler raised."""
        try:
            run = self._attempt(queued)
        finally:
            self.queue.end(queued)
        with self.queue.lock:
            self.records.runs.append(run)
        if raises and run.error is not None and not isinstance(run.error, Retry):
            raise run.error
        if raises and run.fate == "dead" and run.error is None:
            raise TaskFailed(run)
        return run

    def _attempt(self, queued: QueuedTask) -> Run:
        handle = queued.handle.encode()
        job = Grabbed(handle, queued.function.encode(), queued.unique.encode(), queued.payload)
        try:
            task = open_payload(job, self.settings, self.clock.now() - queued.skew)
        except BadMessage as error:
            return Run(queued, "dead", reason=str(error), at=self.clock.now())
        limits = self.settings.retry_limits(task)

        progress = task.progress

        def report(done: int, total: int) -> None:
            nonlocal progress
            progress = done, total
            self.queue.report(queued, done, total)

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
            self.records.keep_result(task.id, result.kept, seconds)
        return run

    def _settle(self, queued: QueuedTask, task: Message, result: Result, output: str) -> Run:
        outcome = result.outcome
        status = outcome.reason if outcome.kind == "response" else ""
        now = self.clock.now()
        limits = self.settings.retry_limits(task)
        # With the jitter at its most: a test's retry comes as late as it ever may, and always then.
        fate = decide(outcome, task.attempt, limits, now, target=task.target, random=lambda: 1.0)
        run = Run(queued, "done", status, result.data, outcome.response, error=result.error, output=output, at=now)
        if task.wants_reply:
            return run
        if isinstance(fate, Done):
            self._follow(follow(task, self.settings, now, status=outcome.status))
            return run
        if isinstance(fate, Dead):
            self._follow(follow(task, self.settings, now, status=outcome.status, reason=fate.reason))
            return replace(run, fate="dead", reason=fate.reason)
        if isinstance(fate, GoOnAt):
            rest = next_piece(task, queued.function, self.settings, outcome.cursor, None, fate.at, now)
            self.queue.add(rest, fate.at - now)
            return replace(run, fate="continue", retry_in=fate.at - now)
        self._retry(queued, task, fate.at, fate.reason, limits.max_attempts)
        return replace(run, fate="retry", reason=fate.reason, retry_in=fate.at - now)

    def _follow(self, submission: Submission | None) -> None:
        """Queue the task that follows another one, if one does."""
        if submission is not None:
            self.queue.accept(submission, self.clock.now())

    def _retry(self, queued: QueuedTask, task: Message, at: float, reason: str, max_attempts: int) -> None:
        now = self.clock.now()
        following, payload = next_attempt(task, queued.function, self.settings, max_attempts, reason, at, now)
        unique = make_unique(task.id, following.attempt)
        self.queue.add(Submission(queued.function, unique, payload, task.priority, at, task.id), at - now)


def seal_given(payload: bytes, queue: str, settings: Settings) -> bytes:
    """A payload that is given in bytes; if it is a message, and there are keys, it is signed anew."""
    if plain.is_plain(payload) or not settings.secret_keys:
        return payload
    return signature.sign(payload, queue, settings.secret_keys[0], time.time())

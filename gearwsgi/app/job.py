"""What a handler can know about the job that it runs in, and what it can raise to have the job run again."""

import contextvars
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import InvalidTask
from ..message.fields import MAX_CURSOR
from ..message.limits import split_queue
from ..message.model import Message, encode_json
from ..policy import MAX_DELAY, Outcome


class Course:
    """What is noticed while an attempt runs, however its framework answers; the replay judges the attempt by it.

    Attributes:
        retry: the `Retry` that the handler has made; None: none.
        goes_on: the `Continue` that it has made; None: none.
        refused: why the job may not run; empty: it may.
        error: the exception that the framework has turned into a response; None: none.
        finishers: functions to call at the response's end; None before and after the application is called.
        accepts: asked whether the work is done, where the status is none from 200 to 299.
    """

    __slots__ = ("accepts", "error", "finishers", "goes_on", "refused", "retry")

    def __init__(self) -> None:
        self.retry: Retry | None = None
        self.goes_on: Continue | None = None
        self.refused = ""
        self.error: BaseException | None = None
        self.finishers: list[Callable[[bool, int], None]] | None = None
        self.accepts: Callable[[Message, int, str], bool] | None = None

    def watch(self, finish: Callable[[bool, int], None], accepts: Callable[[Message, int, str], bool]) -> bool:
        """Have functions called; for the middleware that the replay goes through.

        Args:
            finish: called at the response's end with two answers: was it sent and closed, and with which status?
            accepts: asked whether the work is done where the status (the second argument) is none from 200 to 299; the
                third is the response's Location.

        Returns:
            False where the replay is over already, so that neither is called.
        """
        if self.finishers is None:
            return False
        self.finishers.append(finish)
        self.accepts = accepts
        return True


@dataclass(slots=True)
class Job:
    """What a handler may know of the job that it runs in: `environ["gearwsgi.job"]`.

    Attributes:
        id: the task's id, the same in all attempts.
        service: what the caller called.
        queue: the queue (Gearman function) that it came through.
        handle: the job server's handle.
        attempt: 1-based.
        max_attempts: how often it is tried.
        identity: the key of the user that it runs as; None: as nobody.
        data: what the caller gave, decoded whatever its encoding was.
        course: for the replay and the middleware; handlers have no use for it.
    """

    id: str
    service: str
    queue: str
    handle: str
    attempt: int
    max_attempts: int
    identity: str | None
    _message: Message = field(repr=False)
    _report: Callable[[int, int], None] = field(repr=False)
    _stops: Callable[[], bool] = field(repr=False)
    course: Course = field(repr=False, default_factory=Course)

    @classmethod
    def of(
        cls,
        task: Message,
        *,
        queue: str,
        handle: str,
        max_attempts: int,
        id: str = "",
        report: Callable[[int, int], None] = lambda done, total: None,
        stops: Callable[[], bool] = bool,
    ) -> "Job":
        """The job of a message. All jobs are made here.

        Args:
            task: the message.
            queue: the queue that it came through.
            handle: the job server's.
            max_attempts: how often it is tried.
            id: the id to use where the message has none.
            report: called with `progress`'s numbers.
            stops: answers whether the supervisor wants to stop or reload.
        """
        identity = task.identity.partition(":")[2] if task.identity else None
        return cls(
            task.id or id, task.service, split_queue(queue)[0], handle, task.attempt, max_attempts, identity, task,
            report, stops,
        )  # fmt: skip

    @property
    def data(self) -> Any:
        """The data that the caller gave, decoded: JSON's types, the fields of a form or query, or bytes."""
        return self._message.data()

    @property
    def scheme(self) -> str:
        """The framework whose user `identity` is: `django` or `flask-login`."""
        return self._message.identity.partition(":")[0]

    def refuse(self, reason: str) -> None:
        """Do not let it succeed: whatever the response is, the task becomes a dead letter, for this reason."""
        self.course.refused = reason

    @property
    def verified(self) -> bool:
        """Whether it is a webhook whose sender was verified when it came. A replay need not do that again,
        and a late one could not.
        """
        return self._message.verified

    @property
    def cursor(self) -> Any:
        """How far the work is: what the handler said in `Continue(cursor=…)`; None where it begins."""
        return json.loads(self._message.cursor) if self._message.cursor else None

    @property
    def stop_requested(self) -> bool:
        """Whether the supervisor wants to stop or to load new code: a long job had better go on later (`Continue`)."""
        return self._stops()

    @property
    def scheduled_at(self) -> datetime | None:
        """The tick of the schedule that this task is for, with the offset of its entry's zone; None: it is for none."""
        return self._message.scheduled

    def progress(self, done: int, total: int) -> None:
        """Tell the job server that `done` of `total` are done; `status()` shows it."""
        self._report(int(done), int(total))


running: contextvars.ContextVar[Course] = contextvars.ContextVar("gearwsgi.running")
"""The course of the attempt that runs in this context."""


class Retry(Exception):
    """Raise it in a handler to have this job tried again. It counts as an attempt.

    A framework may turn it into its own 500; the job knows of it all the same, because it is noted when it is made: few
    frameworks tell what they have caught. One that is made and not raised does nothing, unless the job fails.

    Args:
        delay: seconds to wait; None: the backoff.
        reason: what the log and the dead letter say.
    """

    def __init__(self, delay: float | None = None, reason: str = "") -> None:
        super().__init__(reason or "the handler asked for another attempt")
        self.delay = None if delay is None else max(0.0, float(delay))
        course = running.get(None)
        if course is not None:
            course.retry = self


class Continue(Exception):
    """Raise it in a handler that has done a part of its work: the same task is queued again, with `job.cursor`.

    That is no failure: it uses up no attempt, and what `job.progress` reported stays. So long work lasts over deploys:
    a handler looks at `job.stop_requested` between two steps. What it has written must be committed before: to most
    frameworks an exception means to roll back.

    As with `Retry`, a framework may turn it into its own 500. Raised in a `call()`, it is an exception as any other.

    Args:
        cursor: how far the work is, as JSON has it: at most 4096 characters.
        delay: seconds until it goes on.

    Raises:
        InvalidTask: the cursor is too long or not JSON, or the delay is no number of seconds.
    """

    def __init__(self, cursor: Any = None, delay: float = 0) -> None:
        super().__init__("the handler goes on later")
        self.cursor = cursor
        self.is_caught = False
        self._text = encode_json(cursor).decode()
        if len(self._text) > MAX_CURSOR:
            raise InvalidTask(
                f"a cursor of {len(self._text)} characters of JSON; it has {MAX_CURSOR} at most: keep what is long in "
                "a database, and its key here"
            )
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY:
            raise InvalidTask(f"delay is {delay!r}: give seconds, from 0 to ten years")
        self.delay = float(delay)
        course = running.get(None)
        if course is not None:
            course.goes_on = self

    def catch(self, job: Job | None) -> bool:
        """For a framework's handling of exceptions: whether `job` goes on, so that its response does not matter."""
        self.is_caught = job is not None and not job._message.wants_reply
        return self.is_caught

    def outcome(self) -> Outcome:
        """The outcome of an attempt that ended by this."""
        return Outcome("continued", "continues", retry_in=self.delay, cursor=self._text)

"""What a test sees of the queue in memory: the tasks in it, and the attempts that were run."""

import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..state.records.model import Attempt, moment


class Headers(Mapping[str, str]):
    """A request's headers, found by their names in any case; a repeated header's values are joined with commas."""

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
        identity: the key of the user that it runs as; None: as nobody.
        verified: whether it is a webhook whose sender was found genuine.
        cursor: how far its handler is, as it said in `Continue`; None: it begins.
        limit: its key of `limits`; None: it has none.
        payload: the message's bytes.
        function: the Gearman function: the queue, and the key where it has one.
        skew: seconds by which the queue's clock was ahead of the caller's when it was queued.
        number: its number among all that were queued, from 1.
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
    identity: str | None
    verified: bool
    cursor: Any
    limit: str | None
    payload: bytes
    function: str
    skew: float
    number: int
    _headers: Sequence[tuple[str, str]]

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
        fate: `done`, `retry` (the next attempt is in the queue), `continue` (so is the rest of its work) or `dead`.
        status: the response's status line, such as `200 OK`; empty where there was none.
        body: a good response's body: what WORK_COMPLETE carries.
        response: status, headers and the body's beginning of a response that was no 2xx.
        reason: why it is tried again, or dead.
        retry_in: seconds until the next attempt, or until it goes on; None where neither comes.
        error: what the handler raised.
        output: what was written to `wsgi.errors`.
        at: when it ended, in the clock's time.
    """

    task: QueuedTask
    fate: Literal["done", "retry", "continue", "dead"]
    status: str = ""
    body: bytes = b""
    response: bytes = field(default=b"", repr=False)
    reason: str = ""
    retry_in: float | None = None
    error: BaseException | None = None
    output: str = field(default="", repr=False)
    at: float = field(default=0.0, repr=False)

    @property
    def json(self) -> Any:
        """The good response's body, read as JSON."""
        return json.loads(self.body)

    def attempt(self, host: str, pid: int) -> Attempt:
        """As the task's record has it."""
        outcome = "retried" if self.fate == "retry" else self.fate
        status = int(self.status[:3]) if self.status[:3].isdigit() else None
        trace = "".join(traceback.format_exception(self.error)) if self.error is not None else None
        raised = f"{type(self.error).__module__}.{type(self.error).__qualname__}" if self.error is not None else None
        reason = self.reason or None
        return Attempt(self.task.attempt, moment(self.at), 0.0, host, pid, outcome, status, reason, trace, raised)

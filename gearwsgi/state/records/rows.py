"""A task's row as the supervisor writes it: what is safe to store, and how two rows of one task become one. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

MAX_ID = 200
MAX_NAME = 500
MAX_PATH = 4000
MAX_REASON = 2000
MAX_TRACEBACK = 16 * 1024
"""Characters that are kept of each."""
_TOP = (1 << 63) - 1

QUEUED, RUNNING, ENDED = 0, 1, 2
"""How far an attempt is: the last part of a row's place."""


@dataclass(slots=True)
class Row:
    """One task. `changed` is when this happened; `began` when the attempt did, `started` when the first one did.

    `queued` and `place` say which of two rows is the later one: `place` grows with the attempt, and in it from queued
    to running to ended. A task that is queued anew from a dead letter has a later `queued`, and begins again.
    """

    id: str
    service: str
    method: str
    path: str
    queue: str
    priority: str
    state: str
    queued: float
    due: float | None
    started: float | None
    ended: float | None
    attempts: int
    max_attempts: int | None
    done: int | None
    total: int | None
    status: int | None
    reason: str | None
    host: str | None
    pid: int | None
    request_id: str | None
    traceparent: str | None
    owner: str | None
    place: int
    changed: float
    began: float | None
    history: str

    def values(self) -> tuple[Any, ...]:
        """In the order of `COLUMNS`."""
        found: tuple[Any, ...] = _get_all(self)
        return found

    def size(self) -> int:
        """About how many bytes it takes."""
        return 1000 + len(self.history)


COLUMNS = tuple(field.name for field in fields(Row))
_get_all = attrgetter(*COLUMNS)


FINISHED = (
    "id", "service", "method", "path", "queue", "queued", "started", "began", "ended", "changed", "max_attempts",
    "host", "pid", "request_id", "traceparent",
)  # fmt: skip
"""The columns in which tasks differ that were done at their first attempt, as nearly all are: their values alone."""
_ENDED_AT_ONCE = 6  # place(1, ENDED)
FINISHED_AS = {
    "priority": "normal", "state": "done", "attempts": 1, "status": 200, "place": _ENDED_AT_ONCE, "history": "",
}  # fmt: skip
"""What the others are; those that are not named are null."""


WAITING = (
    "id", "service", "method", "path", "queue", "priority", "state", "queued", "due", "max_attempts", "request_id",
    "traceparent", "changed", "message",
)  # fmt: skip
"""The columns in which tasks differ that were just queued, with the message, which is no supervisor's to write."""
WAITING_AS = {"attempts": 0, "place": 4, "history": ""}  # place(1, QUEUED)
"""What the others are; those that are not named are null."""


def finished_row(values: Sequence[Any]) -> Row:
    """The row of a task whose values of `FINISHED` these are."""
    return Row(**{**dict.fromkeys(COLUMNS), **FINISHED_AS, **dict(zip(FINISHED, values, strict=True))})


def place(attempt: int, phase: int) -> int:
    """The place of a row in its task's life."""
    return min(attempt, 10**9) * 4 + phase


def merge(old: Row | None, new: Row) -> Row:
    """What is left of two rows of one task that wait to be written."""
    if old is None:
        return new
    early, late = (old, new) if (new.queued, new.place) >= (old.queued, old.place) else (new, old)
    late.history = old.history + new.history
    if early.queued == late.queued and early.started is not None:
        late.started = early.started if late.started is None else min(early.started, late.started)
    if early.queued == late.queued:
        late.reason = late.reason or early.reason
    return late


def clean(text: str, limit: int = MAX_NAME) -> str:
    """Text that any database takes: no NUL, no half of a surrogate pair, and not too long."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean_id(task_id: str) -> str:
    """An id as it is stored: a longer one than any of ours is cut, and stays one of its own."""
    if len(task_id) <= MAX_ID and task_id.isascii() and "\0" not in task_id:
        return task_id
    text = clean(task_id, 1 << 20)
    if len(text) <= MAX_ID:
        return text
    return text[: MAX_ID - 33] + "-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def whole(number: int) -> int:
    """A number that fits."""
    return max(-_TOP, min(number, _TOP))

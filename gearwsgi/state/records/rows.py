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
"""Characters that are kept of each."""
_TOP = (1 << 63) - 1

QUEUED, RUNNING, ENDED = 0, 1, 2
"""How far an attempt is. It is the last part of a row's place."""


@dataclass(slots=True)
class Row:
    """A task's row. `changed` is when this happened, `began` when the attempt began, `started` when the first one did.

    Two rows of a task are put in order by `queued` and `place`: `place` grows with the attempt, and within an attempt
    from queued to running to ended. A task that is queued anew from a dead letter has a later `queued`, and starts
    over.
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
        """The values of `COLUMNS`, in that order."""
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
"""The columns that are written for a task that was done at its first attempt, as nearly all are; all other columns have
the same values for each of them."""
_ENDED_AT_ONCE = 6  # place(1, ENDED)
FINISHED_AS = {
    "priority": "normal", "state": "done", "attempts": 1, "status": 200, "place": _ENDED_AT_ONCE, "history": "",
}  # fmt: skip
"""The values of those other columns; a column that is not named is null."""


WAITING = (
    "id", "service", "method", "path", "queue", "priority", "state", "queued", "due", "max_attempts", "request_id",
    "traceparent", "changed", "message",
)  # fmt: skip
"""The columns that are written for a task that was just queued; with its message, which a supervisor never writes."""
WAITING_AS = {"attempts": 0, "place": 4, "history": ""}  # place(1, QUEUED)
"""The values of all other columns; a column that is not named is null."""


def finished_row(values: Sequence[Any]) -> Row:
    """The row of a task, from its values of the columns `FINISHED`."""
    return Row(**{**dict.fromkeys(COLUMNS), **FINISHED_AS, **dict(zip(FINISHED, values, strict=True))})


def place(attempt: int, phase: int) -> int:
    """A row's place in the life of its task."""
    return min(attempt, 10**9) * 4 + phase


def merge(old: Row | None, new: Row) -> Row:
    """One row for a task, from two that wait to be written."""
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
    """Text that any database takes: without NUL and half surrogate pairs, and not too long."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clean_id(task_id: str) -> str:
    """An id as it is stored. One that is longer than any of ours is cut, but stays different from others."""
    if len(task_id) <= MAX_ID and task_id.isascii() and "\0" not in task_id:
        return task_id
    text = clean(task_id, 1 << 20)
    if len(text) <= MAX_ID:
        return text
    return text[: MAX_ID - 33] + "-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def whole(number: int) -> int:
    """A number that fits a database's integer."""
    return max(-_TOP, min(number, _TOP))

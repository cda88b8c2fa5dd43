"""What is known of a task: its record, its history, and how both are written in JSON. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

QUEUED, SCHEDULED, RUNNING, RETRYING = "queued", "scheduled", "running", "retrying"
DONE, DEAD, CANCELLED, DISCARDED = "done", "dead", "cancelled", "discarded"
UNKNOWN = "unknown"
STATES = (QUEUED, SCHEDULED, RUNNING, RETRYING, DONE, DEAD, CANCELLED, DISCARDED)
"""Every state that a record can have."""
ENDED = frozenset({DONE, DEAD, CANCELLED, DISCARDED})
"""The states in which nothing more happens by itself."""
GROUPED = 100
"""Characters of a reason by which dead tasks are put into groups."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a task that has ended.

    Attributes:
        attempt: its number, from 1.
        started: when it began, in UTC.
        seconds: how long it took.
        host: where it ran.
        pid: the worker process that ran it.
        outcome: `done`, `retried`, `dead` or `cancelled`.
        status: its response's status; None where there was no response.
        reason: why it failed; None where it did not.
        traceback: the exception's, where one is known.
        raised: the exception's class, such as `builtins.ValueError`; not in JSON.
    """

    attempt: int
    started: datetime | None
    seconds: float
    host: str
    pid: int
    outcome: str
    status: int | None = None
    reason: str | None = None
    traceback: str | None = None
    raised: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        values = _plain(self)
        del values["raised"]
        return values


@dataclass(frozen=True, slots=True)
class Event:
    """What somebody has done with a task.

    Attributes:
        at: when, in UTC.
        what: `cancelled`, `cancel asked` (it ran), `retried` or `discarded` (its dead letter).
        by: who; empty where nobody said.
    """

    at: datetime | None
    what: str
    by: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a task. Times are in UTC.

    Attributes:
        id: the task's id.
        service: what the caller called.
        method: of its request.
        path: of its request, relative to the application, with the query.
        queue: the queue (Gearman function).
        priority: `high`, `normal` or `low`.
        state: `queued`, `scheduled` (delayed), `running`, `retrying` (waits for its next attempt), `done`, `dead`,
            `cancelled` or `discarded`.
        queued: when it was queued.
        due: when its next attempt is due, or its last one was; None: at once.
        started: when its first attempt began.
        ended: when it was done, dead, cancelled or discarded.
        attempts: how many attempts have begun.
        max_attempts: how often it is tried.
        progress: (done, total) as its handler reported it.
        status: the last response's status; None where there was none.
        reason: why the last attempt failed.
        host: where the last attempt ran.
        pid: the worker process that ran it.
        request_id: the X-Request-ID that it was queued with.
        traceparent: the trace that it was queued in.
        history: its attempts that have ended, oldest first; empty in a list of records.
    """

    id: str
    service: str
    method: str
    path: str
    queue: str
    priority: str
    state: str
    queued: datetime | None
    due: datetime | None
    started: datetime | None
    ended: datetime | None
    attempts: int
    max_attempts: int | None
    progress: tuple[int, int] | None
    status: int | None
    reason: str | None
    host: str | None
    pid: int | None
    request_id: str | None
    traceparent: str | None
    history: tuple[Attempt, ...] = ()

    def to_json(self, *, history: bool = True) -> dict[str, Any]:
        """As JSON's types, with or without its history."""
        values = _plain(self)
        if history:
            values["history"] = [attempt.to_json() for attempt in self.history]
        else:
            del values["history"]
        return values


def _plain(item: Record | Attempt) -> dict[str, Any]:
    return {field.name: _value(getattr(item, field.name)) for field in fields(item)}


def _value(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return list(value) if isinstance(value, tuple) else value


def moment(stamp: float | None) -> datetime | None:
    """A Unix time as a datetime in UTC."""
    return None if stamp is None else datetime.fromtimestamp(stamp, UTC)


def write_attempt(attempt: int, started: float, ended: float, outcome: str, **more: Any) -> str:
    """One line of a task's history, as the database keeps it; `more` are the other fields of `Attempt`."""
    seconds = round(max(0.0, ended - started), 6)
    return json.dumps({"attempt": attempt, "started": started, "seconds": seconds, "outcome": outcome, **more}) + "\n"


def read_history(text: str) -> tuple[Attempt, ...]:
    """The attempts in a history, in the order in which they began. A line that was cut off is left out."""
    found = []
    for line in text.split("\n"):
        if not line.startswith('{"attempt"'):
            continue
        values: Mapping[str, Any] = json.loads(line)
        found.append((values["started"], Attempt(**{**values, "started": moment(values["started"])})))
    return tuple(attempt for _, attempt in sorted(found, key=lambda each: each[0]))


def write_event(at: float, what: str, by: str) -> str:
    """One line of a task's history that is no attempt."""
    return json.dumps({"event": what, "at": at, "by": by}) + "\n"


def read_events(text: str) -> tuple[Event, ...]:
    """What people have done with a task, oldest first."""
    found = [json.loads(line) for line in text.split("\n") if line.startswith('{"event"')]
    return tuple(Event(moment(each["at"]), each["event"], each["by"]) for each in found)

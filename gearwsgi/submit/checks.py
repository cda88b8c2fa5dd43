"""Checks the arguments of `task()`, before anything is queued."""

import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from ..errors import InvalidTask
from ..kinds import check_queue
from ..message import targets
from ..message.limits import checked_key, find_limit, key_queue, unmatched
from ..message.model import MAX_UNIQUE, PRIORITIES
from ..policy import MAX_DELAY
from ..settings import Settings


def unique(unique: str | None, task_id: str) -> str:
    """Gearman's coalescing key for a task: the caller's, or one that no other task has."""
    if unique is None:
        return f"{task_id}:1"  # the same as `make_unique` makes
    if not isinstance(unique, str) or not unique or not unique.isprintable():
        raise InvalidTask(f"unique {unique!r} can't be one: give a string without control characters")
    if len(unique.encode()) > MAX_UNIQUE:
        raise InvalidTask(f"unique {unique!r} has {len(unique.encode())} bytes; Gearman compares only {MAX_UNIQUE}")
    if unique == "-":
        raise InvalidTask("unique '-' means something else to Gearman; give another")
    return unique


def checked_queue(queue: str) -> str:
    """The queue, checked."""
    check_queue(queue, InvalidTask)
    return queue


def limited_queue(queue: str, limit: str | None, service: str, settings: Settings) -> str:
    """The queue in which a task waits: the key's own queue, if the task or its alias has a key of limits."""
    if limit is None:
        entry = settings.tasks.get(service)
        limit = entry.limit if entry is not None else None
        if limit is None:
            return queue
    try:
        key = checked_key(limit)
    except ValueError as error:
        raise InvalidTask(f"limit is {limit!r}: {error}") from None
    if find_limit(settings.limits, key) is None:
        raise InvalidTask(unmatched(settings.limits, key))
    return key_queue(queue, key)


def check_priority(priority: str) -> None:
    """Raise `InvalidTask` unless it is a priority."""
    if priority not in PRIORITIES:
        raise InvalidTask(f"priority {priority!r} is none of {', '.join(PRIORITIES)}")


def due(delay: float | timedelta | None, at: datetime | None) -> float:
    """Unix time when the task is due; 0: now."""
    if delay is not None and at is not None:
        raise InvalidTask("delay and at are given together: give one")
    if isinstance(delay, timedelta):
        delay = delay.total_seconds()
    if delay is not None:
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY:
            raise InvalidTask(f"delay is {delay!r}: give seconds or a timedelta, from 0 to ten years")
        return time.time() + delay if delay else 0.0
    if at is None:
        return 0.0
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidTask(f"at is {at!r}: give a datetime with a time zone, such as datetime.now(UTC)")
    if at.timestamp() - time.time() > MAX_DELAY:
        raise InvalidTask(f"at is {at!r}: more than ten years from now")
    return max(at.timestamp(), 0.0)


def attempts(value: int) -> int:
    """A caller's `max_attempts`, checked."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 10**6:
        raise InvalidTask(f"max_attempts is {value!r}: give a whole number from 1 on")
    return value


def statuses(value: Iterable[int]) -> tuple[int, ...]:
    """A caller's `succeeds`, checked."""
    try:
        return targets.read_statuses(value)
    except ValueError as error:
        raise InvalidTask(f"succeeds is {value!r}: {error}") from None


def encoder(value: Any) -> Any:
    """A caller's `json`, checked."""
    if value is not None and not callable(value):
        raise InvalidTask(f"json is {type(value).__name__}: give what writes data, such as orjson.dumps")
    return value


def positive(value: float, name: str) -> float:
    """A number of seconds above 0, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        raise InvalidTask(f"{name} is {value!r}: give seconds, more than 0")
    return float(value)


def seconds(value: float, name: str) -> float:
    """A number of seconds from 0 on, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**9:
        raise InvalidTask(f"{name} is {value!r}: give seconds, 0 or more")
    return float(value)

"""Checks what a caller gave to `task()`, before anything is queued."""

import time
from datetime import datetime

from ..errors import InvalidTask
from ..kinds import check_queue
from ..message.model import MAX_UNIQUE, PRIORITIES
from ..policy import MAX_DELAY


def _unique(unique: str | None, task_id: str) -> str:
    if unique is None:
        return f"{task_id}:1"  # as make_unique has it
    if not isinstance(unique, str) or not unique or not unique.isprintable():
        raise InvalidTask(f"unique {unique!r} can't be one: give a string without control characters")
    if len(unique.encode()) > MAX_UNIQUE:
        raise InvalidTask(f"unique {unique!r} has {len(unique.encode())} bytes; Gearman compares only {MAX_UNIQUE}")
    if unique == "-":
        raise InvalidTask("unique '-' means something else to Gearman; give another")
    return unique


def _checked_queue(queue: str) -> str:
    check_queue(queue, InvalidTask)
    return queue


def _check_priority(priority: str) -> None:
    if priority not in PRIORITIES:
        raise InvalidTask(f"priority {priority!r} is none of {', '.join(PRIORITIES)}")


def _due(delay: float | None, at: datetime | None) -> float:
    """Unix time when the task is due; 0: now."""
    if delay is not None and at is not None:
        raise InvalidTask("delay and at are given together: give one")
    if delay is not None:
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY:
            raise InvalidTask(f"delay is {delay!r}: give seconds, from 0 to ten years")
        return time.time() + delay if delay else 0.0
    if at is None:
        return 0.0
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidTask(f"at is {at!r}: give a datetime with a time zone, such as datetime.now(UTC)")
    if at.timestamp() - time.time() > MAX_DELAY:
        raise InvalidTask(f"at is {at!r}: more than ten years from now")
    return max(at.timestamp(), 0.0)


def _attempts(value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 10**6):
        raise InvalidTask(f"max_attempts is {value!r}: give a whole number from 1 on")
    return value


def _positive(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        raise InvalidTask(f"{name} is {value!r}: give seconds, more than 0")
    return float(value)


def _seconds(value: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**9:
        raise InvalidTask(f"{name} is {value!r}: give seconds, 0 or more")
    return float(value)

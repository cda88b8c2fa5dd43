"""A follow-up is the task that is queued when another one has ended. It travels in that one's message, as JSON. Pure.

What is read here may come from anybody, and is checked as strictly as a message.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import BadMessage
from . import targets
from .limits import MAX_KEY, MAX_QUEUE, split_queue

PRIORITIES = ("high", "normal", "low")

_PATH = re.compile(r"/[!-~]*")
_TEXT = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_MAX_SECONDS = 10.0**10


@dataclass(frozen=True, slots=True)
class FollowUp:
    """The task that is queued when another one has ended: all of its request that is known before.

    Attributes:
        service: what the caller called.
        method: of the request.
        path: of the request, percent-encoded, with its query.
        queue: the queue (Gearman function).
        max_attempts: how often it is tried.
        headers: its own, beside those that every task of that request has.
        priority: `high`, `normal` or `low`.
        unique: Gearman's coalescing key; empty: one is made from the first task's id.
        delay: seconds from the first task's end.
        at: Unix time when it is due; 0: at once.
        backoff: as a message has it, as are the next.
        timeout: seconds that one attempt may take.
        keep_result: seconds that its response is kept.
        succeeds: statuses beside 2xx that mean that its work is done.
        then: what follows where it goes well.
        on_dead: what follows where it is dead.
    """

    service: str
    method: str
    path: str
    queue: str
    max_attempts: int
    headers: tuple[tuple[str, str], ...] = ()
    priority: str = "normal"
    unique: str = ""
    delay: float = 0.0
    at: float = 0.0
    backoff: tuple[float, float] | None = None
    timeout: float | None = None
    keep_result: float | None = None
    succeeds: tuple[int, ...] = ()
    then: "FollowUp | None" = None
    on_dead: "FollowUp | None" = None

    def to_text(self) -> str:
        """As JSON in ASCII, for a header; values that are the defaults are left out."""
        return json.dumps(_values(self), separators=(",", ":"))


def _values(item: FollowUp) -> dict[str, Any]:
    values = {}
    for field in fields(item):
        value = getattr(item, field.name)
        if value != field.default:
            values[field.name] = _values(value) if isinstance(value, FollowUp) else value
    return values


def queues_of(*follow_ups: FollowUp | None) -> Iterator[str]:
    """The queues that these follow-ups go to, and the follow-ups of theirs."""
    for each in follow_ups:
        if each is not None:
            yield each.queue
            yield from queues_of(each.then, each.on_dead)


def read_follow_up(text: str) -> FollowUp:
    """The follow-up that `to_text` wrote.

    Raises:
        BadMessage: it is none, or one that can't be queued.
    """
    try:
        return _read(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadMessage(f"a follow-up can't be read: {str(error)[:200]}") from error


def _read(values: Any) -> FollowUp:
    if not isinstance(values, Mapping):
        raise ValueError("no JSON object")
    known = dict(values)
    known["headers"] = tuple([(str(name), str(value)) for name, value in known.get("headers", ())])
    known["succeeds"] = targets.read_statuses(known["succeeds"]) if known.get("succeeds") else ()
    if known.get("backoff") is not None:
        low, high = known["backoff"]
        known["backoff"] = (_seconds(low), _seconds(high))
    for name in ("then", "on_dead"):
        if known.get(name) is not None:
            known[name] = _read(known[name])
    found = FollowUp(**known)
    _check(found)
    return found


def _check(found: FollowUp) -> None:
    """Raise `ValueError` unless it can be written as a message and be queued."""
    texts = {
        "service": (_TEXT, found.service), "method": (targets.TOKEN, found.method), "path": (_PATH, found.path),
        "queue": (_TEXT, found.queue), "unique": (_TEXT, found.unique),
    }  # fmt: skip
    for name, (pattern, text) in texts.items():
        if not pattern.fullmatch(text):
            raise ValueError(f"its {name} can't be one")
    if not (found.service and found.queue and found.queue.isprintable()) or " " in found.queue:
        raise ValueError("its service or queue can't be one")
    queue, key = split_queue(found.queue)
    if len(queue.encode()) > MAX_QUEUE or len(key.encode()) > MAX_KEY or len(found.unique.encode()) > 63:
        raise ValueError("its queue or unique is too long")
    for name, value in found.headers:
        if not (targets.TOKEN.fullmatch(name) and _VALUE.fullmatch(value)) or name.lower()[:10] == "x-gearman-":
            raise ValueError("a header can't be one")
    if found.priority not in PRIORITIES:
        raise ValueError("its priority can't be one")
    attempts = found.max_attempts
    if isinstance(attempts, bool) or not isinstance(attempts, int) or not 0 < attempts < 10**9:
        raise ValueError("its max_attempts can't be one")
    for seconds in (found.delay, found.at, found.timeout, found.keep_result):
        if seconds is not None:
            _seconds(seconds)
    if found.timeout == 0 or None in (found.delay, found.at):
        raise ValueError("a number of seconds can't be one")


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        raise ValueError("a number of seconds can't be one")
    return float(value)

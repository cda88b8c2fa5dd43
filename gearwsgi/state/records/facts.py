"""Reads in a hurry what a record says of a message. Nothing is checked: the worker that ran it has verified it."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ...errors import BadMessage
from ...message import reading
from ...wire.payload import Grabbed, own_id

_USUAL = re.compile(
    rb"([!-~]{1,50}+) https?://[^/ ]++(/[!-~]{0,3000}+) HTTP/1\.1\r\n((?:[^\r\0]++\r\n)*?)"
    rb"X-Gearman-Task: ([!-~]{1,200}+)\r\nX-Gearman-Service: ([!-~]{1,500}+)\r\nX-Gearman-Attempt: (\d{1,9}+)\r\n"
    rb"X-Gearman-Max-Attempts: (\d{1,9}+)\r\nX-Gearman-Queued: ([\d.]{1,20}+)\r\n"
    rb"(?:X-Gearman-(?:Keep-Result|Remote-Addr|Remote-User|Timeout|Backoff|Reply|Failed|Signature): [^\r]*+\r\n)*+\r\n"
)


class Facts(NamedTuple):
    """What a message says of its task. `queued` and `due` are 0 where it does not say."""

    id: str
    service: str
    method: str
    path: str
    priority: str
    attempt: int
    max_attempts: int | None
    queued: float
    due: float
    request_id: str | None
    traceparent: str | None


def read_facts(payload: bytes, own_id: Callable[[], str] = str) -> Facts:
    """The facts of a message that was verified before.

    Args:
        payload: its bytes.
        own_id: answers an id for the task, where the message has none.

    Raises:
        BadMessage: it is no message.
    """
    return _usual(payload) or _any(payload, own_id)


def read_usual(payload: bytes) -> list[str] | None:
    """The parts of a message that has only what `task()` usually writes; None where it has more.

    They are the method, the path, the headers that are not this package's, the id, the service, the attempt, the
    greatest number of attempts, and when it was queued.
    """
    found = _USUAL.match(payload)
    return str(b"\0".join(found.groups()), "latin-1").split("\0") if found is not None else None


def read_about(headers: str) -> tuple[str | None, str | None]:
    """X-Request-ID and traceparent, from the headers of a usual message."""
    folded = headers.lower()
    if "x-request-id: " not in folded and "traceparent: " not in folded:
        return None, None
    pairs = [line.partition(": ")[::2] for line in headers.split("\r\n")]
    found: list[str | None] = []
    for name in ("x-request-id", "traceparent"):
        values = [value for key, value in pairs if key.lower() == name]
        found.append(", ".join(values) if values else None)
    return found[0], found[1]


def _usual(payload: bytes) -> Facts | None:
    usual = read_usual(payload)
    if usual is None:
        return None
    method, path, headers, task_id, service, attempt, max_attempts, queued = usual
    return Facts(
        task_id, service, method, path, "normal", int(attempt), int(max_attempts), float(queued), 0.0,
        *read_about(headers),
    )  # fmt: skip


def _any(payload: bytes, own_id: Callable[[], str]) -> Facts:
    task = reading.read(payload, max_body=len(payload))
    task_id = task.id or own_id()
    if not task_id:
        raise BadMessage("the message has no task's id")
    return Facts(
        task_id, task.service, task.method, task.path, task.priority, task.attempt, task.max_attempts,
        task.queued, task.due, task.header("x-request-id"), task.header("traceparent"),
    )  # fmt: skip


def log_fields(job: Grabbed) -> dict[str, Any]:
    """The fields about a job in the log's lines of JSON: those of its record."""
    try:
        facts = read_facts(job.payload, partial(own_id, job))
    except BadMessage:
        return {"queue": job.base_queue}
    trace = (facts.traceparent or "").split("-")
    return {
        "id": facts.id, "service": facts.service, "method": facts.method, "path": facts.path, "queue": job.base_queue,
        "attempt": facts.attempt, "max_attempts": facts.max_attempts, "request_id": facts.request_id,
        "trace_id": trace[1] if len(trace) > 2 else None,
    }  # fmt: skip

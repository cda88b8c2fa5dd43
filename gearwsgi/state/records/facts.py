"""What a record says of a message, read in a hurry: it was read whole, and verified, by the worker that ran it."""

import re
from collections.abc import Callable
from typing import NamedTuple

from ...errors import BadMessage
from ...message import reading

_REQUEST = re.compile(rb"([^ ]++) https?://[^/ ]++(/[^ ]*+) HTTP/1\.1\r\n")
_OWN = re.compile(
    rb"\r\nX-Gearman-Task: ([!-~]++)\r\nX-Gearman-Service: ([!-~]++)\r\nX-Gearman-Attempt: (\d++)\r\n"
    rb"X-Gearman-Max-Attempts: (\d++)\r\nX-Gearman-Queued: ([\d.]++)\r\n"
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
    """The facts of a message that was found good before.

    Args:
        payload: its bytes.
        own_id: answers the task's id, where the message brings none.

    Raises:
        BadMessage: it is none.
    """
    return _usual(payload) or _any(payload, own_id)


def _usual(payload: bytes) -> Facts | None:
    """Those of a task's first attempt, as `task()` writes it."""
    end = payload.find(b"\r\n\r\n")
    request = _REQUEST.match(payload)
    own = payload.rfind(b"\r\nX-Gearman-Task: ", 0, end)
    found = _OWN.match(payload, own) if own > 0 else None
    if request is None or found is None or not payload.isascii():
        return None
    method, path = request.groups()
    task_id, service, attempt, max_attempts, queued = found.groups()
    head = payload[:own]
    folded = head.lower()
    request_id = _value(head, folded, b"\r\nx-request-id: ") if b"x-request-id" in folded else None
    traceparent = _value(head, folded, b"\r\ntraceparent: ") if b"traceparent" in folded else None
    return Facts(
        task_id.decode(), service.decode(), method.decode(), path.decode(), "normal", int(attempt), int(max_attempts),
        float(queued), 0.0, request_id, traceparent,
    )  # fmt: skip


def _value(head: bytes, folded: bytes, name: bytes) -> str | None:
    start = folded.find(name)
    if start < 0:
        return None
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].decode("latin-1")


def _any(payload: bytes, own_id: Callable[[], str]) -> Facts:
    task = reading.read(payload, max_body=len(payload))
    task_id = task.id or own_id()
    if not task_id:
        raise BadMessage("the message has no task's id")
    return Facts(
        task_id, task.service, task.method, task.path, task.priority, task.attempt, task.max_attempts,
        task.queued, task.due, task.header("x-request-id"), task.header("traceparent"),
    )  # fmt: skip

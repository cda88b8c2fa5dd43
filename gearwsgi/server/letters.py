"""The dead letter of a job that was handed out too often without an answer."""

from datetime import UTC, datetime

from ..errors import BadMessage
from ..message import reading
from ..message.model import PRIORITIES
from ..state.spool import Letter
from .jobs import Job

__all__ = ["write_letter"]


def write_letter(job: Job, handle: bytes, reason: str, now: float) -> Letter:
    """The letter. It has its task's id if the payload is a message, which nobody has verified."""
    try:
        task = reading.read(job.data)
    except BadMessage:
        task = None
    fields = {} if task is None else {"id": task.id, "service": task.service, "target": task.target}
    fields |= {
        "queue": job.function.name.decode("utf-8", "surrogateescape"),
        "unique": job.unique.decode("utf-8", "surrogateescape"),
        "priority": PRIORITIES[job.priority],
        "handle": handle.decode(),
        "died": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "attempts": str(job.attempts),
        "reason": reason,
        "trusted": "no",
    }
    return Letter(job.data, fields)

"""From a job's payload to a message that may be replayed. Worker and supervisor open payloads only here. Pure."""

import hashlib
import re
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import BadMessage, BadSignature
from ..message import fields, model, plain, reading, signature
from ..message.followups import queues_of
from ..message.limits import split_queue
from ..settings import Settings


class Grabbed(NamedTuple):
    """A job as the job server has handed it out."""

    handle: bytes
    queue: bytes
    unique: bytes
    payload: bytes
    cut: int = 0
    """Bytes of a payload that was too large to be kept; `payload` then is its beginning. 0: it was kept."""

    @property
    def queue_name(self) -> str:
        """The queue as text."""
        return self.queue.decode("utf-8", "surrogateescape")

    @property
    def base_queue(self) -> str:
        """The queue as text, without a key of limits."""
        return split_queue(self.queue_name)[0]

    @property
    def handle_name(self) -> str:
        """The handle as text."""
        return self.handle.decode("utf-8", "backslashreplace")


def open_payload(job: Grabbed, settings: Settings, now: float, *, trusted: bool = False) -> model.Message:
    """The message in a job, verified where there are keys. A task without an id gets one that is made from the job.

    Args:
        job: what the job server handed out.
        settings: the middleware's.
        now: Unix time.
        trusted: whether it was opened here before.

    Raises:
        BadMessage: it may not run; `BadSignature` where the reason is the signature.
    """
    try:
        return _open(job, settings, now, trusted)
    except BadMessage:
        raise
    except Exception as error:
        # No such error is known. Should one occur, it costs that payload, and no worker process and no supervisor.
        raise BadMessage(f"payload can't be read: {type(error).__name__}") from error


def _open(job: Grabbed, settings: Settings, now: float, trusted: bool) -> model.Message:
    if job.cut:
        raise BadMessage(f"payload of {job.cut} bytes is over max_body={settings.max_body}")
    if plain.is_plain(job.payload):
        if not trusted and not settings.may_be_unsigned(job.queue_name):
            raise BadSignature("no signature: a plain call runs only in a queue that accept_unsigned names")
        return plain.read_plain(
            job.payload, settings.tasks, settings.resolver, id=own_id(job), max_body=settings.max_body
        )
    is_signed = trusted
    if settings.secret_keys and not trusted:
        unsigned_is_fine = settings.may_be_unsigned(job.queue_name) and not signature.is_signed(job.payload)
        if not unsigned_is_fine:
            signature.verify(job.payload, job.queue_name, settings.secret_keys, now, settings.max_age)
            is_signed = True
    found = reading.read(job.payload, max_body=settings.max_body)
    if found.identity and not (is_signed or (not settings.secret_keys and settings.keeps_identities)):
        raise BadSignature("no signature: what is to run as a user runs only signed")
    if settings.secret_keys and not is_signed:
        # The supervisor will sign what follows: so check here that this gives nobody access to another queue.
        for queue in queues_of(found.then, found.on_dead):
            if not settings.may_be_unsigned(queue):
                raise BadSignature(f"no signature: what follows it goes to the queue {queue}, where all is signed")
    return found if found.id else replace(found, id=own_id(job))


def own_id(job: Grabbed) -> str:
    """An id for a job that brings none: the same one if the job server hands it out again."""
    return hashlib.blake2b(b"\0".join((job.handle, job.unique, job.payload)), digest_size=16).hexdigest()


_TASK_ID = re.compile(r"[0-9a-f]{32}")


def is_task_id(text: str) -> bool:
    """Whether it is an id as `task()` makes them, so that it may be a file's name; other ids may be any text."""
    return _TASK_ID.fullmatch(text) is not None


_PLAIN_ID = re.compile(r"[0-9A-Za-z_.-]{1,44}")


def make_unique(task_id: str, attempt: int, again: str = "") -> str:
    """The unique of a task's attempt: `id:attempt`, at most 63 bytes, with `again` where it is queued once more."""
    if not _PLAIN_ID.fullmatch(task_id):
        task_id = hashlib.blake2b(task_id.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return f"{task_id}:{attempt}{again}"


def next_attempt(
    task: model.Message, queue: str, settings: Settings, max_attempts: int, reason: str, at: float, now: float
) -> tuple[model.Message, bytes]:
    """The attempt that follows one of `task` that failed for `reason` at `now`, and its bytes; it is due `at`."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    failure = model.one_line(f"attempt {task.attempt} at {stamp}: {reason}")
    following = replace(
        task,
        attempt=task.attempt + 1,
        max_attempts=max_attempts,
        failures=(*task.failures, failure),
        due=at,
        awaited=None,
    )
    return following, seal(following, queue, settings, at)


def seal(task: model.Message, queue: str, settings: Settings, now: float) -> bytes:
    """The bytes of `task` for this queue, signed where there are keys; `now` is when it is due.

    Raises:
        InvalidTask: it is new, and its head is longer than a worker reads.
    """
    data = task.to_bytes()
    # Only a longer head can have too many lines: each has at least five bytes.
    if task.attempt == 1 and not task.continued and len(data) - len(task.body) > 5 * model.MAX_HEADERS:
        model.check_head(data)
    return signature.sign(data, queue, settings.secret_keys[0], now) if settings.secret_keys else data


@dataclass(slots=True)
class Submission:
    """A background job to be submitted: all that the job server is told.

    Attributes:
        queue: the Gearman function.
        unique: Gearman's coalescing key, which is never empty.
        payload: the message's bytes.
        priority: `high`, `normal` or `low`.
        at: Unix time when it is due; 0: now.
        id: the task's id, for the log.
        sent_to: the job server that it was sent to before, without an answer: it is asked first. Empty: none.
        tries: how often it was sent before; each time the answer is waited for longer.
        recorded: whether its record is written as soon as it is queued.
    """

    queue: str
    unique: str
    payload: bytes
    priority: str = "normal"
    at: float = 0.0
    id: str = ""
    sent_to: str = ""
    tries: int = 0
    recorded: bool = False

    def epoch(self, now: float) -> int | None:
        """The whole second when it is due; None where that is now, or less than half a second away."""
        if self.at - now < 0.5:
            return None
        return int(self.at) + (self.at > int(self.at))


def next_piece(
    task: model.Message,
    queue: str,
    settings: Settings,
    cursor: str,
    progress: tuple[int, int] | None,
    at: float,
    now: float,
) -> Submission:
    """The job that goes on with an attempt of `task` from `cursor`, due `at`.

    Its unique is made from the one before: if a piece runs twice, the second run adds no second job.
    """
    number = task.continued + 1
    due = at if at > now else 0.0
    rest = replace(task, cursor=cursor, continued=number, progress=progress or task.progress, due=due)
    unique = make_unique(task.id, task.attempt, f"+{number}")
    return Submission(queue, unique, seal(rest, queue, settings, at), task.priority, due, task.id)


_AWAITED = fields.find_line(fields.NAMES["awaited"])


def find_awaited(payload: bytes) -> tuple[str, float] | None:
    """`Message.awaited`, of a message that was verified before."""
    found = _AWAITED.search(payload, 0, payload.find(b"\r\n\r\n") + 2)
    value: tuple[str, float] | None = None
    if found is not None:
        value = fields.BY_NAME[fields.NAMES["awaited"].lower()].read(found[1].decode("latin-1").strip())
    return value


_REPLY = fields.find_line(fields.NAMES["wants_reply"])
TICK = f"\r\n{fields.NAMES['scheduled']}: ".encode()
"""The header in which the message of a tick names it, as we write it."""


def can_be_handed_back(payload: bytes) -> bool:
    """Whether a job may be submitted again as a background job: not if somebody may wait for its answer.

    That is so for a `call()`, and for a plain call: only its sender knows whether somebody waits.
    """
    if payload[:1] == b"{":
        return False
    head = payload[: payload.find(b"\r\n\r\n") + 2]
    return b"reply" not in head.lower() or _REPLY.search(head) is None

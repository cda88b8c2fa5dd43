"""From an attempt's outcome to the answer that the job server gets: a job's fate, in one place.

The order is what nothing is lost by: first the next attempt is on the job server (its JOB_CREATED is read) or the
dead letter is on disk, and only then is the old job answered. A crash in between repeats work.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .. import log
from ..app.replay import error_reply
from ..errors import BadMessage, ServerError, SpoolError
from ..message.model import Message
from ..policy import Dead, Done, Outcome, decide
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..wire import packets
from ..wire.payload import Grabbed, Submission, make_unique, next_attempt, open_payload
from .link import Session


@dataclass(slots=True, eq=False)
class Held:
    """A job that this supervisor holds: grabbed, not yet answered.

    Attributes:
        job: as it was handed out.
        session: the connection that grabbed it: only that one may answer.
        grabbed_at: Unix time.
        sequence: its number on its process's pipe.
        since: when it was given to its process, of `time.monotonic`, as are the next.
        started: when it began to run, 0.0 while it lies ahead.
        limit: seconds that it may run, where it was looked up.
        alarm_at: when its process is told, or told again, that its time is over.
        told_at: when it was first told, 0.0 before.
        returned: whether it was queued again, or its connection is gone: it must not run here.
        trusted: whether a worker process has verified it.
    """

    job: Grabbed
    session: Session
    grabbed_at: float
    sequence: int = 0
    since: float = 0.0
    started: float = 0.0
    returned: bool = False
    limit: float | None = None
    alarm_at: float = 0.0
    told_at: float = 0.0
    trusted: bool = False

    @property
    def handle(self) -> str:
        """The job server's handle."""
        return self.job.handle_name

    def complete(self, data: bytes) -> None:
        """Answer WORK_COMPLETE."""
        if not self.session.is_open:
            log.write(self.handle, "done, but its connection to the job server was lost meanwhile: it may run again")
            return
        self.session.send(packets.pack(packets.WORK_COMPLETE, self.job.handle, data))

    def fail(self) -> None:
        """Answer WORK_FAIL: of a background job nobody hears it, a waiting client is told."""
        if self.session.is_open:
            self.session.send(packets.pack(packets.WORK_FAIL, self.job.handle))


class Settler:
    """Settles jobs. What can't be kept on disk just now stays held, and is tried again by `tick`.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dead = DeadLetters(settings)
        self._outbox = Outbox(settings)
        self._undone: deque[tuple[Held, Callable[[], None]]] = deque()
        self._said = ""

    def settle(self, held: Held, outcome: Outcome) -> None:
        """Do with a job whose attempt ended what its outcome asks for."""
        now = time.time()
        try:
            # Its signature was young enough when it came: it does not grow old while the job runs.
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage as error:
            self._make_dead_letter(held, None, str(error), outcome)
            return
        if task.wants_reply:
            status = 504 if outcome.kind == "timeout" else 502
            log.write(held.handle, f"failed {outcome.reason}, id {task.id}; the caller gets {status}")
            held.complete(error_reply(status, outcome.reason))
            return
        limits = self._settings.retry_limits(task)
        fate = decide(outcome, task.attempt, limits, now, target=task.target)
        if isinstance(fate, Done):
            held.complete(b"")
        elif isinstance(fate, Dead):
            self._make_dead_letter(held, task, fate.reason, outcome)
        else:
            self._retry(held, task, fate.at, fate.reason, limits.max_attempts)

    def hand_back(self, held: Held, why: str) -> bool:
        """Queue a job again that was never started, and answer the old one; whether it can be."""
        try:
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage:
            return False
        unique = make_unique(task.id, task.attempt, "~" + secrets.token_hex(3))
        again = Submission(held.job.queue_name, unique, held.job.payload, task.priority, id=task.id)
        self._replace(held, again, f"handed back: {why}, id {task.id}", was_started=False)
        return True

    def tick(self) -> None:
        """Try again what could not be kept on disk."""
        for _ in range(len(self._undone)):
            held, keep = self._undone.popleft()
            self._keep(held, keep)

    def _retry(self, held: Held, task: Message, at: float, reason: str, max_attempts: int) -> None:
        now = time.time()
        queue = held.job.queue_name
        following, payload = next_attempt(task, queue, self._settings, max_attempts, reason, at, now)
        unique = make_unique(task.id, following.attempt)
        submission = Submission(queue, unique, payload, task.priority, at, task.id)
        self._replace(
            held,
            submission,
            f"failed {reason}; attempt {following.attempt} of {max_attempts} in {at - now:.1f} s, id {task.id}",
        )

    def _replace(self, held: Held, submission: Submission, event: str, *, was_started: bool = True) -> None:
        """Submit, and answer the held job when that is safe."""

        def answer(handle: str, error: ServerError | None) -> None:
            if error is not None and error.code == "CONNECTION_LOST" and not was_started:
                # With the connection the job itself is in its queue again: a copy would run beside it.
                log.write(held.handle, f"{error}; id {submission.id} is in its queue again")
            elif error is not None:
                log.write(held.handle, f"{error}; id {submission.id} goes to the outbox")
                self._keep(held, keep)
            else:
                log.write(held.handle, f"{event}, queued as {handle}")
                held.fail()

        def keep() -> None:
            self._outbox.put(submission)
            log.write(held.handle, f"{event}, kept in the outbox")
            held.fail()

        if not held.session.is_open:
            self._keep(held, keep)
            return
        epoch = submission.epoch(time.time())
        packet = packets.pack_submit(
            submission.queue, submission.unique, submission.payload, priority=submission.priority, at=epoch
        )
        held.session.submit(packet, answer)

    def _make_dead_letter(self, held: Held, task: Message | None, reason: str, outcome: Outcome) -> None:
        def keep() -> None:
            letter = self._dead.put(held.job, task, reason, outcome)
            log.write(held.handle, f"dead {reason}, id {letter}")
            held.fail()

        self._keep(held, keep)

    def _keep(self, held: Held, keep: Callable[[], None]) -> None:
        try:
            keep()
        except SpoolError as error:
            # Unanswered, the job stays the job server's to hand out again should this process end.
            if str(error) != self._said:
                self._said = str(error)
                log.write(held.handle, f"waits, held: {error}")
            self._undone.append((held, keep))

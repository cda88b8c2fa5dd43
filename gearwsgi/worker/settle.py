"""From an attempt's outcome to the answer that the job server gets: a job's fate, in one place.

The order is what nothing is lost by: first the next attempt is on the job server (its JOB_CREATED is read) or the
dead letter is on disk, and only then is the old job answered. A crash in between repeats work.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from .. import log
from ..app.replay import error_reply
from ..errors import BadMessage, ServerError, SpoolError
from ..message.model import Message
from ..policy import Dead, Done, GoOnAt, Outcome, RetryAt, decide
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..wire import packets
from ..wire.payload import Submission, make_unique, next_attempt, next_piece, open_payload
from .held import Held
from .recorder import Recorder


class Settler:
    """Settles jobs. What can't be kept on disk just now stays held, and is tried again by `tick`.

    Args:
        settings: the middleware's.
        recorder: is told what becomes of them.
    """

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self._settings = settings
        self.recorder = recorder
        self._dead = DeadLetters(settings)
        self._outbox = Outbox(settings)
        self._undone: deque[tuple[Held, Callable[[], None]]] = deque()
        self._said = ""

    def complete(self, held: Held, data: bytes) -> None:
        """Answer a job that went well with WORK_COMPLETE's data."""
        held.complete(data)
        self.recorder.done(held)

    def settle(self, held: Held, outcome: Outcome) -> None:
        """Do with a job whose attempt ended what its outcome asks for."""
        now = time.time()
        held.ended = time.monotonic()
        try:
            # Its signature was young enough when it came: it does not grow old while the job runs.
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage as error:
            self._make_dead_letter(held, None, str(error), outcome)
            return
        task.queued = task.queued or held.grabbed_at
        if task.wants_reply:
            status = 504 if outcome.kind == "timeout" else 502
            log.write(held.handle, f"failed {outcome.reason}, id {task.id}; the caller gets {status}")
            held.complete(error_reply(status, outcome.reason))
            self.recorder.answered(held, status, outcome.reason)
            return
        limits = self._settings.retry_limits(task)
        fate = decide(outcome, task.attempt, limits, now, target=task.target)
        if isinstance(fate, Done):
            self.complete(held, b"")
        elif isinstance(fate, Dead):
            self._make_dead_letter(held, task, fate.reason, outcome)
        elif isinstance(fate, GoOnAt):
            self._go_on(held, task, outcome.cursor, fate.at)
        else:
            self._retry(held, task, fate, outcome, limits.max_attempts)

    def hand_back(self, held: Held, why: str) -> bool:
        """Queue a job again that was never started, and answer the old one; whether it can be."""
        try:
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage:
            return False
        unique = make_unique(task.id, task.attempt, "~" + secrets.token_hex(3))
        again = Submission(held.job.queue_name, unique, held.job.payload, task.priority, id=task.id)
        self._replace(held, again, f"handed back: {why}, id {task.id}")
        return True

    def tick(self) -> None:
        """Try again what could not be kept on disk."""
        for _ in range(len(self._undone)):
            held, keep = self._undone.popleft()
            self._keep(held, keep)

    def _retry(self, held: Held, task: Message, fate: RetryAt, outcome: Outcome, max_attempts: int) -> None:
        now = time.time()
        queue = held.job.queue_name
        at, reason = fate
        following, payload = next_attempt(task, queue, self._settings, max_attempts, reason, at, now)
        unique = make_unique(task.id, following.attempt)
        submission = Submission(queue, unique, payload, task.priority, at, task.id)
        self._replace(
            held,
            submission,
            f"failed {reason}; attempt {following.attempt} of {max_attempts} in {at - now:.1f} s, id {task.id}",
            partial(self.recorder.retried, held, outcome, reason, at),
        )

    def _go_on(self, held: Held, task: Message, cursor: str, at: float) -> None:
        progress = held.notes.progress if held.notes is not None else None
        now = time.time()
        rest = next_piece(task, held.job.queue_name, self._settings, cursor, progress, at, now)
        event = f"continues in {at - now:.1f} s, id {task.id}" if rest.at else f"continues, id {task.id}"
        self._replace(held, rest, event, partial(self.recorder.continued, held, rest.at))

    def _replace(self, held: Held, submission: Submission, event: str, then: Callable[[], None] | None = None) -> None:
        """Submit, and answer the held job when that is safe; `then` tells of its attempt. None: it was not started."""

        def answer(handle: str, error: ServerError | None) -> None:
            if error is not None and error.code == "CONNECTION_LOST" and then is None:
                # With the connection the job itself is in its queue again: a copy would run beside it.
                log.write(held.handle, f"{error}; id {submission.id} is in its queue again")
            elif error is not None:
                log.write(held.handle, f"{error}; id {submission.id} goes to the outbox")
                self._keep(held, keep)
            else:
                log.write(held.handle, f"{event}, queued as {handle}")
                held.fail()
                if then is not None:
                    then()

        def keep() -> None:
            self._outbox.put(submission)
            log.write(held.handle, f"{event}, kept in the outbox")
            held.fail()
            if then is not None:
                then()

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
            log.write(held.handle, f"dead {reason}, id {letter.id}")
            held.fail()
            self.recorder.dead(held, outcome, reason, letter, trusted=task is not None)

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

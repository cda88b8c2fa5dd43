"""Settles jobs: does what the outcome of an attempt asks for, and only then answers the job server. In one place.

By this order nothing is lost: first the next attempt is on the job server (its JOB_CREATED was read), or the dead
letter is on disk; only then the old job is answered. A crash in between repeats work.
"""

import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..app.replay import error_reply
from ..errors import BadMessage, ServerError, SpoolError
from ..message.model import Message
from ..policy import Dead, Done, GoOnAt, Outcome, RetryAt, decide, succeeded
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..state.records.steering import cancelled
from ..submit.followups import follow
from ..wire import packets
from ..wire.payload import Submission, find_awaited, make_unique, next_attempt, next_piece, open_payload
from .held import Held
from .recorder import Recorder

_STANDS_FOR = {
    "exception": (500, "the request failed"),
    "timeout": (504, "the request took too long"),
    "lost": (502, "the request failed"),
}
"""The response for somebody who waits for one, where the application gave none: as a web server would answer."""


_NOBODY_S = dict.fromkeys(("id", "service", "method", "path", "attempt", "max_attempts", "request_id", "trace_id"))
"""The fields of a message that can't be trusted, all empty: nothing in it is believed."""


class Settler:
    """Settles jobs. A job whose next step can't be written to disk just now stays unanswered; `tick` tries again.

    Args:
        settings: the middleware's.
        recorder: is told what becomes of the jobs.
    """

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self._settings = settings
        self.recorder = recorder
        self._dead = DeadLetters(settings)
        self._outbox = Outbox(settings)
        self._undone: deque[tuple[Held, Callable[[], None]]] = deque()
        self._said = ""

    def complete(self, held: Held, data: bytes) -> None:
        """Answer a job that went well with WORK_COMPLETE's data, once what follows it is queued."""
        payload = held.job.payload
        # Nearly no job is followed by another: look for the header first, which costs less than reading the message.
        if b"gearman-then" in payload[: payload.find(b"\r\n\r\n") + 1].lower().replace(b"_", b"-"):
            following = self._following(held)
            if following is not None:

                def answer() -> None:
                    held.complete(data)
                    self.recorder.done(held)

                self._queue(held, following, f"done, followed by id {following.id}", answer)
                return
        held.complete(data)
        if held.notes is not None:
            self._tell_who_waits(held, find_awaited(held.job.payload), held.notes.response)
        self.recorder.done(held)

    def _following(self, held: Held) -> Submission | None:
        """The task that follows a job which went well; None: none does."""
        try:
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage:
            return None  # its process could read it, so it is a plain call, or a message that nothing can follow
        status = held.notes.status if held.notes is not None else 200
        return None if task.wants_reply else follow(task, self._settings, time.time(), status=status)

    def settle(self, held: Held, outcome: Outcome) -> None:
        """Do with a job, whose attempt has ended, what its outcome asks for."""
        if held.cancelled is not None and self.cancel(held, held.cancelled):
            return
        now = time.time()
        held.ended = time.monotonic()
        try:
            # Verified as of when it came, so that its signature does not get too old while the job runs.
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage as error:
            self._make_dead_letter(held, None, str(error), outcome)
            return
        task.queued = task.queued or held.grabbed_at
        if task.wants_reply:
            status = 504 if outcome.kind == "timeout" else 502
            held.say(
                f"failed {outcome.reason}, id {task.id}; the caller gets {status}",
                level="warning", reason=outcome.reason, status=status,
            )  # fmt: skip
            held.complete(error_reply(status, outcome.reason))
            self.recorder.answered(held, status, outcome.reason)
            return
        if task.awaited is not None and outcome.kind != "continued" and not succeeded(outcome):
            response = held.notes.response if held.notes is not None else b""
            if not response and outcome.kind in _STANDS_FOR:
                response = error_reply(*_STANDS_FOR[outcome.kind])
            self._tell_who_waits(held, task.awaited, response)
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

    def cancel(self, held: Held, by: str) -> bool:
        """Answer a job whose task was cancelled; whether its message could be trusted to be that task's.

        Args:
            held: the job, which has ended, or was not started.
            by: who has cancelled it; empty: that is not known.
        """
        try:
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage:
            return False
        reason = cancelled(by)
        held.say(f"{reason}, id {task.id}", state="cancelled", reason=reason)
        if task.wants_reply:
            held.complete(error_reply(502, reason))
        else:
            held.fail()
        self.recorder.cancelled(held, reason)
        return True

    def hand_back(self, held: Held, why: str, *, at: float = 0.0) -> bool:
        """Queue a job again that was never started, and answer the old one; whether it may be handed back.

        Args:
            held: the job.
            why: the reason, for the log.
            at: Unix time when it is due; 0: at once.
        """
        try:
            task = open_payload(held.job, self._settings, held.grabbed_at, trusted=held.trusted)
        except BadMessage:
            return False
        before = make_unique(task.id, task.attempt)
        unique = held.job.unique.decode("utf-8", "replace")
        mark = unique.removeprefix(before).partition("~")[0] if unique.startswith(before) else ""
        unique = f"{before}{mark}~{secrets.token_hex(3)}"  # the mark stays: it says of what kind the job is
        again = Submission(held.job.queue_name, unique, held.job.payload, task.priority, at, task.id)
        self._replace(held, again, f"handed back: {why}, id {task.id}")
        return True

    def skip(self, held: Held, why: str, *, is_copy: bool = False) -> None:
        """Answer a job that is not to run, as done.

        Args:
            held: the job.
            why: the reason, for log and record.
            is_copy: whether the same task runs from another job server, and has its record.
        """
        held.say(f"skipped {why}")
        held.complete(b"")
        if not is_copy:
            self.recorder.cancelled(held, f"skipped {why}")

    def tick(self) -> None:
        """Try again to write to disk what could not be written."""
        for _ in range(len(self._undone)):
            held, keep = self._undone.popleft()
            self._keep(held, keep)

    def _tell_who_waits(self, held: Held, awaited: tuple[str, float] | None, response: bytes) -> None:
        """Give the response to somebody who waits for it in a web process; empty where it is too long for that.

        Where nobody fetches it, the job server drops it with our connection.
        """
        if awaited is None or time.time() > awaited[1] or not held.session.is_open:
            return
        packet = packets.pack(packets.SUBMIT_JOB, awaited[0].encode(), held.job.unique, response)
        held.session.submit(packet, lambda handle, error: None)

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
            level="warning", state="retrying", reason=reason, status=outcome.status or None,
        )  # fmt: skip

    def _go_on(self, held: Held, task: Message, cursor: str, at: float) -> None:
        progress = held.notes.progress if held.notes is not None else None
        now = time.time()
        rest = next_piece(task, held.job.queue_name, self._settings, cursor, progress, at, now)
        event = f"continues in {at - now:.1f} s, id {task.id}" if rest.at else f"continues, id {task.id}"
        self._replace(held, rest, event, partial(self.recorder.continued, held, rest.at))

    def _replace(
        self, held: Held, submission: Submission, event: str, then: Callable[[], None] | None = None, **fields: Any
    ) -> None:
        """Submit a job in place of the held one, and answer that one when it is safe.

        `then` records the attempt; None: the job was not even started, and is handed back.
        """

        def answer() -> None:
            held.fail()
            if then is not None:
                then()

        self._queue(held, submission, event, answer, is_copy=then is None, **fields)

    def _queue(
        self,
        held: Held,
        submission: Submission,
        event: str,
        answer: Callable[[], None],
        *,
        is_copy: bool = False,
        **fields: Any,
    ) -> None:
        """Submit the job that follows a held one, and call `answer`, which answers the held one, once this is safe.

        Args:
            held: the job.
            submission: the job that follows.
            event: what has become of the held job, for the log.
            answer: answers the held job.
            is_copy: whether what follows is the held job itself, which was not started.
            fields: what a line of JSON says beside the event.
        """

        def told(handle: str, error: ServerError | None) -> None:
            if error is not None and error.code == "CONNECTION_LOST" and is_copy:
                # The held job went back into its queue with the connection: a copy would run beside it.
                held.say(f"{error}; id {submission.id} is in its queue again")
            elif error is not None:
                held.say(f"{error}; id {submission.id} goes to the outbox")
                self._keep(held, keep)
            else:
                held.say(f"{event}, queued as {handle}", **fields)
                answer()

        def keep() -> None:
            self._outbox.put(submission)
            held.say(f"{event}, kept in the outbox", **fields)
            answer()

        if not held.session.is_open:
            self._keep(held, keep)
            return
        epoch = submission.epoch(time.time())
        packet = packets.pack_submit(
            submission.queue, submission.unique, submission.payload, priority=submission.priority, at=epoch
        )
        held.session.submit(packet, told)

    def _make_dead_letter(self, held: Held, task: Message | None, reason: str, outcome: Outcome) -> None:
        def keep() -> None:
            letter = self._dead.put(held.job, task, reason, outcome)
            held.say(
                f"dead {reason}, id {letter.id}",
                level="error", state="dead", reason=reason, status=outcome.status or None,
                **({} if task is not None else _NOBODY_S),
            )  # fmt: skip
            answer = partial(self._fail_for_good, held, outcome, reason, letter, task is not None)
            following = None
            if task is not None:
                following = follow(task, self._settings, time.time(), status=outcome.status, reason=reason)
            if following is None:
                answer()
            else:
                self._queue(held, following, f"dead, followed by id {following.id}", answer)

        self._keep(held, keep)

    def _fail_for_good(self, held: Held, outcome: Outcome, reason: str, letter: tuple[str, str], trusted: bool) -> None:
        held.fail()
        self.recorder.dead(held, outcome, reason, letter, trusted=trusted)

    def _keep(self, held: Held, keep: Callable[[], None]) -> None:
        try:
            keep()
        except SpoolError as error:
            # It stays unanswered, so that the job server hands it out again should this process end.
            if str(error) != self._said:
                self._said = str(error)
                held.say(f"waits, held: {error}")
            self._undone.append((held, keep))

"""The client of a middleware: submits its tasks to the job servers, or to the outbox, and knows what became of them."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from ..errors import GearwsgiError, RecordsUnavailable, ServerError, ServerUnavailable, SpoolError
from ..settings import Settings
from ..state.outbox import Outbox, Relay
from ..wire.payload import Submission
from .servers import Receipt, Servers

if TYPE_CHECKING:
    from ..state.records.model import Record
    from ..state.records.queued import QueuedRecords
    from .deferral.desk import Desk

_log = logging.getLogger("gearwsgi")

_ASKED = 3
"""How often a job server that did not answer is asked whether it has the job, before another one gets it."""


class Records(Protocol):
    """The records, as far as those who ask need them."""

    @property
    def lag(self) -> float:
        """Seconds until what has happened is in the records; 0: it is there at once, so that waiting is of no use."""
        ...

    def find(self, task_id: str) -> "Record":
        """The record with this id, which may be shortened.

        Raises:
            UnknownTask: there is none, or several begin so.
        """
        ...

    def result(self, task_id: str) -> bytes | None:
        """The response that is kept of a task, as a message."""
        ...

    def message(self, task_id: str) -> bytes | None:
        """The message of a task that was queued as `recorded`."""
        ...

    def cancel(self, task: "Record", *, by: str = "") -> str:
        """Cancel a task that has not ended; the state that it had."""
        ...


class Seen(Protocol):
    """What is known of one delivery of a webhook, as far as the inbox needs it."""

    def claim(self) -> bool | None:
        """Claim it: whether it is new, and ours to queue; None where another process is about to queue it."""
        ...

    def keep(self, seconds: float) -> None:
        """Note that it is queued: for so many seconds it counts as seen."""
        ...

    def release(self) -> None:
        """Note that it could not be queued, so that it was not seen."""
        ...


class Client:
    """What a middleware queues with. For any number of threads and forked processes.

    Args:
        settings: the middleware's.

    Attributes:
        settings: as given.
        servers: the job servers.
        outbox: where tasks wait that no job server takes.
        shows_status: whether the middleware answers status addresses.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.servers = Servers(settings)
        self.outbox = Outbox(settings)
        self._relay: Relay | None = None
        self._relay_pid = 0
        self._queued: QueuedRecords | None = None
        self.shows_status = settings.shows_status
        self._desk: Desk | None = None

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Receipt]:
        """Submit background jobs, in one write a job server; what none takes goes to the outbox.

        Args:
            submissions: the jobs.
            meanwhile: of a single one, as `Servers.submit` has it.

        Returns:
            A receipt for each, in order.

        Raises:
            ServerUnavailable: `on_unavailable="raise"`, and no job server answers.
            ServerError: job servers refuse one, and the outbox is off, or no remedy.
            SpoolError: no job server takes one, and the outbox can't be written.

        The attribute `receipts` of each of these has what is queued all the same.
        """
        if self._relay_pid != os.getpid():
            self._start_relay_if_needed()
        if len(submissions) == 1:  # nearly always
            (answer,) = self._submit_or_keep(submissions, meanwhile)
            if isinstance(answer, GearwsgiError):
                raise answer
            return [answer]
        answers = self._submit_all(submissions)
        receipts = [answer for answer in answers if isinstance(answer, Receipt)]
        if len(receipts) < len(answers):
            error = next(answer for answer in answers if isinstance(answer, GearwsgiError))
            error.receipts = [answer if isinstance(answer, Receipt) else None for answer in answers]
            raise error
        return receipts

    def _submit_all(self, submissions: Sequence[Submission]) -> list[Receipt | GearwsgiError]:
        receipts: dict[int, Receipt | GearwsgiError] = {}
        for places in self.servers.batches(submissions):
            batch = [submissions[place] for place in places]
            receipts.update(zip(places, self._submit_or_keep(batch), strict=True))
        return [receipts[place] for place in range(len(submissions))]

    def submit_now(self, submission: Submission) -> str:
        """Submit one, with no outbox behind it.

        Returns:
            Its handle; "" where `sent_to` names a job server that had it already.

        Raises:
            ServerUnavailable: no job server takes it.
            ServerError: each that answers refuses it.
        """
        if submission.sent_to and self._is_known(submission):
            return ""
        (answer,) = self.servers.submit([submission])
        if isinstance(answer, GearwsgiError):
            raise answer
        return answer.handle

    def _is_known(self, submission: Submission) -> bool:
        """Whether the job server that did not answer did take the job."""
        try:
            return self.servers.status("", submission.sent_to, (submission.unique,)).state != "unknown"
        except ServerUnavailable as error:
            if submission.tries < _ASKED:
                error.sent_to = submission.sent_to
                raise
            return False  # it may be gone for good: running twice is better than never

    def _submit_or_keep(
        self, batch: Sequence[Submission], meanwhile: Callable[[], None] | None = None
    ) -> Sequence[Receipt | GearwsgiError]:
        answers: list[Receipt | GearwsgiError] = [*self.servers.submit(batch, meanwhile)]
        for place, answer in enumerate(answers):
            if isinstance(answer, Receipt) or not self._is_for_the_outbox(batch[place], answer):
                continue
            sent_to = answer.sent_to if isinstance(answer, ServerUnavailable) else ""
            try:
                answers[place] = self._keep(replace(batch[place], sent_to=sent_to))
            except SpoolError as error:
                answers[place] = error  # the others may well be kept
        return answers

    def _is_for_the_outbox(self, submission: Submission, error: GearwsgiError) -> bool:
        if isinstance(error, ServerError):
            if error.code == "ARGUMENT_TOO_LARGE":
                return False
            if submission.at > time.time():
                return True  # a job server that has no delayed jobs
        return self.settings.on_unavailable == "outbox"

    def call(self, submission: Submission, timeout: float) -> tuple[str, list[tuple[str, str]], bytes]:
        """Submit a foreground job and wait for its response: status, headers, body.

        Raises:
            CallTimeout, CallFailed, ServerUnavailable: as `Servers.call`.
        """
        return self.servers.call(submission, timeout)

    def close(self) -> None:
        """End the relay, and close idle connections, even those that the relay has used up to its end."""
        if self._relay is not None and self._relay_pid == os.getpid():
            self._relay.stop()
            self._relay = None
        self.servers.close_idle()
        if self._desk is not None:
            self._desk.close()
        if self._queued is not None:
            self._queued.close()

    # -- outbox ------------------------------------------------------------------------------------------------------

    def _keep(self, submission: Submission) -> Receipt:
        self.outbox.put(submission)
        self._start_relay()
        return Receipt("", "")

    def _start_relay_if_needed(self) -> None:
        """Start it, once in each process, if an earlier process has left tasks in the outbox."""
        self._relay_pid = os.getpid()
        self._relay = Relay(self.outbox, self.submit_now, forever=False)
        try:
            left = self.settings.on_unavailable == "outbox" and self.outbox.spool.names()
        except SpoolError as error:
            # This is no reason to refuse a task that a job server takes. One that must be kept will raise it.
            _log.warning("outbox: can't be used: %s", error)
            return
        if left:
            self._relay.start()

    def _start_relay(self) -> None:
        if self._relay is None or self._relay_pid != os.getpid():
            self._start_relay_if_needed()
        assert self._relay is not None
        self._relay.start()

    # -- deferral ----------------------------------------------------------------------------------------------------

    def count_waiting(self, queue: str) -> int:
        """Jobs that wait in a queue of the job servers that answer, and in the outbox."""
        return self.outbox.spool.count() + self.servers.count_waiting(queue)

    def show_status(self) -> None:
        """Have status addresses answered from now on: `defer()` gives one."""
        if not self.shows_status:
            self.shows_status = True
            _log.warning(
                "defer() is used, and the setting status_path is not given: only this process answers its status "
                "addresses; give status_path=%r, so that each process does",
                self.settings.status_path,
            )

    @property
    def desk(self) -> "Desk":
        """The desk of deferral: what its threads share."""
        if self._desk is None:
            from .deferral.desk import Desk  # where it is used

            self._desk = Desk(self)
        return self._desk

    # -- records -----------------------------------------------------------------------------------------------------

    def record(self, submissions: Sequence[Submission]) -> None:
        """Write the records of tasks that are being queued, where records are on. They run all the same."""
        if not self.settings.records:
            return
        if self._queued is None:
            from ..state.records.queued import QueuedRecords  # with its database: only where it is asked for

            self._queued = QueuedRecords(self.settings)
        try:
            self._queued.write(submissions)
        except RecordsUnavailable as error:
            ids = ", ".join(submission.id for submission in submissions[:3])
            _log.warning("records: id %s is not known before it has begun: %s", ids, error)

    def forget(self, submission: Submission) -> None:
        """Remove the record of a task that was not queued after all."""
        if self._queued is None:
            return
        try:
            self._queued.forget(submission)
        except RecordsUnavailable as error:
            _log.warning("records: id %s is not queued, and may be shown as if it were: %s", submission.id, error)

    def open_records(self, *, make: bool = False) -> AbstractContextManager[Records | None]:
        """The records, for one thread, and closed at the end of the block; None where nobody has begun any.

        Args:
            make: begin them then, for something is to be written.

        Raises:
            RecordsUnavailable: they are off, or can't be asked.
        """
        from ..state.records import opening  # with its database: only where it is asked

        return opening.writing(self.settings) if make else opening.reading(self.settings)

    def look_for(self, key: str) -> AbstractContextManager[Seen]:
        """Whether a delivery was seen before, for one thread, and closed at the end of the block.

        Raises:
            RecordsUnavailable: the records are off, or can't be asked; also within the block.
        """
        from ..state.records import seen  # with its database: only where there is an inbox

        return seen.looking(self.settings, key)

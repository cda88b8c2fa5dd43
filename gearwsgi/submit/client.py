"""Submit, call, status: what a web process asks of the job servers. Any number of threads and forked processes."""

import logging
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import (
    CallFailed,
    CallTimeout,
    GearwsgiError,
    ProtocolError,
    RecordsUnavailable,
    ServerError,
    ServerUnavailable,
    SpoolError,
)
from ..message.model import MAX_HEAD
from ..message.response import read_response
from ..settings import Settings
from ..state.outbox import Outbox, Relay
from ..wire import packets
from ..wire.connection import Connection
from ..wire.payload import Submission
from .pool import Server

if TYPE_CHECKING:
    from ..state.records.model import Record
    from ..state.records.queued import QueuedRecords
    from .deferral.desk import Desk

_log = logging.getLogger("gearwsgi")

_ANSWER_FACTOR = 1.5
"""An answer may take this much longer than a connection."""
_RATE = 1_000_000
"""Bytes a second that link and disk of a job server have to manage: an answer may take so much longer."""
_ASKED = 3
"""How often a job server is asked whether it has what it did not answer, before another one gets that."""
_DOUBLED = 5
"""How often these times are doubled where they were not enough."""
_AT_ONCE = 500
"""Jobs of one write: a job server may keep all its answers until it has read the last of them."""
_PER_JOB = 0.02
"""Seconds more for each further job of a write: a queue on disk is slow."""
_PATIENCE = 300.0
"""Seconds that an answer may take for its size, at most."""


class Receipt(NamedTuple):
    """Where a submission is: its handle and job server, or an empty handle in the outbox."""

    handle: str
    server: str


Answer = Receipt | ServerUnavailable | ServerError
"""What became of one submission: where it is, or why a job server doesn't have it, or may not have it."""


def _may_be_asked_elsewhere(answer: Answer) -> bool:
    """Whether another job server may be asked for what this one answered so: the first must not have it."""
    if isinstance(answer, ServerError):
        return answer.code != "ARGUMENT_TOO_LARGE"
    return isinstance(answer, ServerUnavailable) and not answer.sent_to


class Status(str):
    """The state of a task, as text: `queued`, `running`, `running 3 of 10`, `done`, …

    Attributes:
        state: `queued`, `scheduled`, `running`, `retrying`, `done`, `dead`, `cancelled`, `discarded` or `unknown`.
        done: how far it is, of `total`; what its handler reported.
        total: 0 where it reported nothing.
    """

    __slots__ = ("done", "state", "total")

    def __new__(cls, state: str, done: int = 0, total: int = 0) -> "Status":
        status = super().__new__(cls, f"{state} {done} of {total}" if state == "running" and total else state)
        status.state, status.done, status.total = state, done, total
        return status

    state: str
    done: int
    total: int


class Records(Protocol):
    """The records, as who asks them needs them."""

    @property
    def lag(self) -> float:
        """Seconds until what has happened is in them; 0: it is there at once, and to wait brings nothing."""
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
    """What is known of one delivery, as who takes it needs it."""

    def claim(self) -> bool | None:
        """Whether it is new, and ours to queue; None where another is about to."""
        ...

    def keep(self, seconds: float) -> None:
        """It is queued: for so long it was seen."""
        ...

    def release(self) -> None:
        """It could not be queued."""
        ...


class Client:
    """The job servers of one middleware. A connection is used by one thread at a time and kept for the next.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox(settings)
        most = settings.max_body + MAX_HEAD + packets.SMALL  # a response, and the handle of its job
        self._servers = [Server(address, settings.connect_timeout, most) for address in settings.servers]
        self._answer = settings.connect_timeout * _ANSWER_FACTOR
        self._none_answers = f"no job server answers: {', '.join(map(str, settings.servers))}"
        self._relay: Relay | None = None
        self._relay_pid = 0
        self._queued: QueuedRecords | None = None
        self.shows_status = settings.shows_status
        """Whether the middleware answers status addresses."""
        self._desk: Desk | None = None

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit(self, submissions: Sequence[Submission]) -> list[Receipt]:
        """Submit background jobs, in one write a job server; what none takes goes to the outbox.

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
            (answer,) = self._submit_or_keep(self._first_server(submissions[0].unique), submissions)
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
        groups: dict[int, list[int]] = {}
        for place, submission in enumerate(submissions):
            groups.setdefault(self._first_server(submission.unique), []).append(place)
        for first, group in groups.items():
            for start in range(0, len(group), _AT_ONCE):
                places = group[start : start + _AT_ONCE]
                batch = [submissions[place] for place in places]
                receipts.update(zip(places, self._submit_or_keep(first, batch), strict=True))
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
        (answer,) = self._submit_batch(self._first_server(submission.unique), [submission])
        if isinstance(answer, GearwsgiError):
            raise answer
        return answer.handle

    def submit_to(self, server: str, submission: Submission) -> str:
        """Submit one to this very job server, with no other and no outbox behind it; its handle.

        Raises:
            ServerUnavailable: it does not answer.
            ServerError: it refuses it.
        """
        (answer,) = self._exchange(self._named(server)[0], [submission])
        if isinstance(answer, GearwsgiError):
            raise answer
        return answer.handle

    def _named(self, server: str) -> list[Server]:
        """The job server of this name; all of them where none has it."""
        return [each for each in self._servers if each.name == server] or self._servers

    def _is_known(self, submission: Submission) -> bool:
        """Whether the job server that did not answer has the job after all."""
        try:
            return self.status("", submission.sent_to, (submission.unique,)).state != "unknown"
        except ServerUnavailable as error:
            if submission.tries < _ASKED:
                error.sent_to = submission.sent_to
                raise
            return False  # it may be gone for good: twice is better than never

    def _submit_or_keep(self, first: int, batch: Sequence[Submission]) -> list[Receipt | GearwsgiError]:
        found: list[Receipt | GearwsgiError] = []
        for submission, answer in zip(batch, self._submit_batch(first, batch), strict=True):
            if isinstance(answer, Receipt) or not self._is_for_the_outbox(submission, answer):
                found.append(answer)
                continue
            sent_to = answer.sent_to if isinstance(answer, ServerUnavailable) else ""
            try:
                found.append(self._keep(submission._replace(sent_to=sent_to)))
            except SpoolError as error:
                found.append(error)  # the others may well be kept
        return found

    def _is_for_the_outbox(self, submission: Submission, error: GearwsgiError) -> bool:
        if isinstance(error, ServerError):
            if error.code == "ARGUMENT_TOO_LARGE":
                return False
            if submission.at > time.time():
                return True  # a job server that has no delays
        return self.settings.on_unavailable == "outbox"

    def _submit_batch(self, first: int, batch: Sequence[Submission]) -> list[Answer]:
        """A receipt for each, or why no job server has it: the next one is asked for what the one before it refused."""
        answers: list[Answer] = [ServerUnavailable(self._none_answers)] * len(batch)
        left = list(range(len(batch)))
        for server in self._in_order(first):
            for place, answer in zip(left, self._exchange(server, [batch[place] for place in left]), strict=True):
                answers[place] = answer
            left = [place for place in left if _may_be_asked_elsewhere(answers[place])]
            if not left:
                break
        return answers

    def _exchange(self, server: Server, batch: Sequence[Submission]) -> list[Answer]:
        """What one job server answers to each."""
        now = time.time()
        data = b"".join(
            [
                packets.pack_submit(each.queue, each.unique, each.payload, priority=each.priority, at=each.epoch(now))
                for each in batch
            ]
        )
        more = 2 ** min(_DOUBLED, max([each.tries for each in batch]))
        patience = self._answer + min(_PATIENCE, (len(data) / _RATE + _PER_JOB * (len(batch) - 1)) * more)
        connection = server.take()
        reused = connection is not None
        answers: list[Answer] = []
        while True:
            try:
                if connection is None:
                    connection = server.connect()
                connection.send(data, self.settings.connect_timeout * more)
                while len(answers) < len(batch):
                    answers.append(self._created(server, connection, patience))
            except ServerUnavailable as error:
                if connection is not None and isinstance(error.__cause__, TimeoutError):
                    error.sent_to = server.name
                    server.note_silence(reused=reused, size=len(data))
                elif reused:
                    # The job server was started again meanwhile. The same uniques: what it took already, it takes once.
                    connection, reused = None, False
                    answers.clear()
                    continue
                else:
                    server.note_refusal()
                return answers + [error] * (len(batch) - len(answers))
            except ProtocolError as error:
                # No job server's: as if there were none. The next one may be asked, or the outbox.
                server.note_refusal()
                unavailable = ServerUnavailable(f"job server {server.name}: {error}")
                return answers + [unavailable] * (len(batch) - len(answers))
            except BaseException:
                if connection is not None:
                    connection.close()  # an answer is on its way to nobody: a time limit, Ctrl-C
                raise
            server.keep(connection)
            return answers

    @staticmethod
    def _created(server: Server, connection: Connection, patience: float) -> Receipt | ServerError:
        try:
            handle = connection.expect(packets.JOB_CREATED, patience)[0].decode("utf-8", "replace")
        except ServerError as error:
            return error
        return Receipt(handle, server.name)

    # -- connections -------------------------------------------------------------------------------------------------

    def _first_server(self, unique: str) -> int:
        """A unique always goes to the same job server while that one lives, so that it coalesces."""
        return zlib.crc32(unique.encode()) % len(self._servers) if len(self._servers) > 1 else 0

    def _in_order(self, first: int) -> list[Server]:
        now = time.monotonic()
        if len(self._servers) == 1:
            return self._servers if self._servers[0].hung_until <= now else []
        servers = [*self._servers[first:], *self._servers[:first]]
        asked = [server for server in servers if server.hung_until <= now]
        up = [server for server in asked if server.down_until <= now]
        return up or asked

    def close(self) -> None:
        """End the relay, and close what is idle: also what the relay used to its last moment."""
        if self._relay is not None and self._relay_pid == os.getpid():
            self._relay.stop()
            self._relay = None
        for server in self._servers:
            server.close_idle()
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
        """Once in each process: what an earlier one left in the outbox is ours to submit."""
        self._relay_pid = os.getpid()
        self._relay = Relay(self.outbox, self.submit_now, forever=False)
        try:
            left = self.settings.on_unavailable == "outbox" and self.outbox.spool.names()
        except SpoolError as error:
            # No reason to refuse a task that a job server takes; one that has to be kept says it again.
            _log.warning("outbox: can't be used: %s", error)
            return
        if left:
            self._relay.start()

    def _start_relay(self) -> None:
        if self._relay is None or self._relay_pid != os.getpid():
            self._start_relay_if_needed()
        assert self._relay is not None
        self._relay.start()

    # -- call and status ---------------------------------------------------------------------------------------------

    def call(self, submission: Submission, timeout: float) -> tuple[str, list[tuple[str, str]], bytes]:
        """Submit a foreground job and wait for its response: status, headers, body.

        Raises:
            CallTimeout: no response within `timeout` seconds; queued still, the job is dropped.
            CallFailed: the worker refused the message.
            ServerUnavailable: no job server answers, or it was lost while we waited.
        """
        deadline = time.monotonic() + timeout
        packet = packets.pack(
            packets.SUBMIT_FOREGROUND[submission.priority],
            submission.queue.encode(),
            submission.unique.encode(),
            submission.payload,
        )
        trouble: ServerUnavailable | None = None
        for server in self._in_order(self._first_server(submission.unique)):
            handle = b""
            try:
                with server.lent() as connection:
                    connection.send(packet, self.settings.connect_timeout)
                    handle = connection.expect(packets.JOB_CREATED, self._answer + len(packet) / _RATE)[0]
                    return self._wait(connection, handle, deadline, timeout)
            except ServerUnavailable as error:
                if handle:
                    raise  # it may be running
                trouble = error
        raise trouble or ServerUnavailable("no job server answers")

    @staticmethod
    def _wait(
        connection: Connection, handle: bytes, deadline: float, timeout: float
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        while True:
            try:
                kind, parameters = connection.receive(max(0.0, deadline - time.monotonic()))
            except ServerUnavailable as error:
                if isinstance(error.__cause__, TimeoutError):
                    raise CallTimeout(f"no response within {timeout:g} s (job {handle.decode()})") from error
                raise
            if not parameters or parameters[0] != handle:
                raise ProtocolError(f"packet {kind} for another job than {handle.decode()}")
            if kind == packets.WORK_COMPLETE:
                return read_response(parameters[1])
            if kind in (packets.WORK_FAIL, packets.WORK_EXCEPTION):
                raise CallFailed(
                    f"job {handle.decode()} was refused by the worker; `gearwsgi dead list` there says why"
                )

    def status(self, handle: str, server: str, uniques: Sequence[str] = (), *, retries: Sequence[str] = ()) -> Status:
        """What the job servers know of a job, by its handle and by the uniques of its attempts.

        Args:
            handle: the job server's; empty: not known.
            server: only this one is asked; empty: all.
            uniques: of its first attempt.
            retries: of its further attempts; one that waits is `retrying`.

        Raises:
            ServerUnavailable: one that may have it does not answer.
        """
        addresses = self._named(server)
        asked = [packets.pack(packets.GET_STATUS, handle.encode())] if handle else []
        asked += [packets.pack(packets.GET_STATUS_UNIQUE, unique.encode()) for unique in (*uniques, *retries)]
        first = len(asked) - len(retries)
        found = Status("unknown")
        trouble: GearwsgiError | None = None
        for each in addresses:
            try:
                for place, state in enumerate(self._states(each, asked)):
                    if state.state == "running":
                        return state
                    if state.state == "queued":
                        found = state if place < first else Status("retrying")
            except ServerUnavailable as error:
                trouble = error
        if found.state == "unknown" and trouble is not None:
            raise trouble
        return found

    def _states(self, server: Server, asked: list[bytes]) -> list[Status]:
        states = []
        with server.lent() as connection:
            connection.send(b"".join(asked), self.settings.connect_timeout)
            for _ in asked:
                kind, values = connection.receive(self._answer)
                if kind == packets.ERROR:
                    states.append(Status("unknown"))  # a job server that has no GET_STATUS_UNIQUE
                    continue
                if kind not in (packets.STATUS_RES, packets.STATUS_RES_UNIQUE):
                    raise ProtocolError(f"packet {kind} is no status")
                known, running, done, total = (int(value or 0) for value in values[1:5])
                states.append(Status("running" if running else "queued" if known else "unknown", done, total))
        return states

    def find_uniques(self, beginning: str, server: str = "") -> list[str]:
        """The uniques that begin so. Each job server lists all that it has: only for what can't be asked for by name.

        Args:
            beginning: what they begin with.
            server: only this one is asked; empty: all.

        Raises:
            ServerUnavailable: one does not answer.
        """
        found = []
        for each in self._named(server):
            found += [line for line in self._ask(each, "show unique jobs") if line.startswith(beginning)]
        return found

    def count_waiting(self, queue: str) -> int:
        """Jobs that wait in a queue of the job servers that answer, and in the outbox."""
        waiting = self.outbox.spool.count()
        for server in self._in_order(0):
            try:
                lines = self._ask(server, "status")
            except ServerUnavailable:
                continue  # what is meant for it is in the outbox
            for name, total, running, *_ in (line.split("\t") for line in lines):
                if name == queue:
                    waiting += int(total) - int(running)
        return waiting

    def _ask(self, server: Server, command: str) -> list[str]:
        """What a job server answers to a text command."""
        connection = server.connect()
        try:
            return connection.admin(command, self._answer + _PATIENCE)
        finally:
            connection.close()

    # -- deferral ----------------------------------------------------------------------------------------------------

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
        """What deferral knows, and where its threads wait."""
        if self._desk is None:
            from .deferral.desk import Desk  # where it is used

            self._desk = Desk(self)
        return self._desk

    # -- records -----------------------------------------------------------------------------------------------------

    def record(self, submissions: Sequence[Submission]) -> None:
        """Write the records of tasks that have just been queued, where records are on. They run all the same."""
        if not self.settings.records:
            return
        from ..state.records.queued import QueuedRecords  # with its database: only where it is asked for

        if self._queued is None:
            self._queued = QueuedRecords(self.settings)
        try:
            self._queued.write(submissions)
        except RecordsUnavailable as error:
            ids = ", ".join(submission.id for submission in submissions[:3])
            _log.warning("records: id %s is queued, and not known before it has begun: %s", ids, error)

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

"""The job servers of a web process: which one is asked first, what it is asked, and how long its answer may take."""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import CallFailed, CallTimeout, GearwsgiError, ProtocolError, ServerError, ServerUnavailable
from ..message.model import MAX_HEAD
from ..message.response import read_response
from ..settings import Settings
from ..wire import packets
from ..wire.connection import Connection
from ..wire.payload import Submission
from .pool import Server
from .task import Status

_ANSWER_FACTOR = 1.5
"""How much longer an answer may take than a connection."""
_RATE = 1_000_000
"""Bytes a second that the network and a job server's disk must manage; an answer may take longer accordingly."""
_DOUBLED = 5
"""How often these times are doubled, where they were not enough."""
_AT_ONCE = 500
"""Jobs of one write, at most: a job server may hold back its answers until it has read the last job."""
_PER_JOB = 0.02
"""Seconds more for each further job of a write: a queue on disk may be slow."""
_PATIENCE = 300.0
"""Seconds more that an answer may take because of its size, at most."""


@dataclass(slots=True)
class Receipt:
    """Where a submitted job is: its handle and job server; or, with an empty handle, in the outbox."""

    handle: str
    server: str


Answer = Receipt | ServerUnavailable | ServerError
"""What became of one submission: where it is, or why a job server does not have it, or might have it."""


def _may_be_asked_elsewhere(answer: Answer) -> bool:
    """Whether another job server may be asked after this answer: only if the first can't have the job."""
    if isinstance(answer, ServerError):
        return answer.code != "ARGUMENT_TOO_LARGE"
    return isinstance(answer, ServerUnavailable) and not answer.sent_to


class Servers:
    """The job servers of one client. A connection is used by one thread at a time, and kept for the next.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        most = settings.max_body + MAX_HEAD + packets.SMALL  # a response and its job's handle
        self._all = [Server(address, settings.connect_timeout, most) for address in settings.servers]
        self._timeout = settings.connect_timeout
        self._answer = settings.connect_timeout * _ANSWER_FACTOR
        self._none_answers = f"no job server answers: {', '.join(map(str, settings.servers))}"

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        for server in self._all:
            server.close_idle()

    # -- which one ---------------------------------------------------------------------------------------------------

    def _first(self, unique: str) -> int:
        """The number of the job server that a unique goes to first: always the same, so that it coalesces there."""
        return zlib.crc32(unique.encode()) % len(self._all) if len(self._all) > 1 else 0

    def batches(self, submissions: Sequence[Submission]) -> Iterator[list[int]]:
        """The places of those submissions that go to one job server in one write, again and again."""
        groups: dict[int, list[int]] = {}
        for place, submission in enumerate(submissions):
            groups.setdefault(self._first(submission.unique), []).append(place)
        for group in groups.values():
            for start in range(0, len(group), _AT_ONCE):
                yield group[start : start + _AT_ONCE]

    def _in_order(self, unique: str = "") -> list[Server]:
        """Those that are to be asked, the unique's own first."""
        now = time.monotonic()
        if len(self._all) == 1:
            return self._all if self._all[0].hung_until <= now else []
        first = self._first(unique)
        servers = [*self._all[first:], *self._all[:first]]
        asked = [server for server in servers if server.hung_until <= now]
        up = [server for server in asked if server.down_until <= now]
        return up or asked

    def _named(self, server: str) -> list[Server]:
        """The job server of this name; all job servers where none has that name."""
        return [each for each in self._all if each.name == server] or self._all

    # -- submit ------------------------------------------------------------------------------------------------------

    def submit_to(self, server: str, submission: Submission) -> str:
        """Submit one job to this job server; no other one and no outbox is tried. Returns its handle.

        Raises:
            ServerUnavailable: it does not answer.
            ServerError: it refuses it.
        """
        (answer,) = self._exchange(self._named(server)[0], [submission])
        if isinstance(answer, GearwsgiError):
            raise answer
        return answer.handle

    def submit(self, batch: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Answer]:
        """Submit jobs in one write. All are first sent to where the first one's unique belongs (see `batches`).

        Args:
            batch: the jobs.
            meanwhile: called at each job server that is asked, when all is sent and no answer is read yet.

        Returns:
            A receipt for each, or why no job server has it: the next one is asked for what the one before it refused.
        """
        servers = self._in_order(batch[0].unique)
        if not servers:
            return [ServerUnavailable(self._none_answers)] * len(batch)
        answers = self._exchange(servers[0], batch, meanwhile)
        for server in servers[1:]:
            left = [place for place, answer in enumerate(answers) if _may_be_asked_elsewhere(answer)]
            if not left:
                break
            found = self._exchange(server, [batch[place] for place in left], meanwhile)
            for place, answer in zip(left, found, strict=True):
                answers[place] = answer
        return answers

    def _exchange(
        self, server: Server, batch: Sequence[Submission], meanwhile: Callable[[], None] | None = None
    ) -> list[Answer]:
        """What one job server answers to each of the jobs."""
        now = time.time()
        data = b"".join(
            [
                packets.pack_submit(each.queue, each.unique, each.payload, priority=each.priority, at=each.epoch(now))
                for each in batch
            ]
        )
        more = 1
        for each in batch:
            if each.tries:
                more = max(more, 2 ** min(_DOUBLED, each.tries))
        patience = self._answer + min(_PATIENCE, (len(data) / _RATE + _PER_JOB * (len(batch) - 1)) * more)
        connection = server.take()
        reused = connection is not None
        answers: list[Answer] = []
        while True:
            try:
                if connection is None:
                    connection = server.connect()
                connection.send(data, self._timeout * more)
                if meanwhile is not None:
                    meanwhile()
                while len(answers) < len(batch):
                    answers.append(self._created(server, connection, patience))
            except ServerUnavailable as error:
                if connection is not None and isinstance(error.__cause__, TimeoutError):
                    error.sent_to = server.name
                    server.note_silence(reused=reused, size=len(data))
                elif reused:
                    # The job server was started again meanwhile. With the same uniques, it takes no job twice.
                    connection, reused = None, False
                    answers.clear()
                    continue
                else:
                    server.note_refusal()
                return answers + [error] * (len(batch) - len(answers))
            except ProtocolError as error:
                # This is no job server. As if there were none: the next one may be asked, or the outbox.
                server.note_refusal()
                unavailable = ServerUnavailable(f"job server {server.name}: {error}")
                return answers + [unavailable] * (len(batch) - len(answers))
            except BaseException:
                if connection is not None:
                    connection.close()  # nobody will read the answer that is on its way: a time limit, Ctrl-C
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
        for server in self._in_order(submission.unique):
            handle = b""
            try:
                with server.lent() as connection:
                    connection.send(packet, self._timeout)
                    handle = connection.expect(packets.JOB_CREATED, self._answer + len(packet) / _RATE)[0]
                    return self._wait(connection, handle, deadline, timeout)
            except ServerUnavailable as error:
                if handle:
                    raise  # the job may be running
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
            connection.send(b"".join(asked), self._timeout)
            for _ in asked:
                kind, values = connection.receive(self._answer)
                if kind == packets.ERROR:
                    states.append(Status("unknown"))  # a job server without GET_STATUS_UNIQUE
                    continue
                if kind not in (packets.STATUS_RES, packets.STATUS_RES_UNIQUE):
                    raise ProtocolError(f"packet {kind} is no status")
                known, running, done, total = (int(value or 0) for value in values[1:5])
                states.append(Status("running" if running else "queued" if known else "unknown", done, total))
        return states

    def find_uniques(self, beginning: str, server: str = "") -> list[str]:
        """The uniques that begin so. Each job server lists all it has: only for jobs that can't be asked for by name.

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
        """Jobs that wait in a queue of the job servers that answer."""
        waiting = 0
        for server in self._in_order():
            try:
                lines = self._ask(server, "status")
            except ServerUnavailable:
                continue  # its jobs are in the outbox
            for name, total, running, *_ in (line.split("\t") for line in lines):
                if name == queue:
                    waiting += int(total) - int(running)
        return waiting

    def _ask(self, server: Server, command: str) -> list[str]:
        """What a job server answers to a text command, line by line."""
        connection = server.connect()
        try:
            return connection.admin(command, self._answer + _PATIENCE)
        finally:
            connection.close()

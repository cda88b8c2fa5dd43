"""One connection: its requests in, its answers out, never more buffered than a limit."""

import asyncio
import socket
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, cast

from gearman import protocol as numbers

from gearwsgi.server import protocol, text
from gearwsgi.server.jobs import HIGH, LOW, NORMAL, Job, Peer
from gearwsgi.server.protocol import BadBytes, Line, Packet, Reader, TooLarge, answer, error

if TYPE_CHECKING:
    from gearwsgi.server.engine import Server

__all__ = ["Connection"]

OUT_LIMIT = 256 * 1024  # bytes of answers after which a connection's further requests wait until they are sent
FORWARD_LIMIT = 8 * 1024 * 1024  # unread bytes of a client for which a further result is one too many
UNIQUE_LIMIT = 64  # bytes

NOOP = answer(numbers.GEARMAN_COMMAND_NOOP)
NO_JOB = answer(numbers.GEARMAN_COMMAND_NO_JOB)
NOT_FOUND = error("JOB_NOT_FOUND", "Job given in work result not found")
NOT_EXPECTED = error("INVALID_COMMAND", "Command not expected")
TOO_FEW = error("INVALID_PACKET", "Arguments are missing")
BAD_MAGIC = error("INVALID_MAGIC", "Request magic expected")
UNIQUE_TOO_LARGE = error("ARGUMENT_TOO_LARGE", "Unique value too large")
QUEUE_FULL = error("QUEUE_ERROR", "Job queue is full")
UNKNOWN_OPTION = error("UNKNOWN_OPTION", "Server does not recognize given option")

# packet → (priority, whether the client waits for the result)
SUBMITS: dict[int, tuple[int, bool]] = {
    numbers.GEARMAN_COMMAND_SUBMIT_JOB: (NORMAL, True),
    numbers.GEARMAN_COMMAND_SUBMIT_JOB_HIGH: (HIGH, True),
    numbers.GEARMAN_COMMAND_SUBMIT_JOB_LOW: (LOW, True),
    numbers.GEARMAN_COMMAND_SUBMIT_JOB_BG: (NORMAL, False),
    numbers.GEARMAN_COMMAND_SUBMIT_JOB_HIGH_BG: (HIGH, False),
    numbers.GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG: (LOW, False),
    protocol.SUBMIT_JOB_EPOCH: (NORMAL, False),
}


class Connection(Peer, asyncio.Protocol):
    """A client, a worker, or someone who types: all three are the same to Gearman."""

    def __init__(self, server: "Server") -> None:
        super().__init__()
        self.server = server
        self.out: list[bytes] = []
        self.out_size = 0
        self.exceptions = False  # the client asked for WORK_EXCEPTION; else it is told WORK_FAIL
        self.held = False  # it does not read fast enough, so it is not read from
        self.buffered = 0  # what it adds to the server's sum of unfinished requests, in bytes
        self.heard = 0.0  # when its last bytes came, by the loop's clock
        self.complained = False
        self.doomed = False  # to be closed when its answers are out
        self.reader = Reader(server.max_packet)
        self.transport: asyncio.Transport

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.fd: int = raw.fileno()
        self.address = str((transport.get_extra_info("peername") or ["-"])[0])
        self.transport.set_write_buffer_limits(high=OUT_LIMIT)
        self.server.joined(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        self.work()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reader = Reader(0)
        self.server.left(self)

    def pause_writing(self) -> None:
        self.held = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.held = False
        self.transport.resume_reading()
        self.work()

    # Requests

    def work(self) -> None:
        """Handle what was read, as far as the answers' limit lets it."""
        now = time.time()
        try:
            while self.out_size < OUT_LIMIT and not (self.held or self.doomed):
                request = self.reader.next()
                if request is None:
                    break
                self._handle(request, now)
        except BadBytes as problem:
            self.complain(str(problem))
            self.doomed = True
            self.server.dirty.add(self)
        self.server.after(self)

    def send(self, packet: bytes) -> None:
        """Answer; it goes out when what it answers is on disk."""
        self.out.append(packet)
        self.out_size += len(packet)
        self.server.dirty.add(self)

    def forward(self, packet: bytes) -> None:
        """Send what a worker says; a client that does not read loses its connection."""
        if self.out_size + self.transport.get_write_buffer_size() > FORWARD_LIMIT:
            self.complain("it does not read its jobs' results: closed")
            self.transport.abort()
        else:
            self.send(packet)

    def flush(self) -> None:
        """Hand all answers to the socket."""
        out, self.out, self.out_size = self.out, [], 0
        if self.transport.is_closing():
            return
        if len(out) > 1:
            out = [b"".join(out)]
        for packet in out:
            self.transport.write(packet)
        if self.doomed:
            self.transport.close()

    def complain(self, what: str) -> None:
        """Log what is wrong with this connection, once."""
        if not self.complained:
            self.complained = True
            self.server.warn(f"connection from {self.address}: {what}")

    def _handle(self, request: Packet | Line | TooLarge, now: float) -> None:
        if isinstance(request, Packet):
            if not request.magic:
                self.send(BAD_MAGIC)
                return
            kind, args = request.type, request.args
            if kind in SUBMITS:
                self._submit(kind, args, now)
            elif (handler := HANDLERS.get(kind)) is None:
                self.complain(f"packet {kind} is not served")
                self.send(NOT_EXPECTED)
            elif len(args) < REQUIRED.get(kind, protocol.ARGUMENTS[kind]):
                self.send(TOO_FEW)
            else:
                handler(self, kind, args, now)
        elif isinstance(request, Line):
            self.send(text.run(self.server, request.text))
        else:
            self.complain(f"a packet of {request.size} bytes is refused")
            self.send(error("ARGUMENT_TOO_LARGE", f"Packet larger than {self.server.max_packet} bytes"))

    def _submit(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        if len(args) < protocol.ARGUMENTS[kind]:
            self.send(TOO_FEW)
            return
        name, unique, data = args[0], args[1], args[-1]
        if len(unique) > UNIQUE_LIMIT:
            self.send(UNIQUE_TOO_LARGE)
            return
        due = _epoch(args[2]) if kind == protocol.SUBMIT_JOB_EPOCH else 0.0
        priority, waits = SUBMITS[kind]
        client = self if waits else None
        job = self.server.queue.submit(name, unique, data, now=now, priority=priority, client=client, due=due)
        if job is None:
            self.send(QUEUE_FULL)
            return
        if job.durable and not job.stored:
            self.server.created.append((self, len(self.out), job))
        self.send(answer(numbers.GEARMAN_COMMAND_JOB_CREATED, self.server.handle(job)))

    def _can_do(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        limit = inf
        if kind == numbers.GEARMAN_COMMAND_CAN_DO_TIMEOUT:
            limit = _epoch(args[1]) or inf
        self.server.queue.can_do(self, args[0], limit, now)

    def _cant_do(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        self.server.queue.cant_do(self, args[0], now)

    def _reset(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        self.server.queue.reset(self, now)

    def _sleep(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        self.server.queue.sleep(self, now)

    def _name(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        self.name = args[0] or b"-"

    def _echo(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        self.send(answer(numbers.GEARMAN_COMMAND_ECHO_RES, args[0]))

    def _option(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        if args[0] == b"exceptions":
            self.exceptions = True
            self.send(answer(numbers.GEARMAN_COMMAND_OPTION_RES, args[0]))
        else:
            self.send(UNKNOWN_OPTION)

    def _grab(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        job = self.server.queue.grab(self, now)
        if job is None:
            self.send(NO_JOB)
            return
        handle = self.server.handle(job)
        if kind == numbers.GEARMAN_COMMAND_GRAB_JOB:
            self.send(answer(numbers.GEARMAN_COMMAND_JOB_ASSIGN, handle, job.function.name, job.data))
        else:
            packet = numbers.GEARMAN_COMMAND_JOB_ASSIGN_UNIQ
            self.send(answer(packet, handle, job.function.name, job.unique, job.data))

    def _status(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        job = self.server.job(args[0])
        self.send(answer(numbers.GEARMAN_COMMAND_STATUS_RES, args[0], *_state(job)))

    def _status_unique(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        job = self.server.queue.find(args[0])
        clients = b"%d" % len(job.clients or ()) if job else b"0"
        self.send(answer(protocol.STATUS_RES_UNIQUE, args[0], *_state(job), clients))

    # What the worker that holds a job says of it

    def _held(self, handle: bytes) -> Job | None:
        job = self.server.job(handle)
        if job is None or job.worker is not self:
            self.send(NOT_FOUND)
            return None
        return job

    def _progress(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        if (job := self._held(args[0])) is not None:
            self.server.queue.progress(job, args[1], args[2])
            self.server.tell(job.clients or (), answer(kind, *args))

    def _data(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        if (job := self._held(args[0])) is not None:
            self.server.tell(job.clients or (), answer(kind, args[0], *(args[1:] or [b""])))

    def _finish(self, kind: int, args: tuple[bytes, ...], now: float) -> None:
        if (job := self._held(args[0])) is None:
            return
        clients = self.server.queue.remove(job)
        if kind == numbers.GEARMAN_COMMAND_WORK_FAIL:
            self.server.fail(job, clients)
        elif kind == numbers.GEARMAN_COMMAND_WORK_EXCEPTION:
            self.server.fail(job, [client for client in clients if not cast(Connection, client).exceptions])
            clients = [client for client in clients if cast(Connection, client).exceptions]
        if clients and kind != numbers.GEARMAN_COMMAND_WORK_FAIL:
            self.server.tell(clients, answer(kind, args[0], *(args[1:] or [b""])))


def _epoch(digits: bytes) -> float:
    """What gearmand reads: a number it can't read is 0."""
    return float(digits) if digits.isdigit() and len(digits) < 18 else 0.0


def _state(job: Job | None) -> tuple[bytes, bytes, bytes, bytes]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    return b"1", b"1" if job.worker else b"0", job.numerator, job.denominator


Handler = Callable[[Connection, int, tuple[bytes, ...], float], None]

HANDLERS: dict[int, Handler] = {
    numbers.GEARMAN_COMMAND_CAN_DO: Connection._can_do,
    numbers.GEARMAN_COMMAND_CAN_DO_TIMEOUT: Connection._can_do,
    numbers.GEARMAN_COMMAND_CANT_DO: Connection._cant_do,
    numbers.GEARMAN_COMMAND_RESET_ABILITIES: Connection._reset,
    numbers.GEARMAN_COMMAND_PRE_SLEEP: Connection._sleep,
    numbers.GEARMAN_COMMAND_SET_CLIENT_ID: Connection._name,
    numbers.GEARMAN_COMMAND_ECHO_REQ: Connection._echo,
    numbers.GEARMAN_COMMAND_OPTION_REQ: Connection._option,
    numbers.GEARMAN_COMMAND_GRAB_JOB: Connection._grab,
    numbers.GEARMAN_COMMAND_GRAB_JOB_UNIQ: Connection._grab,
    protocol.GRAB_JOB_ALL: Connection._grab,
    numbers.GEARMAN_COMMAND_GET_STATUS: Connection._status,
    protocol.GET_STATUS_UNIQUE: Connection._status_unique,
    numbers.GEARMAN_COMMAND_WORK_STATUS: Connection._progress,
    numbers.GEARMAN_COMMAND_WORK_DATA: Connection._data,
    numbers.GEARMAN_COMMAND_WORK_WARNING: Connection._data,
    numbers.GEARMAN_COMMAND_WORK_COMPLETE: Connection._finish,
    numbers.GEARMAN_COMMAND_WORK_FAIL: Connection._finish,
    numbers.GEARMAN_COMMAND_WORK_EXCEPTION: Connection._finish,
}

# A worker may leave out a result's data, and the NUL before it.
REQUIRED = dict.fromkeys(
    (
        numbers.GEARMAN_COMMAND_WORK_DATA,
        numbers.GEARMAN_COMMAND_WORK_WARNING,
        numbers.GEARMAN_COMMAND_WORK_COMPLETE,
        numbers.GEARMAN_COMMAND_WORK_EXCEPTION,
    ),
    1,
)

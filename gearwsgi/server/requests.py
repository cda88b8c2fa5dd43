"""What each binary request does."""

from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from ..wire import packets
from ..wire.packets import PARAMETERS
from .connection import Connection
from .jobs import HIGH, LOW, NORMAL, Job, Peer
from .protocol import Packet, answer, error, number
from .queues import Queue
from .writer import Writer

__all__ = ["serve"]

UNIQUE_LIMIT = 64  # bytes
FUNCTIONS_LIMIT = 10_000  # that one connection serves
SHORTEST_LIMIT = 1.0  # seconds that a worker's own time limit for a job has at least

NO_JOB = answer(packets.NO_JOB)
NOT_FOUND = error("JOB_NOT_FOUND", "Job given in work result not found")
NOT_EXPECTED = error("INVALID_COMMAND", "Command not expected")
TOO_FEW = error("INVALID_PACKET", "Arguments are missing")
BAD_MAGIC = error("INVALID_MAGIC", "Request magic expected")
UNIQUE_TOO_LARGE = error("ARGUMENT_TOO_LARGE", "Unique value too large")
NAME_TOO_LARGE = error("ARGUMENT_TOO_LARGE", "Function name too large")
QUEUE_FULL = error("QUEUE_ERROR", "Job queue is full")
UNKNOWN_OPTION = error("UNKNOWN_OPTION", "Server does not recognize given option")

# packet → (priority, whether the client waits for the result)
SUBMITS: dict[int, tuple[int, bool]] = {
    packets.SUBMIT_JOB: (NORMAL, True),
    packets.SUBMIT_JOB_HIGH: (HIGH, True),
    packets.SUBMIT_JOB_LOW: (LOW, True),
    packets.SUBMIT_JOB_BG: (NORMAL, False),
    packets.SUBMIT_JOB_HIGH_BG: (HIGH, False),
    packets.SUBMIT_JOB_LOW_BG: (LOW, False),
    packets.SUBMIT_JOB_EPOCH: (NORMAL, False),
}


class Host(Protocol):
    """The server, as far as the requests need it."""

    queue: Queue
    writer: Writer

    def tell(self, clients: Iterable[Peer], packet: bytes) -> None:
        """Send what a worker says of a job to the clients that wait for it."""

    def fail(self, job: Job, clients: Iterable[Peer]) -> None:
        """Tell clients that their job failed."""


Arguments = tuple[bytes, ...]


def serve(host: Host, connection: Connection, request: Packet, now: float) -> None:
    """Do what the request asks, and answer it."""
    kind, args = request.type, request.args
    if not request.magic:
        connection.send(BAD_MAGIC)
    elif (handler := HANDLERS.get(kind)) is None:
        connection.complain(f"packet {kind} is not served")
        connection.send(NOT_EXPECTED)
    elif len(args) < REQUIRED.get(kind, PARAMETERS[kind]):
        connection.send(TOO_FEW)
    else:
        handler(host, connection, kind, args, now)


def _text(argument: bytes) -> bytes:
    """A name or handle that is the last parameter: like a string in C, it ends at the first NUL."""
    return argument.partition(b"\0")[0]


# What clients ask


def _submit(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    name, unique = args[0], args[1]
    if len(unique) > UNIQUE_LIMIT:
        connection.send(UNIQUE_TOO_LARGE)
        return
    if len(name) > packets.SMALL:
        connection.send(NAME_TOO_LARGE)
        return
    due = float(max(0, number(args[2]))) if kind == packets.SUBMIT_JOB_EPOCH else 0.0
    priority, waits = SUBMITS[kind]
    client = connection.peer if waits else None
    job = host.queue.submit(name, unique, args[-1], now=now, priority=priority, client=client, due=due)
    if job is None:
        connection.send(QUEUE_FULL)
        return
    place = connection.send(answer(packets.JOB_CREATED, host.queue.handle(job)))
    if job.durable and not job.stored:
        host.writer.created(connection, place, job)


def _echo(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    connection.send(answer(packets.ECHO_RES, args[0]))


def _option(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if _text(args[0]).lower() == b"exceptions":
        connection.peer.exceptions = True
        connection.send(answer(packets.OPTION_RES, args[0]))
    else:
        connection.send(UNKNOWN_OPTION)


def _status(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    handle = _text(args[0])
    connection.send(answer(packets.STATUS_RES, handle, *_state(host.queue.job(handle))))


def _status_unique(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    unique = _text(args[0])
    job = host.queue.find(unique)
    clients = b"%d" % len(job.clients or ()) if job else b"0"
    connection.send(answer(packets.STATUS_RES_UNIQUE, unique, *_state(job), clients))


def _state(job: Job | None) -> Arguments:
    if job is None:
        return b"0", b"0", b"0", b"0"
    return b"1", b"1" if job.worker else b"0", b"%d" % job.progress[0], b"%d" % job.progress[1]


# What workers say of themselves


def _can_do(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    _serve_function(host, connection, args[0], inf, now)


def _can_do_timeout(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    milliseconds = number(args[1])
    limit = max(milliseconds / 1000, SHORTEST_LIMIT) if milliseconds > 0 else inf
    _serve_function(host, connection, args[0], limit, now)


def _serve_function(host: Host, connection: Connection, name: bytes, limit: float, now: float) -> None:
    functions = connection.peer.functions
    if len(functions) >= FUNCTIONS_LIMIT and name not in functions:
        # No answer to CAN_DO exists in the protocol, and an ERROR would be taken for another request's.
        connection.complain(f"it serves {FUNCTIONS_LIMIT} functions, and gets no jobs of more")
    else:
        host.queue.can_do(connection.peer, name, limit, now)


def _cant_do(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    host.queue.cant_do(connection.peer, args[0], now)


def _reset(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    host.queue.reset(connection.peer, now)


def _sleep(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    host.queue.sleep(connection.peer, now)


def _name(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    connection.peer.name = _text(args[0]) or b"-"


def _grab(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    job = host.queue.grab(connection.peer, now)
    if job is None:
        connection.send(NO_JOB)
        return
    handle = host.queue.handle(job)
    if kind == packets.GRAB_JOB:
        connection.send(answer(packets.JOB_ASSIGN, handle, job.function.name, job.data))
    else:
        connection.send(answer(packets.JOB_ASSIGN_UNIQ, handle, job.function.name, job.unique, job.data))


# What the worker that was handed a job says of it


def _job_of(host: Host, connection: Connection, handle: bytes) -> Job | None:
    job = host.queue.job(handle)
    if job is None or job.worker is not connection.peer:
        connection.send(NOT_FOUND)
        return None
    return job


def _progress(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if (job := _job_of(host, connection, args[0])) is not None:
        job.progress = number(args[1]) & 0xFFFFFFFF, number(args[2]) & 0xFFFFFFFF
        host.tell(job.clients or (), answer(kind, *args))


def _data(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if (job := _job_of(host, connection, args[0])) is not None:
        host.tell(job.clients or (), answer(kind, args[0], *(args[1:] or [b""])))


def _complete(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if (job := _job_of(host, connection, args[0])) is not None:
        clients = host.queue.remove(job)
        if clients:
            host.tell(clients, answer(kind, args[0], *(args[1:] or [b""])))


def _fail(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if (job := _job_of(host, connection, _text(args[0]))) is not None:
        host.fail(job, host.queue.remove(job))


def _exception(host: Host, connection: Connection, kind: int, args: Arguments, now: float) -> None:
    if (job := _job_of(host, connection, args[0])) is not None:
        clients = host.queue.remove(job)
        host.fail(job, [client for client in clients if not client.exceptions])
        host.tell([client for client in clients if client.exceptions], answer(kind, args[0], *(args[1:] or [b""])))


Handler = Callable[[Host, Connection, int, Arguments, float], None]

HANDLERS: dict[int, Handler] = {
    **dict.fromkeys(SUBMITS, _submit),
    packets.ECHO_REQ: _echo,
    packets.OPTION_REQ: _option,
    packets.GET_STATUS: _status,
    packets.GET_STATUS_UNIQUE: _status_unique,
    packets.CAN_DO: _can_do,
    packets.CAN_DO_TIMEOUT: _can_do_timeout,
    packets.CANT_DO: _cant_do,
    packets.RESET_ABILITIES: _reset,
    packets.PRE_SLEEP: _sleep,
    packets.SET_CLIENT_ID: _name,
    packets.GRAB_JOB: _grab,
    packets.GRAB_JOB_UNIQ: _grab,
    packets.GRAB_JOB_ALL: _grab,
    packets.WORK_STATUS: _progress,
    packets.WORK_DATA: _data,
    packets.WORK_WARNING: _data,
    packets.WORK_COMPLETE: _complete,
    packets.WORK_FAIL: _fail,
    packets.WORK_EXCEPTION: _exception,
}

# A worker may leave out a result's data, and the NUL before it.
REQUIRED = dict.fromkeys((packets.WORK_DATA, packets.WORK_WARNING, packets.WORK_COMPLETE, packets.WORK_EXCEPTION), 1)

"""Gearman's packets: written, and read as they come. Pure."""

import struct
from collections.abc import Iterator

from gearman import protocol

from ..errors import ProtocolError, ServerError

# All packets that client, worker or server know; the numbers are Gearman's.
CAN_DO: int = protocol.GEARMAN_COMMAND_CAN_DO
CANT_DO: int = protocol.GEARMAN_COMMAND_CANT_DO
RESET_ABILITIES: int = protocol.GEARMAN_COMMAND_RESET_ABILITIES
PRE_SLEEP: int = protocol.GEARMAN_COMMAND_PRE_SLEEP
NOOP: int = protocol.GEARMAN_COMMAND_NOOP
SUBMIT_JOB: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB
JOB_CREATED: int = protocol.GEARMAN_COMMAND_JOB_CREATED
GRAB_JOB: int = protocol.GEARMAN_COMMAND_GRAB_JOB
NO_JOB: int = protocol.GEARMAN_COMMAND_NO_JOB
JOB_ASSIGN: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN
WORK_STATUS: int = protocol.GEARMAN_COMMAND_WORK_STATUS
WORK_COMPLETE: int = protocol.GEARMAN_COMMAND_WORK_COMPLETE
WORK_FAIL: int = protocol.GEARMAN_COMMAND_WORK_FAIL
GET_STATUS: int = protocol.GEARMAN_COMMAND_GET_STATUS
ECHO_REQ: int = protocol.GEARMAN_COMMAND_ECHO_REQ
ECHO_RES: int = protocol.GEARMAN_COMMAND_ECHO_RES
SUBMIT_JOB_BG: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB_BG
ERROR: int = protocol.GEARMAN_COMMAND_ERROR
STATUS_RES: int = protocol.GEARMAN_COMMAND_STATUS_RES
SUBMIT_JOB_HIGH: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH
SET_CLIENT_ID: int = protocol.GEARMAN_COMMAND_SET_CLIENT_ID
CAN_DO_TIMEOUT: int = protocol.GEARMAN_COMMAND_CAN_DO_TIMEOUT
WORK_EXCEPTION: int = protocol.GEARMAN_COMMAND_WORK_EXCEPTION
OPTION_REQ: int = protocol.GEARMAN_COMMAND_OPTION_REQ
OPTION_RES: int = protocol.GEARMAN_COMMAND_OPTION_RES
WORK_DATA: int = protocol.GEARMAN_COMMAND_WORK_DATA
WORK_WARNING: int = protocol.GEARMAN_COMMAND_WORK_WARNING
GRAB_JOB_UNIQ: int = protocol.GEARMAN_COMMAND_GRAB_JOB_UNIQ
JOB_ASSIGN_UNIQ: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN_UNIQ
SUBMIT_JOB_HIGH_BG: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH_BG
SUBMIT_JOB_LOW: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW
SUBMIT_JOB_LOW_BG: int = protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG
# From Gearman's PROTOCOL document, "Binary Protocol Types"; pygearman does not have these.
SUBMIT_JOB_EPOCH = 36
GRAB_JOB_ALL = 39
GET_STATUS_UNIQUE = 41
STATUS_RES_UNIQUE = 42

SUBMIT_BACKGROUND: dict[str, int] = {"normal": SUBMIT_JOB_BG, "high": SUBMIT_JOB_HIGH_BG, "low": SUBMIT_JOB_LOW_BG}

SUBMIT_FOREGROUND: dict[str, int] = {"normal": SUBMIT_JOB, "high": SUBMIT_JOB_HIGH, "low": SUBMIT_JOB_LOW}

PARAMETERS: dict[int, int] = {
    **{kind: len(names) for kind, names in protocol.GEARMAN_PARAMS_FOR_COMMAND.items()},
    SUBMIT_JOB_EPOCH: 4,
    GRAB_JOB_ALL: 0,
    GET_STATUS_UNIQUE: 1,
    STATUS_RES_UNIQUE: 6,
}
"""How many parameters each packet has; the last one may hold NULs."""

LARGE = frozenset(
    (
        *SUBMIT_BACKGROUND.values(), *SUBMIT_FOREGROUND.values(), SUBMIT_JOB_EPOCH, JOB_ASSIGN, JOB_ASSIGN_UNIQ,
        WORK_COMPLETE, WORK_DATA, WORK_WARNING, WORK_EXCEPTION, ECHO_REQ, ECHO_RES,
    )
)  # fmt: skip
"""The packets that carry somebody's data. All others have names, handles and numbers, together at most SMALL bytes."""

SMALL = 8192

HEADER = struct.Struct("!4sII")

REQUEST: bytes = protocol.MAGIC_REQ_STRING

ANSWER: bytes = protocol.MAGIC_RES_STRING

MAX_PACKET = 1 << 30
"""Bytes that an answer with data may announce; with more it is not Gearman's."""

JOB_TOO_LARGE = -1
"""No packet of Gearman's. It stands for a JOB_ASSIGN_UNIQ with a payload too large to be kept; a further parameter has
its size."""

_KEPT = 64 * 1024
"""Bytes that are kept of such a payload, to see where it came from."""


def pack(kind: int, *parameters: bytes) -> bytes:
    """One request packet."""
    body = b"\0".join(parameters)
    return HEADER.pack(REQUEST, kind, len(body)) + body


def pack_submit(queue: str, unique: str, payload: bytes, *, priority: str = "normal", at: int | None = None) -> bytes:
    """The packet that submits a background job, due at the Unix time `at` where that is given.

    gearmand has no delayed jobs with a priority: `at` makes it a normal one.
    """
    if at is None:
        return pack(SUBMIT_BACKGROUND[priority], queue.encode(), unique.encode(), payload)
    return pack(SUBMIT_JOB_EPOCH, queue.encode(), unique.encode(), b"%d" % at, payload)


class PacketReader:
    """Bytes in, packets out; keeps what is not yet whole. No I/O.

    Args:
        max_job: bytes that a job which is handed out may have. Anyone can queue one of a gigabyte: a larger one is not
            kept, and comes as JOB_TOO_LARGE. Other packets with data may have as many; those without, `SMALL` bytes.
    """

    def __init__(self, max_job: int = MAX_PACKET) -> None:
        self._buffer = bytearray()
        self._max_job = max_job
        self._max_data = max(max_job, _KEPT)
        self._skip = 0
        self._skipped: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[tuple[int, list[bytes]]]:
        """The packets that `data` completes: (type, parameters).

        Raises:
            ProtocolError: the bytes are not Gearman's, or announce more than such a packet can have.
        """
        if self._skip:
            length = len(data)
            data = data[self._skip :]
            self._skip -= length - len(data)
            if self._skip:
                return
            yield JOB_TOO_LARGE, self._skipped
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        start, length = 0, len(buffer)
        while length - start >= 12:
            magic, kind, size = HEADER.unpack_from(buffer, start)
            end = start + 12 + size
            if size > self._max_job and magic == ANSWER and kind == JOB_ASSIGN_UNIQ and size > _KEPT:
                if length - start < 12 + _KEPT:
                    break
                self._skipped = [*_split(kind, bytes(buffer[start + 12 : start + 12 + _KEPT])), b"%d" % size]
                start = min(end, length)
                self._skip = end - start
                if not self._skip:
                    yield JOB_TOO_LARGE, self._skipped
                continue
            if magic != ANSWER:
                raise ProtocolError(f"not Gearman's protocol: {bytes(buffer[start : start + 12])!r}")
            limit = self._max_data if kind in LARGE else SMALL
            if size > limit:
                raise ProtocolError(f"packet {kind} of {size} bytes, where {limit} are the limit")
            if length < end:
                break
            body = data[start + 12 : end] if buffer is data else _copy(self._buffer, start + 12, end)
            start = end
            yield kind, _split(kind, body)
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < length:
            self._buffer += buffer[start:]


def _copy(buffer: bytearray, start: int, end: int) -> bytes:
    with memoryview(buffer) as view:  # a slice of the buffer itself would be a second copy
        return bytes(view[start:end])


def _split(kind: int, body: bytes) -> list[bytes]:
    count = PARAMETERS.get(kind, 1)
    parameters = body.split(b"\0", count - 1) if count else []
    if len(parameters) < count and kind != ERROR:
        raise ProtocolError(f"packet {kind} has {len(parameters)} parameters instead of {count}")
    return parameters


def parse_error(parameters: list[bytes], server: str = "") -> ServerError:
    """The exception for an ERROR packet."""
    code, text = [*parameters, b""][:2]
    return ServerError(code.decode("ascii", "replace"), text.decode("utf-8", "replace"), server)

"""Gearman's packets: written, and read as they come. Pure."""

import struct
from collections.abc import Iterator

from gearman import protocol

from ..errors import ProtocolError, ServerError

CAN_DO: int = protocol.GEARMAN_COMMAND_CAN_DO

SET_CLIENT_ID: int = protocol.GEARMAN_COMMAND_SET_CLIENT_ID

PRE_SLEEP: int = protocol.GEARMAN_COMMAND_PRE_SLEEP

NOOP: int = protocol.GEARMAN_COMMAND_NOOP

GRAB_JOB_UNIQ: int = protocol.GEARMAN_COMMAND_GRAB_JOB_UNIQ

NO_JOB: int = protocol.GEARMAN_COMMAND_NO_JOB

JOB_ASSIGN: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN

JOB_ASSIGN_UNIQ: int = protocol.GEARMAN_COMMAND_JOB_ASSIGN_UNIQ

JOB_CREATED: int = protocol.GEARMAN_COMMAND_JOB_CREATED

WORK_STATUS: int = protocol.GEARMAN_COMMAND_WORK_STATUS

WORK_COMPLETE: int = protocol.GEARMAN_COMMAND_WORK_COMPLETE

WORK_FAIL: int = protocol.GEARMAN_COMMAND_WORK_FAIL

WORK_EXCEPTION: int = protocol.GEARMAN_COMMAND_WORK_EXCEPTION

GET_STATUS: int = protocol.GEARMAN_COMMAND_GET_STATUS

STATUS_RES: int = protocol.GEARMAN_COMMAND_STATUS_RES

ECHO_REQ: int = protocol.GEARMAN_COMMAND_ECHO_REQ

ECHO_RES: int = protocol.GEARMAN_COMMAND_ECHO_RES

ERROR: int = protocol.GEARMAN_COMMAND_ERROR

# Gearman's PROTOCOL document, "Binary Protocol Types"; pygearman has none of these.
SUBMIT_JOB_EPOCH = 36

GET_STATUS_UNIQUE = 41

STATUS_RES_UNIQUE = 42

SUBMIT_BACKGROUND: dict[str, int] = {
    "normal": protocol.GEARMAN_COMMAND_SUBMIT_JOB_BG,
    "high": protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH_BG,
    "low": protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW_BG,
}

SUBMIT_FOREGROUND: dict[str, int] = {
    "normal": protocol.GEARMAN_COMMAND_SUBMIT_JOB,
    "high": protocol.GEARMAN_COMMAND_SUBMIT_JOB_HIGH,
    "low": protocol.GEARMAN_COMMAND_SUBMIT_JOB_LOW,
}

_HEADER = struct.Struct("!4sII")

_REQ: bytes = protocol.MAGIC_REQ_STRING

_RES: bytes = protocol.MAGIC_RES_STRING

_PARAMETERS: dict[int, int] = {
    **{kind: len(names) for kind, names in protocol.GEARMAN_PARAMS_FOR_COMMAND.items()},
    STATUS_RES_UNIQUE: 6,
}

MAX_PACKET = 1 << 30
"""Bytes that an answer may announce; more is not Gearman."""

JOB_TOO_LARGE = -1
"""No packet of Gearman's: a JOB_ASSIGN_UNIQ whose payload was not kept; its size is one parameter more."""

_KEPT = 64 * 1024
"""Bytes that are kept of such a job, for whoever looks where it came from."""


def pack(kind: int, *parameters: bytes) -> bytes:
    """One request packet."""
    body = b"\0".join(parameters)
    return _HEADER.pack(_REQ, kind, len(body)) + body


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
            kept, and comes as JOB_TOO_LARGE.
    """

    def __init__(self, max_job: int = MAX_PACKET) -> None:
        self._buffer = bytearray()
        self._max_job = max_job
        self._skip = 0
        self._skipped: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[tuple[int, list[bytes]]]:
        """The packets that `data` completes: (type, parameters).

        Raises:
            ProtocolError: the bytes are not Gearman's, or announce more than `MAX_PACKET`.
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
            magic, kind, size = _HEADER.unpack_from(buffer, start)
            end = start + 12 + size
            if size > self._max_job and magic == _RES and kind == JOB_ASSIGN_UNIQ and size > _KEPT:
                if length - start < 12 + _KEPT:
                    break
                self._skipped = [*_split(kind, bytes(buffer[start + 12 : start + 12 + _KEPT])), b"%d" % size]
                start = min(end, length)
                self._skip = end - start
                if not self._skip:
                    yield JOB_TOO_LARGE, self._skipped
                continue
            if magic != _RES or size > MAX_PACKET:
                raise ProtocolError(f"not Gearman's protocol: {bytes(buffer[start : start + 12])!r}")
            if length < end:
                break
            body = bytes(buffer[start + 12 : end])
            start = end
            yield kind, _split(kind, body)
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < length:
            self._buffer += buffer[start:]


def _split(kind: int, body: bytes) -> list[bytes]:
    count = _PARAMETERS.get(kind, 1)
    parameters = body.split(b"\0", count - 1) if count else []
    if len(parameters) < count and kind != ERROR:
        raise ProtocolError(f"packet {kind} has {len(parameters)} parameters instead of {count}")
    return parameters


def parse_error(parameters: list[bytes], server: str = "") -> ServerError:
    """The exception for an ERROR packet."""
    code, text = [*parameters, b""][:2]
    return ServerError(code.decode("ascii", "replace"), text.decode("utf-8", "replace"), server)

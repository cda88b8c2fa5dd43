"""Gearman's wire format as the server needs it: from bytes to requests, from answers to bytes. No I/O."""

import re
from typing import NamedTuple

from ..wire import packets
from ..wire.packets import ANSWER, HEADER, PARAMETERS, REQUEST, SMALL

__all__ = ["BadBytes", "Line", "Packet", "Reader", "Request", "TooLarge", "answer", "error", "number"]

MAX_PACKET = 64 * 1024 * 1024 + 128 * 1024  # a body of 64 MB, and room for its head
LARGE = 64 * 1024  # bytes of a body that is worth the care not to copy it twice
LINE_LIMIT = 8192  # bytes of one text command
INT64 = 2**63 - 1
NUMBER = re.compile(rb"[ \t\n\v\f\r]*([+-]?[0-9]{1,4000})")  # int() takes no more digits


class BadBytes(Exception):
    """What follows can't be divided into requests: the connection is of no more use."""


class Packet(NamedTuple):
    """One binary request.

    Attributes:
        type: the number of the packet, which may be one that Gearman does not have.
        args: its parameters: as many as `PARAMETERS` says, or fewer where the sender left some out; none for an unknown
            type.
        magic: whether the packet began with `\\0REQ`, as a request must (else it began with `\\0RES`).
    """

    type: int
    args: tuple[bytes, ...]
    magic: bool = True


class Line(NamedTuple):
    """One text command, without its line end."""

    text: bytes


class TooLarge(NamedTuple):
    """A packet above the limit for its type, which was announced; its bytes are thrown away as they come."""

    size: int
    limit: int


Request = Packet | Line | TooLarge


class Reader:
    """Takes bytes as they come, and gives requests, binary and text mixed. Holds at most one unfinished request.

    Args:
        max_packet: the largest body of a packet with data that is kept, in bytes. Names and handles have less room.
    """

    def __init__(self, max_packet: int) -> None:
        self.max_packet = max_packet
        self._buffer: bytes | bytearray = b""
        self._at = 0  # where the next request begins in the buffer
        self._need = 1  # bytes of the buffer from there without which there is nothing to parse
        self._skip = 0  # bytes of a refused packet still to come

    @property
    def pending(self) -> int:
        """Bytes that were taken and not parsed yet."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Add what came from the socket."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._at == len(self._buffer):
            self._buffer, self._at = data, 0  # the usual case: whole requests, parsed where they are
            return
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(memoryview(self._buffer)[self._at :])
        elif self._at:
            del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    def next(self) -> Request | None:
        """The next whole request, or None until more bytes come.

        Raises:
            BadBytes: the stream makes no sense from here on.
        """
        have = len(self._buffer) - self._at
        if have < self._need or not have:
            return None
        request = self._packet(have) if self._buffer[self._at] == 0 else self._line(have)
        if request is not None:
            self._need = 1
            if self._at == len(self._buffer):
                self._buffer, self._at = b"", 0  # a large buffer is given back at once
        return request

    def _packet(self, have: int) -> Request | None:
        start = self._at + HEADER.size
        if have < HEADER.size:
            if not REQUEST.startswith(head := bytes(self._buffer[self._at : self._at + 4])) and not (
                ANSWER.startswith(head)
            ):
                raise BadBytes(f"no packet of Gearman's begins with {head!r}")
            self._need = have + 1
            return None
        magic, kind, size = HEADER.unpack_from(self._buffer, self._at)
        if magic not in (REQUEST, ANSWER):
            raise BadBytes(f"no packet of Gearman's begins with {magic!r}")
        end = start + size
        limit = self.max_packet if kind in packets.LARGE else SMALL
        if size > limit:
            self._skip = max(0, end - len(self._buffer))
            self._at = min(end, len(self._buffer))
            return TooLarge(size, limit)
        if have < HEADER.size + size:
            self._need = HEADER.size + size
            return None
        self._at = end
        return Packet(kind, self._arguments(kind, start, end), magic == REQUEST)

    def _arguments(self, kind: int, start: int, end: int) -> tuple[bytes, ...]:
        buffer, count = self._buffer, PARAMETERS.get(kind, 0)
        if not count:
            return ()
        if end - start < LARGE:
            return tuple(bytes(buffer[start:end]).split(b"\0", count - 1))
        found: list[bytes] = []
        with memoryview(buffer) as view:  # a large body is copied once
            for _ in range(count - 1):
                cut = buffer.find(0, start, end)
                if cut < 0:
                    break
                found.append(bytes(view[start:cut]))
                start = cut + 1
            found.append(bytes(view[start:end]))
        return tuple(found)

    def _line(self, have: int) -> Line | None:
        cut = self._buffer.find(b"\n", self._at + self._need - 1, self._at + LINE_LIMIT)
        if cut < 0:
            if have >= LINE_LIMIT:
                raise BadBytes(f"a line of more than {LINE_LIMIT} bytes, or bytes that are neither text nor packets")
            self._need = have + 1  # what was searched is not searched again
            return None
        line = bytes(self._buffer[self._at : cut])
        self._at = cut + 1
        return Line(line.removesuffix(b"\r"))


def answer(kind: int, *args: bytes) -> bytes:
    """An answer packet; only the last argument may hold NULs."""
    body = b"\0".join(args)
    return HEADER.pack(ANSWER, kind, len(body)) + body


def error(code: str, text: str) -> bytes:
    """An ERROR packet with one of gearmand's codes, such as `QUEUE_ERROR`."""
    return answer(packets.ERROR, code.encode(), text.encode())


def number(text: bytes) -> int:
    """The number at the beginning of `text`, as C's `strtol`, and so gearmand, reads it; 0 where there is none."""
    found = NUMBER.match(text)
    return max(-INT64 - 1, min(int(found[1]), INT64)) if found else 0

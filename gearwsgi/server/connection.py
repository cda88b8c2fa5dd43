"""One connection: requests come in, answers go out, and no more than a limit is buffered.

    open -- its answers are not read --> paused -- they are read --> open
     |                                    |
     |-- the queue is being loaded --> waiting -- it is loaded --> open, or paused
     |
     '-- its bytes make no sense, or the server ends --> closing: closed when its answers are out

Only an open one is read from. A connection may be a client, a worker, somebody who types commands, or all of these.
"""

import asyncio
import time
from enum import Enum, auto
from typing import Protocol, cast

from ..wire.connection import keep_alive
from .jobs import Peer
from .protocol import BadBytes, Reader, Request

__all__ = ["Connection", "Host"]

OUT_LIMIT = 256 * 1024  # bytes of answers after which a connection's further requests wait until they are sent
FORWARD_LIMIT = 8 * 1024 * 1024  # unread bytes of a client for which a further result is one too many
TURN = 0.05  # seconds of requests after which it is the others' turn


class State(Enum):
    """The states of a connection: see the module."""

    OPEN = auto()
    PAUSED = auto()
    WAITING = auto()
    CLOSING = auto()


OPEN, PAUSED, WAITING, CLOSING = State


class Host(Protocol):
    """The server, as far as a connection needs it."""

    def joined(self, connection: "Connection") -> None:
        """A connection was accepted."""

    def left(self, connection: "Connection") -> None:
        """A connection is gone."""

    def serve(self, connection: "Connection", request: Request, now: float) -> None:
        """Do what a request asks, or have it wait."""

    def after(self, connection: "Connection") -> None:
        """All requests that were read are handled: see to what follows from them."""

    def on_answers(self, connection: "Connection") -> None:
        """The connection has answers that are to be sent."""

    def warn(self, what: str) -> None:
        """Log trouble that a peer causes."""


class Connection(asyncio.Protocol):
    """A connection of the server: see the module for its states.

    Attributes:
        peer: what the queue knows of it.
        pending: bytes of requests that are not handled yet, as the server has counted them.
        heard: when its last bytes came, by the loop's clock.
    """

    def __init__(self, host: Host, max_packet: int) -> None:
        self.peer = Peer(self)
        self.address = "-"
        self.fd = -1
        self.pending = 0
        self.heard = 0.0
        self.reader = Reader(max_packet)
        self._host = host
        self._state = OPEN
        self._out: list[bytes] = []
        self._out_size = 0
        self._again: asyncio.Handle | None = None
        self._kept: Request | None = None  # the one that waits
        self._complained = False
        self._transport: asyncio.Transport

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        keep_alive(raw)
        self.fd = raw.fileno()
        self.address = str((transport.get_extra_info("peername") or ["-"])[0])
        self._transport.set_write_buffer_limits(high=OUT_LIMIT)
        self._host.joined(self)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reader = Reader(0)
        self._kept = None
        if self._again is not None:
            self._again.cancel()
        self._host.left(self)

    def pause_writing(self) -> None:
        if self._state is OPEN:
            self._state = PAUSED
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._state is PAUSED:
            self._state = OPEN
            self._work()

    # Requests

    def _work(self) -> None:
        """Handle what was read, within the limits of a turn; read on once all of it is handled."""
        now, end = time.time(), time.monotonic() + TURN
        try:
            while self._state is OPEN:
                if self._out_size >= OUT_LIMIT or time.monotonic() > end:
                    self._transport.pause_reading()
                    self._work_soon()
                    break
                request = self.reader.next()
                if request is None:
                    self._transport.resume_reading()
                    break
                self._host.serve(self, request, now)
        except BadBytes as problem:
            self.complain(str(problem))
            self._state = CLOSING
            self._host.on_answers(self)
        self._host.after(self)

    def _work_soon(self) -> None:
        if self._again is None:
            self._again = asyncio.get_running_loop().call_soon(self._work_again)

    def _work_again(self) -> None:
        self._again = None
        self._work()

    def wait(self, request: Request) -> None:
        """Keep this request, and read no further until `go_on`."""
        self._kept, self._state = request, WAITING
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Handle the request that was kept, and all that came after it."""
        if self._state is WAITING and self._kept is not None:
            request, self._kept = self._kept, None
            self._state = PAUSED if self._transport.get_write_buffer_size() > OUT_LIMIT else OPEN
            self._host.serve(self, request, time.time())
            self._work()

    # Answers

    def send(self, packet: bytes) -> int:
        """Answer, once what it confirms is on disk; returns the answer's place among those that are not sent yet."""
        place = len(self._out)
        if not place:
            self._host.on_answers(self)
        self._out.append(packet)
        self._out_size += len(packet)
        return place

    def replace(self, place: int, packet: bytes) -> None:
        """Put another answer in the place of one that is not sent yet."""
        self._out[place] = packet

    def forward(self, packet: bytes) -> None:
        """Send a client what a worker says; a client that does not read it loses its connection."""
        if self._out_size + self._transport.get_write_buffer_size() > FORWARD_LIMIT:
            self.abort("it does not read its jobs' results: closed")
        else:
            self.send(packet)

    def flush(self) -> None:
        """Hand all answers to the socket."""
        out, self._out, self._out_size = self._out, [], 0
        if self._transport.is_closing():
            return
        try:
            for packet in out if len(out) == 1 else [b"".join(out)]:
                self._transport.write(packet)
        except MemoryError:
            self.abort("no memory for its answers: closed")
        if self._state is CLOSING:
            self._transport.close()

    def complain(self, what: str) -> None:
        """Log what is wrong with this connection, once."""
        if not self._complained:
            self._complained = True
            self._host.warn(f"connection from {self.address}: {what}")

    def close(self) -> None:
        """Close it once its answers are read."""
        self._state = CLOSING
        self._transport.close()

    def abort(self, why: str = "") -> None:
        """Close it at once."""
        if why:
            self.complain(why)
        self._state = CLOSING
        self._transport.abort()

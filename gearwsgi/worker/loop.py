"""The supervisor's event loop: sockets and the clock; and streams, which write in batches and can be left unread for a
while.

Written by hand rather than with asyncio: one write for all that an event has caused, and streams that wake nobody for a
millisecond, are what makes short jobs cheap. Here both are a few lines.
"""

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable

from ..errors import ProtocolError

PAUSE = 0.001
"""Seconds that a paused stream is not read: the shortest time that a selector can wait."""
READ_SIZE = 64 * 1024
"""Bytes of one read: from 128 KB on, the allocator would map and unmap memory for each read."""

MOST_READS = 4
"""Reads of one stream in a turn of the loop, so that a sender without end does not keep others waiting."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Loop:
    """Waits for sockets and for the clock. For one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._written: deque[Stream] = deque()
        self._paused: deque[tuple[float, Stream]] = deque()

    def listen(self, sock: socket.socket, then: Callable[[], object]) -> None:
        """Call `then` whenever `sock` has something to read."""
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: then())

    def turn(self, until: float) -> None:
        """Send what was written, wait for an event or for `until` (by `time.monotonic`), and call who is to be told."""
        if self._written:
            self.flush()
        paused = self._paused
        if paused and paused[0][0] < until:
            until = paused[0][0]
        for key, mask in self._selector.select(max(0.0, until - time.monotonic())):
            key.data(mask)
        if paused:
            now = time.monotonic()
            while paused and paused[0][0] <= now:
                paused.popleft()[1].look()

    def flush(self) -> None:
        """Send what was written."""
        while self._written:
            self._written.popleft().flush()

    def close(self) -> None:
        """Stop waiting; the sockets are closed by those who own them."""
        self._selector.close()


class Stream:
    """A socket in the loop, which never blocks. What is written during one event goes out in one write.

    Args:
        sock: a connected socket.
        loop: the loop.
        on_data: called with the bytes that came.
        on_close: called once when the other side is gone, with the reason in words.

    Raises:
        OSError: the system can't watch one more socket.
    """

    def __init__(
        self, sock: socket.socket, loop: Loop, on_data: Callable[[bytes], None], on_close: Callable[[str], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._on_data = on_data
        self._on_close = on_close
        self._waiting: list[bytes | memoryview] = []
        self._mask = 0
        self._is_paused = False
        self.closed = False
        self._attend(is_new=True)

    def send(self, data: bytes) -> None:
        """Write: the bytes go out together with all else that is written during this event."""
        if self.closed:
            return
        if not self._waiting:
            self._loop._written.append(self)
        self._waiting.append(data)

    def flush(self) -> None:
        """Send what can be sent at once; the rest follows when there is room."""
        waiting = self._waiting
        if self.closed or not waiting:
            return
        data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
        try:
            sent = self._socket.send(data)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            waiting.clear()
            self.receive()  # what the other side has said before its end still counts
            self._fail(str(error))
            return
        waiting.clear()
        if sent < len(data):
            waiting.append(memoryview(data)[sent:])
        if waiting or self._mask & selectors.EVENT_WRITE:
            self._attend()

    def receive(self) -> None:
        """Read what is there, without waiting; if that is much, only a part of it in this turn of the loop."""
        for _ in range(MOST_READS):
            if self.closed:
                return
            try:
                data = self._socket.recv(READ_SIZE)
            except _NOT_NOW:
                return
            except OSError as error:
                self._fail(str(error))
                return
            if not data:
                self._fail("closed by the other side")
                return
            try:
                self._on_data(data)
            except ProtocolError as error:
                self._fail(str(error))
                return
            if self._loop._written:
                self._loop.flush()
            if len(data) < READ_SIZE and not isinstance(self._socket, ssl.SSLSocket):
                return
        if isinstance(self._socket, ssl.SSLSocket):
            self.pause()  # TLS has read more already, for which the selector would not wake

    def pause(self) -> None:
        """Do not let bytes that come wake the loop, but look when the pause is over what has come."""
        if not (self._is_paused or self.closed):
            self._is_paused = True
            self._loop._paused.append((time.monotonic() + PAUSE, self))
            self._attend()

    def look(self) -> None:
        """End the pause and read what has come; who is called with it may begin the next pause."""
        self._is_paused = False
        self.receive()
        self._attend()

    def close(self) -> None:
        """Close it; nobody is told, and what still waits to be sent is dropped."""
        if not self.closed:
            self.closed = True
            self._waiting.clear()
            self._attend()
            self._socket.close()

    def _attend(self, *, is_new: bool = False) -> None:
        """Have the selector wait for what this stream waits for."""
        mask = 0
        if not self.closed:
            mask = (0 if self._is_paused else selectors.EVENT_READ) | (selectors.EVENT_WRITE if self._waiting else 0)
        if mask == self._mask:
            return
        selector, before, self._mask = self._loop._selector, self._mask, mask
        try:
            if not mask:
                selector.unregister(self._socket)
            elif not before:
                selector.register(self._socket, mask, self._ready)
            else:
                selector.modify(self._socket, mask, self._ready)
        except OSError as error:
            # The system can't watch it: nothing would ever come from there.
            self._mask = 0
            if is_new:
                raise
            self._fail(str(error))

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self.flush()
        if mask & selectors.EVENT_READ:
            self.receive()

    def _fail(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._on_close(reason)

"""The pipe between the supervisor and a worker process: frames, the claim on a job held ahead, and a stream.

A frame is `magic, kind, sequence, length` and its payload. The worker's side is untrusted: an application may do
anything to the descriptor, so bytes that are no frame end the worker and never confuse the supervisor.
"""

import mmap
import selectors
import socket
import ssl
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator

from .errors import ProtocolError
from .payload import Grabbed

# From the supervisor.
JOB = 1
# From the worker.
READY = 2
DONE = 3
"""The application answered 2xx; the payload is WORK_COMPLETE's data."""
FAILED = 4
"""Any other outcome; the payload is JSON."""
SKIPPED = 5
"""The supervisor had claimed the job before the worker started it."""
PROGRESS = 6
TRANSLATED = 7
"""A plain call as the HTTP message that it stands for, sent before it is run: only the worker has the resolver."""
RETIRING = 8
"""The worker wants to be replaced: it has grown over --max-rss."""

_MAGIC = 0x6757
_HEADER = struct.Struct("!HBBI")
_JOB = struct.Struct("!HHH")
_PROGRESS = struct.Struct("!QQ")
MAX_FRAME = 1 << 30
READ_SIZE = 64 * 1024
"""Bytes of one read: from 128 KB on, the allocator maps and unmaps memory for each."""


def frame(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEADER.pack(_MAGIC, kind, sequence, len(payload)) + payload


def job_frame(sequence: int, job: Grabbed) -> bytes:
    """The frame that gives a job to a worker."""
    lengths = _JOB.pack(len(job.handle), len(job.queue), len(job.unique))
    return frame(JOB, sequence, b"".join((lengths, job.handle, job.queue, job.unique, job.payload)))


def read_job(payload: bytes) -> Grabbed:
    """The job in a JOB frame."""
    handle, queue, unique = _JOB.unpack_from(payload)
    start = _JOB.size
    middle, end = start + handle, start + handle + queue
    return Grabbed(payload[start:middle], payload[middle:end], payload[end : end + unique], payload[end + unique :])


def progress_frame(sequence: int, done: int, total: int) -> bytes:
    """The frame that reports progress."""
    top = (1 << 64) - 1
    return frame(PROGRESS, sequence, _PROGRESS.pack(min(max(done, 0), top), min(max(total, 0), top)))


def read_progress(payload: bytes) -> tuple[int, int]:
    """(done, total) of a PROGRESS frame.

    Raises:
        ProtocolError: it is none.
    """
    if len(payload) != _PROGRESS.size:
        raise ProtocolError("a progress report of a wrong length")
    done, total = _PROGRESS.unpack(payload)
    return done, total


class FrameReader:
    """Bytes in, frames out; keeps what is not yet whole. No I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The frames that `data` completes: (kind, sequence, payload).

        Raises:
            ProtocolError: the bytes are no frame.
        """
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        start, size = 0, len(buffer)
        while size - start >= 8:
            magic, kind, sequence, length = _HEADER.unpack_from(buffer, start)
            if magic != _MAGIC or length > MAX_FRAME:
                raise ProtocolError("bytes on the pipe that are no frame: has the application written there?")
            end = start + 8 + length
            if size < end:
                break
            payload = bytes(buffer[start + 8 : end])
            start = end
            yield kind, sequence, payload
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < size:
            self._buffer += buffer[start:]


class Claim:
    """Who has the job that lies ahead in a worker's pipe: two bytes of memory that both processes see.

    The worker marks a job as started and then looks whether it is claimed. The supervisor claims it, and looks a turn
    of its loop later, which is milliseconds, whether it was started. So whichever order the processors show the two
    bytes in, never do both take it: where the supervisor finds it not started, the worker will find it claimed.
    """

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, mmap.PAGESIZE)

    @staticmethod
    def make_file() -> "tempfile._TemporaryFileWrapper[bytes]":
        """A nameless file that both processes map."""
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - its user closes it
        file.truncate(mmap.PAGESIZE)
        return file  # type: ignore[return-value]

    def take(self, sequence: int) -> None:
        """The supervisor's claim; 0 withdraws it."""
        self._bytes[0] = sequence

    def start(self, sequence: int) -> bool:
        """The worker's start; whether it may go on."""
        self._bytes[1] = sequence
        return self._bytes[0] != sequence

    def is_at(self, sequence: int) -> bool:
        """Whether the last job that the worker has started is this one; 0: none yet.

        Ask for the job before: an application may write rubbish here, and that must not look like "not started".
        """
        return self._bytes[1] == sequence

    def close(self) -> None:
        """Let go of the memory."""
        self._bytes.close()


class Stream:
    """A socket in the supervisor's loop that never blocks it: what can't be sent at once waits.

    Args:
        sock: the connected socket.
        selector: the loop's.
        on_data: called with what came.
        on_close: called once when the other side is gone, with the reason in words.
    """

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_data: Callable[[bytes], None],
        on_close: Callable[[str], None],
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._selector = selector
        self._on_data = on_data
        self._on_close = on_close
        self._waiting: deque[memoryview] = deque()
        self.closed = False
        selector.register(sock, selectors.EVENT_READ, self._ready)

    def send(self, data: bytes) -> None:
        """Send now what goes out at once, and the rest when it does."""
        if self.closed:
            return
        if not self._waiting:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                sent = 0
            except OSError as error:
                self._fail(str(error))
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._selector.modify(self._socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self._ready)
        self._waiting.append(memoryview(data))

    def receive(self) -> None:
        """Take what is there, without waiting."""
        while not self.closed:
            try:
                data = self._socket.recv(READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
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
            if len(data) < READ_SIZE and not isinstance(self._socket, ssl.SSLSocket):
                return

    def close(self) -> None:
        """Close it; nobody is called."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._socket)
            self._socket.close()
            self._waiting.clear()

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not self.closed:
            self._flush()
        if mask & selectors.EVENT_READ and not self.closed:
            self.receive()

    def _flush(self) -> None:
        try:
            while self._waiting:
                view = self._waiting[0]
                sent = self._socket.send(view)
                if sent < len(view):
                    self._waiting[0] = view[sent:]
                    return
                self._waiting.popleft()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._fail(str(error))
            return
        self._selector.modify(self._socket, selectors.EVENT_READ, self._ready)

    def _fail(self, reason: str) -> None:
        self.close()
        self._on_close(reason)

"""The pipe between the supervisor and a worker process: frames, and the claim on the jobs that are held ahead.

A frame is `magic, kind, sequence, length` and its payload. The worker's side is untrusted: an application may do
anything to the descriptor. Bytes that are no frame are reported (as FOREIGN) and skipped. The worker is replaced after
them, but what it has answered after them still counts.
"""

import faulthandler
import json
import math
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal, get_args, get_origin, get_type_hints

from ..app.replay import KEPT_BODY, MAX_TRACEBACK
from ..errors import ProtocolError
from ..message.fields import is_cursor
from ..message.model import MAX_HEAD
from ..policy import Outcome
from ..wire.payload import Grabbed

# From the supervisor.
JOB = 1
# From the worker.
READY = 2
DONE = 3
"""The application answered 2xx; the payload is WORK_COMPLETE's data."""
FAILED = 4
"""Any other outcome; the payload is JSON."""
SKIPPED = 5
"""The job lay behind the supervisor's fence and was not started."""
PROGRESS = 6
TRANSLATED = 7
"""A plain call as the HTTP message that it stands for, sent before it is run: only the worker has the resolver."""
RETIRING = 8
"""The worker wants to be replaced: it has grown over --max-rss."""
RESPONSE = 9
"""Sent before a DONE or FAILED: the response's status and, where it is to be kept, the whole response."""
ROUTE = 10
"""The pattern of the route that a job's path matches, where metrics want it; sent before the job is run."""
# From neither: what the reader makes of anything else.
FOREIGN = 0
"""Bytes that are no frame: the application has written to the pipe."""

_MAGIC = b"\xfegw\xff"
"""A frame's first bytes: no text in any Unicode encoding contains them."""
_HEADER = struct.Struct("!4sBBI")
_HEADER_SIZE = _HEADER.size
_KINDS = range(JOB, ROUTE + 1)
_JOB = struct.Struct("!HHH")
_PROGRESS = struct.Struct("!QQ")
_STATUS = struct.Struct("!H")
MAX_DATA = KEPT_BODY
"""Bytes of a job's result, where nobody waits for the whole response."""
MAX_ROUTE = 200
"""Bytes of a route's pattern that are passed on."""
_MAX_FRAME = 1 << 30
_MAX_OUTCOME = 1 << 20
_MAX_TEXT = 8 * 1024
_MAX_RESPONSE = 64 * 1024
"""Bytes of the response in an outcome. With these limits on it and on the texts, the JSON stays shorter than
`_MAX_OUTCOME`, even where every character is escaped."""


def frame(kind: int, sequence: int, payload: bytes = b"") -> bytes:
    """A frame in bytes."""
    return _HEADER.pack(_MAGIC, kind, sequence, len(payload)) + payload


def job_frame(sequence: int, job: Grabbed) -> bytes:
    """The frame that gives a job to a worker."""
    handle, queue, unique, payload, _ = job
    names = _JOB.pack(len(handle), len(queue), len(unique)) + handle + queue + unique
    # The payload may be large: it is copied once.
    return b"".join((_HEADER.pack(_MAGIC, JOB, sequence, len(names) + len(payload)), names, payload))


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
        ProtocolError: its length is wrong.
    """
    if len(payload) != _PROGRESS.size:
        raise ProtocolError("a progress report of a wrong length")
    done, total = _PROGRESS.unpack(payload)
    return done, total


def response_frame(sequence: int, status: int, kept: bytes) -> bytes:
    """The frame that tells a response's status and, where it is to be kept, the response as a message."""
    return frame(RESPONSE, sequence, _STATUS.pack(status) + kept)


def read_response_frame(payload: bytes) -> tuple[int, bytes]:
    """(status, response) of a RESPONSE frame.

    Raises:
        ProtocolError: it is too short.
    """
    if len(payload) < _STATUS.size:
        raise ProtocolError("a response's status of a wrong length")
    return _STATUS.unpack_from(payload)[0], payload[_STATUS.size :]


def from_worker(max_job: int, may_answer_at_length: Callable[[], bool]) -> "FrameReader":
    """A reader for what a worker process sends. It takes only kinds and lengths of frames that a worker may send.

    Args:
        max_job: bytes that a message may have, and a whole response as well.
        may_answer_at_length: whether the job that runs may be one that is answered with a whole response.
    """
    limits = dict.fromkeys((READY, SKIPPED, RETIRING), 0)
    limits |= {PROGRESS: _PROGRESS.size, FAILED: _MAX_OUTCOME, TRANSLATED: max_job, DONE: MAX_DATA}
    limits |= {RESPONSE: _STATUS.size + MAX_HEAD + KEPT_BODY, ROUTE: MAX_ROUTE}
    return FrameReader(limits, may_answer_at_length)


class FrameReader:
    """Bytes in, frames out; keeps what is not yet whole. No I/O.

    Args:
        limits: bytes that a frame's payload may have, by its kind; a frame of another kind is no frame. None: any kind,
            up to a gigabyte.
        may_be_long: asked when a DONE is over its limit: whether this one may be.
    """

    def __init__(self, limits: dict[int, int] | None = None, may_be_long: Callable[[], bool] = lambda: False) -> None:
        self._limits = dict.fromkeys(_KINDS, _MAX_FRAME) if limits is None else limits
        self._may_be_long = may_be_long
        self._buffer = bytearray()
        self._in_foreign = False

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The frames that `data` completes: (kind, sequence, payload). Bytes between frames come as one FOREIGN."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        start, size = 0, len(buffer)
        while size - start >= _HEADER_SIZE:
            magic, kind, sequence, length = _HEADER.unpack_from(buffer, start)
            if magic != _MAGIC or (length > self._limits.get(kind, -1) and not self._is_long(kind, length)):
                start = buffer.find(_MAGIC, start + 1)
                if start < 0:
                    start = size - len(_MAGIC) + 1  # the last bytes may be the beginning of a frame's magic
                if not self._in_foreign:
                    self._in_foreign = True
                    yield FOREIGN, 0, b""
                continue
            end = start + _HEADER_SIZE + length
            if size < end:
                break
            payload = bytes(buffer[start + _HEADER_SIZE : end])
            start = end
            self._in_foreign = False
            yield kind, sequence, payload
        if buffer is self._buffer:
            del self._buffer[:start]
        elif start < size:
            self._buffer += buffer[start:]

    def _is_long(self, kind: int, length: int) -> bool:
        return kind == DONE and length <= self._limits[TRANSLATED] and self._may_be_long()


class Claim:
    """Who has the jobs that lie ahead in a worker's pipe: a byte for each side, in memory that both processes see.

    The worker marks a job as started and then looks for a fence. The supervisor puts the fence behind the job that
    runs, and looks a turn of its loop later, which is milliseconds, whether another was started. So in whichever order
    the processors show the two bytes, a job is never taken by both: where the supervisor finds none started, the worker
    will find the fence.

    Further bytes: the complement of the worker's byte, which shows when the application has written here; one that
    says that the supervisor wants the worker to stop; one that names the job whose task was cancelled while it runs.
    Behind these is the number of the slot, for people.
    """

    def __init__(self, descriptor: int) -> None:
        self._bytes = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._file = os.dup(descriptor)

    @staticmethod
    def make_file() -> IO[bytes]:
        """A nameless file that both processes map. Where the system can, it is in memory and needs no disk.

        Raises:
            OSError: there is no room, or there are too many open files.
        """
        if sys.platform == "linux":
            file: IO[bytes] = os.fdopen(os.memfd_create("gearwsgi"), "r+b", buffering=0)
        else:
            import tempfile

            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - its user closes it
        file.truncate(mmap.PAGESIZE)
        os.pwrite(file.fileno(), bytes([0, 0, 255, 0]), 0)
        return file

    def fence(self, sequence: int) -> None:
        """Put up the supervisor's fence: no job but this one is started; 0 takes it away."""
        self._bytes[0] = sequence

    def start(self, sequence: int) -> bool:
        """Mark a job as started by the worker; whether no fence forbids it."""
        self._bytes[1] = sequence
        self._bytes[2] = 255 - sequence
        return self._bytes[0] in (0, sequence)

    def request_stop(self) -> None:
        """Say to the worker that the supervisor wants it to end."""
        self._bytes[3] = 1

    def is_stop_requested(self) -> bool:
        """Whether the supervisor wants the worker to end."""
        return self._bytes[3] != 0

    def started(self) -> int | None:
        """The number of the last job that the worker has started; 0: none yet; None: the application has written here.

        To learn whether a job was started, ask whether this is still the job before it: then damage to the memory never
        looks like "not started".
        """
        sequence = self._bytes[1]
        return sequence if self._bytes[2] == 255 - sequence else None

    def cancel(self, sequence: int) -> None:
        """Say to the worker that this job is to end before its time; 0: no job is."""
        self._bytes[4] = sequence

    def is_cancelled(self) -> bool:
        """Whether the job that the worker has started last is to end before its time."""
        return self._bytes[4] != 0 and self._bytes[4] == self._bytes[1]

    @property
    def number(self) -> int:
        """The slot's number, for people."""
        return int.from_bytes(self._bytes[8:16])

    @number.setter
    def number(self, number: int) -> None:
        self._bytes[8:16] = number.to_bytes(8)

    def write_stack_here(self) -> None:
        """Have a fatal signal write this process's Python stack behind the memory, unless the application has set up
        something of its own for that (`faulthandler`)."""
        if not faulthandler.is_enabled():
            os.lseek(self._file, mmap.PAGESIZE, os.SEEK_SET)
            faulthandler.enable(self._file)

    def read_stack(self) -> str:
        """The stack that a fatal signal has written; empty: there was none."""
        return os.pread(self._file, MAX_TRACEBACK, mmap.PAGESIZE).decode("utf-8", "replace").strip("\0\n")

    def close(self) -> None:
        """Let go of the memory."""
        self._bytes.close()
        os.close(self._file)


_FIELDS = get_type_hints(Outcome)


def failed_frame(sequence: int, outcome: Outcome) -> bytes:
    """The frame that answers any outcome but 2xx: the fields of `Outcome` as JSON, bytes as text in Latin-1.

    What is too long for a dead letter is cut.
    """
    values = {name: getattr(outcome, name) for name in _FIELDS}
    for name, hint in _FIELDS.items():
        if hint is bytes:
            values[name] = values[name][:_MAX_RESPONSE].decode("latin-1")
        elif hint is str:
            values[name] = values[name][: MAX_TRACEBACK if name == "traceback" else _MAX_TEXT]
    return frame(FAILED, sequence, json.dumps(values).encode())


def read_outcome(payload: bytes) -> Outcome:
    """The outcome in a FAILED frame.

    Raises:
        ProtocolError: it is none; the application may have written it.
    """
    try:
        values = json.loads(payload)
        for name, hint in _FIELDS.items():
            if hint is bytes:
                values[name] = values[name].encode("latin-1")
            if not _fits(values[name], hint):
                raise ValueError(f"{name} is {values[name]!r}")
        if values["kind"] == "continued" and not is_cursor(values["cursor"]):
            raise ValueError("a cursor that no header can hold")
        return Outcome(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"an outcome that can't be read: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type that a field of `Outcome` has: one of some texts, a type, or one of several."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    kinds = get_args(hint) or (hint,)
    if type(value) is float and math.isnan(value):
        return False
    return type(value) in kinds or (float in kinds and type(value) is int)

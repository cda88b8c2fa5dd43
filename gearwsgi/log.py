"""The worker's log, for people: a line for each event, each in one write; local time with its zone, then the handle.

The lines of several processes never mix, because each is one write to a descriptor that appends. If whoever reads the
log is slow or stops reading, lines are lost, and counted; neither jobs nor signals are held up.
"""

import fcntl
import functools
import io
import json
import logging
import os
import re
import select
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .errors import ConfigError

MAX_LINE = 64 * 1024
"""Characters of a line that an application prints; a longer one becomes several."""
EXCERPT = 500
"""Characters of a response's body that the log shows."""

PATIENCE = 0.5
"""Seconds that lines wait for room, at most, where the reader of the log is slow."""
PATIENCE_BACK = 0.1
"""Seconds of that patience that are regained in each second."""
_SHORTEST_WAIT = 0.01
_OUT_OF_THE_WAY = 200
"""The log's own descriptor has at least this number: an application that closes descriptors will reuse low ones."""

_HOST = socket.gethostname()
_NO_JOBS = ("worker", "app", "-")

_NOT_ASCII_TEXT = re.compile(r"[^ -~]+")

is_json = os.environ.get("GEARWSGI_LOG") == "json"
"""Whether each line is a JSON object, for a log's collector."""
_about: Mapping[str, Any] = {}

_second = 0
_stamp = ("", "")
_fd = 2
_sink: "_Sink | None" = None
_dropped = 0


def redirect(descriptor: int) -> None:
    """Write the log to this descriptor from now on; standard error at first."""
    global _fd, _sink
    if _sink is not None:
        _sink.close()
    _fd, _sink = descriptor, None


def about(fields: Mapping[str, Any]) -> None:
    """Set what the lines of this process are about, where they are JSON: the job that it runs; empty: nothing."""
    global _about  # noqa: PLW0603 - a process runs one job at a time
    _about = fields


def check_format() -> None:
    """Check that `GEARWSGI_LOG` asks for a format that there is.

    Raises:
        ConfigError: there is none of that name.
    """
    wanted = os.environ.get("GEARWSGI_LOG", "")
    if wanted not in ("", "text", "json"):
        raise ConfigError(f"GEARWSGI_LOG is {wanted!r}: give text or json, or leave it out")


def write(handle: str, event: str, fields: Mapping[str, Any] | None = None) -> None:
    """Log one event of the job with this handle; `-` where it is about no job.

    Args:
        handle: the handle that the job server has given the job.
        event: what has happened.
        fields: further fields of a line of JSON; a line for people has them in its words.
    """
    global _sink, _dropped  # noqa: PLW0603 - one log a process
    if _sink is None:
        _sink = _Sink(_fd)
    if _dropped and _sink.write(
        _line("worker", f"{_dropped} lines were dropped: nobody read this log, or it was full")
    ):
        _dropped = 0
    if _dropped or not _sink.write(_line(handle, event, fields)):
        _dropped += 1


def note(event: str) -> None:
    """Log one event that is about no job."""
    write("worker", event)


def note_lines(text: str) -> None:
    """Log a text of several lines that is about no job, such as a traceback."""
    for line in text.splitlines():
        note("| " + line)


def _line(handle: str, event: str, fields: Mapping[str, Any] | None = None) -> bytes:
    if is_json:
        source = handle if handle in _NO_JOBS else ""
        if event.startswith("| "):
            event, source = event[2:], "app"
        job = {} if handle in _NO_JOBS else {"handle": handle.partition(" ")[0]}
        return to_json(event, {"source": source or "worker", **job, **_about, **(fields or {})})
    text = f"{handle} {event}"
    if not text.isprintable():
        text = clean(text)
    return f"{_now()} {text}\n".encode("utf-8", "backslashreplace")


def to_json(message: str, fields: Mapping[str, Any]) -> bytes:
    """One line of the log as JSON: when, where, and all fields that are not empty, named as in the records."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = {name: value for name, value in fields.items() if value is not None}
    line = {"time": now, "level": "info", "message": message, **said, "host": _HOST, "pid": os.getpid()}
    return json.dumps(line).encode() + b"\n"


class _Sink:
    """Where lines are written. A write never waits long, and settings of the descriptor stay: others may share it.

    Args:
        descriptor: a file, a pipe, a terminal, a socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._own: int | None = None
        self._send = self._choose(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._patience = PATIENCE
        self._looked = time.monotonic()
        self._is_cut = False

    def _choose(self, descriptor: int) -> Callable[[bytes], int]:
        """How to write there without waiting."""
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):
                sock = socket.socket(fileno=os.dup(descriptor))
                return lambda data: sock.send(data, socket.MSG_DONTWAIT)
            if not (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
                return functools.partial(os.write, descriptor)  # a file's place is shared, and it lets nobody wait
            # Opened anew, because "don't wait" is a setting of all who share a descriptor.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            own = self._own = _move_up(os.open(f"/proc/self/fd/{descriptor}", flags))
            return functools.partial(os.write, own)
        except OSError:
            return functools.partial(self._write_if_ready, descriptor)  # without /proc, or a pipe of another user's

    def _write_if_ready(self, descriptor: int, data: bytes) -> int:
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(descriptor, data)

    def write(self, line: bytes) -> bool:
        """Write a line; whether it could be."""
        if self._is_cut:
            line = b"\n" + line
        try:
            sent = self._send(line)
            if sent == len(line):
                self._is_cut = False
                return True
        except BlockingIOError:
            sent = 0
        except OSError:
            return False  # a full disk or a reader that is gone costs the line, not the jobs
        return self._write_rest(line, sent)

    def _write_rest(self, line: bytes, sent: int) -> bool:
        now = time.monotonic()
        patience = min(PATIENCE, self._patience + (now - self._looked) * PATIENCE_BACK)
        try:
            while sent < len(line):
                left = now + patience - time.monotonic()
                if left < _SHORTEST_WAIT or not self._poll.poll(left * 1000):
                    break
                try:
                    sent += self._send(line[sent:])
                except BlockingIOError:
                    continue  # another process has filled the room meanwhile
        except OSError:
            return False
        finally:
            self._looked = time.monotonic()
            self._patience = max(0.0, patience - (self._looked - now))
            self._is_cut = 0 < sent < len(line) or (self._is_cut and sent == 0)
        return sent == len(line)

    def close(self) -> None:
        """Close what was opened to write there."""
        if self._own is not None:
            os.close(self._own)


def _move_up(descriptor: int) -> int:
    try:
        above = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    except OSError:
        return descriptor  # the limit of open files is lower than that
    os.close(descriptor)
    return above


def clean(text: str) -> str:
    """`text` on one line: what is not printable is shown as an escape."""
    return text if text.isprintable() else _NOT_ASCII_TEXT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    text = match[0]
    if text.isprintable():
        return text
    if text.isascii():
        return text.encode("unicode_escape").decode()
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cut_middle(text: str, limit: int) -> str:
    """`text` with at most `limit` characters: of a longer one the middle is left out, which a note in it says."""
    if len(text) <= limit:
        return text
    note = f"\n… {len(text) - limit} characters left out …\n"
    half = (limit - len(note)) // 2
    return text[:half] + note + text[-half:]


def excerpt(data: bytes) -> str:
    """The first `EXCERPT` characters of a body."""
    text = data[: EXCERPT * 4].decode("utf-8", "replace")
    return text if len(text) <= EXCERPT and len(data) <= EXCERPT * 4 else text[:EXCERPT] + "…"


def _now() -> str:
    global _second, _stamp  # noqa: PLW0603 - kept for a second: formatting it costs more than the rest of a line
    milliseconds = int(time.time() * 1000)
    second = milliseconds // 1000
    if second != _second:
        here = time.localtime(second)
        _stamp = (time.strftime("%Y-%m-%d %H:%M:%S", here), time.strftime("%z", here))
        _second = second
    return f"{_stamp[0]}.{milliseconds % 1000:03d} {_stamp[1]}"


class LogStream(io.TextIOBase):
    """A text stream for what an application prints: its lines go to the log, with the handle of the job that runs."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self.handle = "app"
        self._partial: list[str] = []
        self._size = 0
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _fd

    def write(self, text: str) -> int:
        with self._lock:
            *lines, rest = text.split("\n")
            for line in lines:
                self._add(line)
                self._log("".join(self._partial))
                self._partial.clear()
                self._size = 0
            if rest:
                self._add(rest)
        return len(text)

    def _add(self, text: str) -> None:
        """Keep the beginning of a line; if it gets too long, log it in pieces."""
        self._partial.append(text)
        self._size += len(text)
        if self._size <= MAX_LINE:
            return
        whole = "".join(self._partial)
        end = len(whole) // MAX_LINE * MAX_LINE
        for start in range(0, end, MAX_LINE):
            self._log(whole[start : start + MAX_LINE])
        self._partial = [whole[end:]]
        self._size = len(whole) - end

    def _log(self, line: str) -> None:
        write(self.handle, "| " + line)

    def end_line(self) -> None:
        """Log what was printed last without a newline: the job is over."""
        if self._size:
            self.write("\n")

    def flush(self) -> None:
        """Do nothing: whole lines are written already, and half a line waits for its end."""


class _Handler(logging.Handler):
    """Passes what the package's own loggers say to the worker's log."""

    def emit(self, record: logging.LogRecord) -> None:
        write("worker", record.getMessage(), {"level": record.levelname.lower()} if is_json else None)


class JSONFormatter(logging.Formatter):
    """Formats a logger's lines as JSON, in a process that has no worker's log."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"level": record.levelname.lower(), "source": record.name}
        return to_json(super().format(record), fields).decode().rstrip()


def adopt_loggers(verbose: bool = True) -> None:
    """Show what the package's loggers say in this process, such as tasks that a handler queues, in the worker's log."""
    logger = logging.getLogger("gearwsgi")
    logger.handlers = [_Handler()]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False


def capture_output() -> LogStream:
    """Send to the log what this process prints; returns the stream that does so."""
    stream = LogStream()
    sys.stdout = sys.stderr = stream
    return stream

"""The worker's log, for people: one line an event, one write a line, local time with its zone, the handle first.

The lines of any number of processes never mix, for each is one write to a descriptor that appends.
"""

import io
import logging
import os
import sys
import threading
import time

_second = 0
_stamp = ""
_fd = 2


def redirect(descriptor: int) -> None:
    """Write the log to this descriptor from now on; standard error at first."""
    global _fd  # noqa: PLW0603 - one log a process
    _fd = descriptor


def write(handle: str, event: str) -> None:
    """Log one event of the job with this handle; `-` where it is no job's."""
    line = clean(f"{handle} {event}")
    text = f"{_now()} {line}\n".encode("utf-8", "backslashreplace")
    try:
        while text:
            text = text[os.write(_fd, text) :]
    except OSError:
        return  # a full disk or a reader that is gone costs the line, not the jobs


def note(event: str) -> None:
    """Log one event that is no job's."""
    write("worker", event)


def clean(text: str) -> str:
    """`text` on one line: what is not printable is shown as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def excerpt(data: bytes, limit: int = 500) -> str:
    """The first `limit` characters of a body."""
    text = data[: limit * 4].decode("utf-8", "replace")
    return text if len(text) <= limit and len(data) <= limit * 4 else text[:limit] + "…"


def _now() -> str:
    global _second, _stamp  # noqa: PLW0603 - formatting a time costs more than all the rest of a line
    now = int(time.time())
    if now != _second:
        _stamp = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(now))
        _second = now
    return _stamp


class LogStream(io.TextIOBase):
    """A text stream whose lines go to the log with the handle of the job that runs: what an application prints."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        self.handle = "app"
        self._partial = ""
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return _fd

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                write(self.handle, "| " + line)
        return len(text)

    def end_line(self) -> None:
        """Log what was printed without a newline at its end: the job is over."""
        if self._partial:
            self.write("\n")

    def flush(self) -> None:
        """Whole lines are out already; half a one waits for its end."""


class _Handler(logging.Handler):
    """The package's own loggers, in the worker's log."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def adopt_loggers(verbose: bool = True) -> None:
    """Show what the package logs in this process, such as tasks that a handler queues, in the worker's log."""
    logger = logging.getLogger("gearwsgi")
    logger.handlers = [_Handler()]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False


def capture_output() -> LogStream:
    """Send what this process prints to the log, and answer the stream that does."""
    stream = LogStream()
    sys.stdout = sys.stderr = stream
    return stream

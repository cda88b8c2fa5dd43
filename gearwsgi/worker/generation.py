"""One load of the application: a fork server, and the slots whose worker processes come from it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from .. import log
from . import forkserver
from .loop import Loop, Stream
from .options import Options

if TYPE_CHECKING:  # this module is for the fork server, too, which has no need of them
    from .settle import Settler
    from .slot import Slot


class _Forked:
    """A fork server that was forked, with what is needed of Popen."""

    def __init__(self, control: socket.socket, options: Options, close: Sequence[Callable[[], None]]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for each in close:
                    each()
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, 0)
                os.close(null)
                forkserver.serve(control, options)
            finally:
                os._exit(1)

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, 0 if end is None else os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork server", timeout or 0)
            else:
                time.sleep(0.01)
        return self.returncode


class ForkServerProcess:
    """A fork server that loads an application from now on.

    Args:
        options: what to load, and how.
        close: what is this process's own, and not a copy's.

    Raises:
        OSError: no memory, or too many processes or open files.
    """

    def __init__(self, options: Options, close: Sequence[Callable[[], None]] = ()) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = self._start(options, ours, theirs, close)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.socket = ours
        self.started = time.monotonic()

    @staticmethod
    def _start(
        options: Options, ours: socket.socket, theirs: socket.socket, close: Sequence[Callable[[], None]]
    ) -> "subprocess.Popen[bytes] | _Forked":
        if threading.active_count() == 1:
            # The first one is forked: it starts with all that is imported here, in time and in memory. Later there
            # are threads, and none is forked from.
            return _Forked(theirs, options, (ours.close, *close))
        return subprocess.Popen(
            [sys.executable, "-m", "gearwsgi.worker.forkserver", str(theirs.fileno()), options.to_json()],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def end(self) -> None:
        """Wait until it is gone, which it is soon once its socket is closed."""
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Generation:
    """One fork server, and the slots of its processes.

    Args:
        process: the fork server.
        loop: the supervisor's.
        on_message: called with what the fork server says; None when it is gone.
    """

    def __init__(
        self,
        process: ForkServerProcess,
        loop: Loop,
        on_message: Callable[["Generation", dict[str, Any] | None], None],
    ) -> None:
        self.slots: list[Slot] = []
        self.owners: dict[int, Slot] = {}
        self.forking: deque[Slot] = deque()
        self.settler: Settler | None = None
        self.retired = False
        self.gone = False
        self.started = time.monotonic()
        self.process = process
        self._socket = process.socket
        self._on_message = on_message
        self._lines = b""
        self._stream = Stream(self._socket, loop, self._on_data, self._on_close)

    def fork(self, slot: "Slot", pipe: socket.socket, memory: IO[bytes]) -> bool:
        """Ask for a process; whether the fork server was there to be asked."""
        if self.gone:
            return False
        try:
            socket.send_fds(self._socket, [b"F"], [pipe.fileno(), memory.fileno()])
        except OSError as error:
            log.note(f"the fork server can't be asked for a process: {error}")
            return False
        self.forking.append(slot)
        return True

    def close(self) -> None:
        """Let the fork server end; its processes end with it."""
        self._stream.close()
        self.gone = True

    def _on_data(self, data: bytes) -> None:
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            self._on_message(self, json.loads(line))

    def _on_close(self, reason: str) -> None:
        self.gone = True
        self._on_message(self, None)

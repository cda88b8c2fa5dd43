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
from enum import Enum
from typing import IO, TYPE_CHECKING, Any, Protocol

from .. import log
from ..errors import ProtocolError
from . import forkserver
from .forks import Forked, NoForkServer
from .loop import Loop, Stream
from .options import Options

if TYPE_CHECKING:  # the fork server imports this module too, and has no need of these
    from .slot import Slot, Surroundings

END_TIMEOUT = 5.0
"""Seconds that a fork server may take to end once its socket is closed."""


class _ForkedServer:
    """A fork server that was forked from this process, with as much of `subprocess.Popen` as is needed here."""

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

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkServerProcess:
    """A fork server, seen from the supervisor. It begins to load the application when this is made.

    Args:
        options: what to load, and how.
        close: closes what is this process's own, in a fork server that is a copy of it.

    Raises:
        OSError: there is no memory, or there are too many processes or open files.
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
        self._end_by = 0.0

    @staticmethod
    def _start(
        options: Options, ours: socket.socket, theirs: socket.socket, close: Sequence[Callable[[], None]]
    ) -> "subprocess.Popen[bytes] | _ForkedServer":
        if threading.active_count() == 1:
            # The first one is forked, so that it need not import anything: that saves time and memory. Later there are
            # threads in this process, and a process with threads is not forked.
            return _ForkedServer(theirs, options, (ours.close, *close))
        return subprocess.Popen(
            [sys.executable, "-m", "gearwsgi.worker.forkserver", str(theirs.fileno()), options.to_json()],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()

    def has_ended(self, now: float) -> bool:
        """Whether it has ended, which it does soon after its socket is closed; later it is killed. Does not wait."""
        self._end_by = self._end_by or now + END_TIMEOUT
        if self._process.poll() is not None:
            return True
        if now > self._end_by:
            self._process.kill()
        return False


_MAX_LINE = 1 << 24


class State(Enum):
    """The states of a generation: `Generation` shows what leads from one to the next."""

    LOADING = "loading"
    SERVING = "serving"
    RETIRED = "retired"


class Listener(Protocol):
    """What a generation tells the supervisor."""

    def on_loaded(self, generation: "Generation", settings: dict[str, Any], schedule: list[Any]) -> None: ...
    def on_failed(self, generation: "Generation", reason: str, trace: str) -> None: ...
    def on_gone(self, generation: "Generation") -> None: ...


class Generation:
    """One load of the application: a fork server, its processes, and the slots that they are for.

        LOADING -- the application is loaded --> SERVING -- another one serves, or TERM --> RETIRED
        LOADING -- it can't be loaded, the fork server is gone, HUP or TERM --> discarded
        RETIRED -- no slot and no process is left --> discarded

    Args:
        server: the fork server.
        loop: the supervisor's.
        listener: the supervisor, which is told what happens.

    Attributes:
        around: what its slots have in common; None until the application is loaded.
        gone: whether its fork server has ended.
    """

    def __init__(self, server: ForkServerProcess, loop: Loop, listener: Listener) -> None:
        self.server = server
        self.state = State.LOADING
        self.gone = False
        self.around: Surroundings | None = None
        self.slots: list[Slot] = []
        self._processes: dict[int, Forked] = {}
        self._forking: deque[Forked] = deque()
        self._listener = listener
        self._lines = b""
        self._stream = Stream(server.socket, loop, self._on_data, self._on_close)

    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None:
        """Have a worker process forked.

        Raises:
            NoForkServer: there is none, or it does not answer.
        """
        if self.gone:
            raise NoForkServer
        try:
            socket.send_fds(self.server.socket, [b"F"], [pipe.fileno(), memory.fileno()])
        except OSError as error:
            log.note(f"the fork server can't be asked for a process: {error}")
            raise NoForkServer from error
        self._forking.append(process)

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a worker process, where the fork server has not told that it has ended."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except OSError as error:
            log.note(f"worker process {pid} gets no {signal.Signals(number).name}: {error}")

    def tick(self, now: float) -> None:
        """Do for its slots what is due by now."""
        for slot in self.slots:
            slot.tick(now)
        if self.around is not None:
            self.around.settler.tick()
        self.slots = self.open_slots()

    def steer(self) -> None:
        """Tell its slots that something else is asked of the supervisors, such as a pause."""
        for slot in self.open_slots():
            slot.steer()

    def open_slots(self) -> "list[Slot]":
        """Those of its slots that have not ended."""
        return [slot for slot in self.slots if not slot.closed]

    def on_pause(self, seconds: float) -> None:
        """Do not count as anyone's delay the seconds in which the supervisor did nothing."""
        self.server.started += seconds
        for slot in self.slots:
            slot.on_pause(seconds)

    @property
    def is_done(self) -> bool:
        """Whether it is retired and none of its slots and processes is left."""
        no_processes = self.gone or not (self._processes or self._forking)
        return self.state is State.RETIRED and not self.open_slots() and no_processes

    def retire(self) -> None:
        """Have its slots finish what they have, and then end."""
        self.state = State.RETIRED
        for slot in self.slots:
            slot.drain()

    def close(self) -> None:
        """Let the fork server end; its processes end with it."""
        self._stream.close()
        self.gone = True

    def _on_data(self, data: bytes) -> None:
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not (isinstance(message, dict) and self._is_expected(message)):
                log.note("the application has written to the fork server's socket")
                raise ProtocolError("a line that is none of the fork server's")
            self._on_message(message)
        if len(self._lines) > _MAX_LINE:
            raise ProtocolError("a line without an end")

    def _is_expected(self, message: dict[str, Any]) -> bool:
        """Whether the fork server could say that. An application may write to its socket: only it may end by that."""
        kinds = {name: type(value) for name, value in message.items()}
        answers = kinds in ({"pid": int}, {"refused": str}) and bool(self._forking)
        ended = kinds == {"exit": int, "status": int}
        return answers or ended or kinds in ({"loaded": dict, "schedule": list}, {"failed": str, "traceback": str})

    def _on_message(self, message: dict[str, Any]) -> None:
        if "loaded" in message:
            self._listener.on_loaded(self, message["loaded"], message["schedule"])
        elif "failed" in message:
            self._listener.on_failed(self, message["failed"], message["traceback"])
        elif "pid" in message:
            process = self._forking.popleft()
            if not process.is_over:  # of one that is over, the pipe is closed: it ends by itself
                self._processes[message["pid"]] = process
                process.on_forked(message["pid"])
        elif "refused" in message:
            self._forking.popleft().on_refused(message["refused"])
        elif "exit" in message:
            ended = self._processes.pop(message["exit"], None)
            if ended is not None:
                ended.on_exit(message["status"])

    def _on_close(self, reason: str) -> None:
        self.server.kill()  # in case it still runs: what it says can't be understood any more
        self.gone = True
        self._listener.on_gone(self)

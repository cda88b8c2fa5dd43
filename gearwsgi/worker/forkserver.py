"""The fork server: a process of its own that has the application loaded, and forks workers from it.

Started by the supervisor as `python -m gearwsgi.worker.forkserver`, with a socket to it. One byte with two descriptors
(a worker's pipe, its claim's file) asks for a worker; lines of JSON go back: `loaded` or `failed` once, then a `pid`
for each worker and an `exit` when one has ended. When the socket closes, the supervisor has ended: so does the fork
server, with all its workers.
"""

import array
import contextlib
import encodings.idna  # noqa: F401 - looking up a host needs it: imported here once, not once in each worker
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import replace
from os import fork, waitpid
from select import poll
from signal import signal as set_handler
from types import FrameType
from typing import Any, NoReturn

from .. import log
from ..app.unshared import load_and_look
from ..errors import AppLoadError
from ..settings import to_json
from . import channel, child, ending, posix, titles
from .options import Options

# fork, waitpid, poll and set_handler are the system's own, even where the application puts others in their place when
# it is loaded (gevent): this process's descriptors and children are no business of the application's event loop.

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class ForkServer:
    """The fork server's loop.

    Args:
        control: the socket to the supervisor.
        options: the options of `gearwsgi worker`.
    """

    def __init__(self, control: socket.socket, options: Options) -> None:
        self._control = control
        self._options = options
        self._stream = log.capture_output()
        log.adopt_loggers(options.verbose)
        self._children: set[int] = set()
        self._app: Any = None
        self._settings: Any = None
        self._wake_read, self._wake_write = os.pipe()
        self._folder = os.getcwd()
        self._environment = dict(os.environ)

    def run(self) -> int:
        """Load the application, then fork workers until the supervisor is gone; the exit code."""
        titles.show("fork server", self._options.app)
        if not (self._probe() if self._options.preload is False else self._preload()):
            return 1
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        set_handler(signal.SIGCHLD, _nothing)
        poller = poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._wake_read:
                    os.read(self._wake_read, 4096)
                elif not self._serve():
                    self._kill_all()
                    return 0
            self._reap()

    def _probe(self) -> bool:
        """Have a process load the application to tell the supervisor the settings, which it needs before any worker."""
        pid = fork()
        if pid == 0:
            os._exit(0 if self._load_and_tell() else 1)
        return waitpid(pid, 0)[1] == 0

    def _preload(self) -> bool:
        # A garbage collection, even right before the freeze, would leave gaps in the memory, and workers that fill them
        # would copy pages.
        gc.disable()
        if not self._load_and_tell():
            return False
        gc.freeze()
        if threading.active_count() > 1:
            log.note(
                f"the application started {threading.active_count() - 1} thread(s) while it was loaded; "
                "workers are forked without them; --no-preload loads it in each worker"
            )
        return True

    def _load_and_tell(self) -> bool:
        """Load the application and tell the supervisor how that went; whether it could be loaded."""
        try:
            self._load()
        except AppLoadError as error:
            cause = error.__cause__
            detail = "".join(traceback.format_exception(cause)) if cause is not None else ""
            self._tell({"failed": str(error), "traceback": detail})
            return False
        self._tell({"loaded": to_json(self._settings), "schedule": self._plans()})
        return True

    def _plans(self) -> list[dict[str, Any]]:
        """The entries of the schedule, as the messages they queue: only where the application is can they be made."""
        if not self._settings.schedule:
            return []
        from ..submit.ticks import plan_all

        return [plan.dump() for plan in plan_all(self._settings).values()]

    def _load(self) -> None:
        self._app, middleware, connections = load_and_look(self._options.app)
        if connections and self._options.preload is not False:
            self._refuse(", ".join(connections))
        settings = middleware.settings
        if self._options.timeout is not None:
            settings = replace(settings, job_timeout=self._options.timeout)
        self._settings = settings

    def _refuse(self, peers: str) -> None:
        """The application has opened connections while it was loaded: don't fork it.

        Raises:
            AppLoadError: it was to be loaded before the fork.
        """
        if self._options.preload:
            raise AppLoadError(
                f"application {self._options.app!r} opens connections while it is loaded ({peers}), and processes must "
                "not share them: open them later, such as in gearwsgi.on_worker_start, or leave --preload out"
            )
        log.note(
            f"WARNING: the application has opened connections while it was loaded ({peers}), and processes must not "
            "share them: each worker loads it by itself, which takes more memory. Open them later, such as in "
            "gearwsgi.on_worker_start, or say --no-preload"
        )
        self._begin_again(replace(self._options, preload=False))

    def _begin_again(self, options: Options) -> NoReturn:
        """Start this fork server anew, without anything of the application that was loaded."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        control = self._control.fileno()
        for descriptor in map(int, os.listdir("/dev/fd")):
            if descriptor > 2 and descriptor != control:
                with contextlib.suppress(OSError):  # closed already: the descriptor that listed them
                    os.close(descriptor)
        self._control.set_inheritable(True)
        os.chdir(self._folder)
        command = [sys.executable, "-m", "gearwsgi.worker.forkserver", str(control), options.to_json()]
        os.execve(sys.executable, command, self._environment)

    def _serve(self) -> bool:
        """Answer one request of the supervisor's; whether the supervisor is still there."""
        try:
            data, descriptors = _receive_descriptors(self._control)
        except ConnectionError:
            return False
        if not data:
            return False
        pipe, memory = descriptors
        parent = os.getpid()
        try:
            pid = fork()
        except OSError as error:
            self._tell({"refused": str(error)})
        else:
            if pid == 0:
                self._become_worker(pipe, memory, parent)
            self._children.add(pid)
            self._tell({"pid": pid})
        os.close(pipe)
        os.close(memory)
        return True

    def _become_worker(self, pipe: int, memory: int, parent: int) -> NoReturn:
        status = 1
        try:
            _tell_gevent()
            signal.set_wakeup_fd(-1)
            posix.prepare_process()
            posix.die_with_parent(parent)
            for descriptor in (self._wake_read, self._wake_write):
                os.close(descriptor)
            if self._app is None:
                self._load()
            else:
                ending.leave_to_others()
            self._control.close()
            claim = channel.Claim(memory)
            os.close(memory)
            worker = child.Child(
                self._app,
                self._settings,
                socket.socket(fileno=pipe),
                claim,
                self._stream,
                title=titles.title(f"worker {claim.number}", self._options.app),
                tells_route=self._options.metrics is not None,
                max_rss=self._options.max_rss,
                verbose=self._options.verbose,
            )
            worker.run()
            status = 0
        except (BrokenPipeError, ConnectionResetError):
            status = 0  # the supervisor has ended
        except BaseException:
            log.note_lines(traceback.format_exc())
            log.note("worker process failed")
        finally:
            ending.end(status)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._children:
                self._children.discard(pid)
                self._tell({"exit": pid, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except ConnectionError:
            self._kill_all()
            os._exit(0)


def _receive_descriptors(control: socket.socket) -> tuple[bytes, list[int]]:
    # One byte a request, so that its descriptors can't be mistaken for those of another request.
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(2 * array.array("i").itemsize))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return data, list(descriptors)


def _tell_gevent() -> None:
    """Tell gevent's event loop, where there is one, of a fork that gevent has not made."""
    module: Any = sys.modules.get("gevent")
    if module is not None:
        module.reinit()


def _nothing(signum: int, stack: FrameType | None) -> None:
    """Ignore a signal: the supervisor hears those that go to the whole process group, and decides when we end."""


def main() -> NoReturn:
    """Run `python -m gearwsgi.worker.forkserver DESCRIPTOR OPTIONS`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    serve(control, Options.from_json(sys.argv[2]))


def serve(control: socket.socket, options: Options) -> NoReturn:
    """Be the fork server in this process."""
    for number in _SIGNALS:
        signal.signal(number, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.argv[1:] = []
    ending.forget_exit_functions()
    status = ForkServer(control, options).run()
    os._exit(status)


if __name__ == "__main__":
    main()

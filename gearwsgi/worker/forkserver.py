"""The fork server: a process of its own that has the application loaded, and forks workers from it.

Started by the supervisor as `python -m gearwsgi.worker.forkserver`, with a socket to it. One byte with two descriptors
(a worker's pipe, its claim's file) asks for a worker; lines of JSON go back: `loaded` or `failed` once, then a `pid`
for each worker and an `exit` when one is gone. When the socket closes, the supervisor is gone, and so are we all.
"""

import array
import encodings.idna  # noqa: F401 - what looks up a host needs it: once here, not once in each worker
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

from .. import log
from ..app.loading import load_application
from ..errors import AppLoadError
from ..settings import to_json
from . import channel, child, posix
from .options import Options


class ForkServer:
    """The fork server's loop.

    Args:
        control: the socket to the supervisor.
        options: what the command line said.
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

    def run(self) -> int:
        """Load the application, then fork workers until the supervisor is gone; the exit code."""
        if not self._load_or_probe():
            return 1
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not self._control:
                    os.read(self._wake_read, 4096)
                elif not self._serve():
                    self._kill_all()
                    return 0
            self._reap()

    def _load_or_probe(self) -> bool:
        if self._options.preload:
            # A collection, also right before the freeze, would leave holes that workers fill by copying pages.
            gc.disable()
            loaded = self._load()
            gc.freeze()
            if loaded and threading.active_count() > 1:
                log.note(
                    f"the application started {threading.active_count() - 1} thread(s) while it was loaded; "
                    "workers are forked without them; --no-preload loads it in each worker"
                )
            return loaded
        # Without preloading the supervisor still needs the settings: a process loads the application and says them.
        pid = os.fork()
        if pid == 0:
            os._exit(0 if self._load() else 1)
        return os.waitpid(pid, 0)[1] == 0

    def _load(self) -> bool:
        try:
            self._app, middleware = load_application(self._options.app)
        except AppLoadError as error:
            cause = error.__cause__
            detail = "".join(traceback.format_exception(cause)) if cause is not None else ""
            self._say({"failed": str(error), "traceback": detail})
            return False
        settings = middleware.settings
        if self._options.timeout is not None:
            settings = replace(settings, job_timeout=self._options.timeout)
        self._settings = settings
        self._say({"loaded": to_json(settings)})
        return True

    def _serve(self) -> bool:
        """Answer one request of the supervisor's; whether it is still there."""
        try:
            data, descriptors = _receive_descriptors(self._control)
        except ConnectionError:
            return False
        if not data:
            return False
        pipe, memory = descriptors
        try:
            pid = os.fork()
        except OSError as error:
            self._say({"refused": str(error)})
        else:
            if pid == 0:
                self._become_worker(pipe, memory)
            self._children.add(pid)
            self._say({"pid": pid})
        os.close(pipe)
        os.close(memory)
        return True

    def _become_worker(self, pipe: int, memory: int) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            posix.prepare_process()
            posix.die_with_parent()
            for descriptor in (self._wake_read, self._wake_write):
                os.close(descriptor)
            if self._app is None:
                self._options = replace(self._options, preload=True)
                self._control, ours = socket.socketpair()  # what a probe said, nobody needs again
                if not self._load():
                    os._exit(1)
                ours.close()
            self._control.close()
            claim = channel.Claim(memory)
            os.close(memory)
            worker = child.Child(
                self._app,
                self._settings,
                socket.socket(fileno=pipe),
                claim,
                self._stream,
                max_rss=self._options.max_rss,
                verbose=self._options.verbose,
            )
            worker.run()
            status = 0
        except (BrokenPipeError, ConnectionResetError):
            status = 0  # the supervisor is gone
        except BaseException:
            log.note("worker process failed: " + traceback.format_exc())
        finally:
            # Not sys.exit: what the fork server had registered to run at its exit is not this process's to run,
            # and threads that a job left behind must not keep it.
            os._exit(status)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._children:
                self._children.discard(pid)
                self._say({"exit": pid, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except ConnectionError:
            self._kill_all()
            os._exit(0)


def _receive_descriptors(control: socket.socket) -> tuple[bytes, list[int]]:
    # One byte a request, so that its descriptors can't be taken for another's.
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(2 * array.array("i").itemsize))
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return data, list(descriptors)


def _nothing(signum: int, stack: FrameType | None) -> None:
    """The supervisor decides when we end; a signal to the whole group is its to hear."""


def main() -> NoReturn:
    """`python -m gearwsgi.worker.forkserver DESCRIPTOR OPTIONS`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    serve(control, Options.from_json(sys.argv[2]))


def serve(control: socket.socket, options: Options) -> NoReturn:
    """Be the fork server in this process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, _nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    sys.argv[1:] = []
    status = ForkServer(control, options).run()
    os._exit(status)


if __name__ == "__main__":
    main()

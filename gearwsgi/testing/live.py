"""A real job server and a real worker for one application, for a test from end to end."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ..app import overlay
from ..app.loading import load_application
from ..errors import ConfigError, StartError
from ..settings import Settings
from ..state.dead import DeadLetter, DeadLetters
from ..submit.client import Client
from ..submit.middleware import GearmanMiddleware, find_middleware
from ..wire.connection import Connection
from ..wire.launch import EmbeddedProcess
from ..wire.payload import Submission, make_unique
from .memory import seal_given

_START = 60.0
"""Seconds that a job server or a worker has to start."""
_END = 10.0
"""Seconds that a worker has to end."""


class LiveClient(Client):
    """The client of a test's own job server."""


class Live:
    """A running job server and worker.

    Attributes:
        servers: the job server's `host:port`.
        state_dir: its state directory, which is removed at the end.
        settings: the application's settings, with these two in place of its own.
    """

    def __init__(self, folder: Path, servers: str, client: Client) -> None:
        self.state_dir = folder
        self.servers = servers
        self.settings: Settings = client.settings
        self._client = client

    @property
    def log(self) -> str:
        """What the worker has logged."""
        return (self.state_dir / "worker.log").read_text(encoding="utf-8", errors="replace")

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters."""
        return list(DeadLetters(self.settings).all())

    def put(self, payload: bytes, queue: str | None = None) -> None:
        """Queue a message as another program writes it; as `Tasks.put`.

        Args:
            payload: the bytes.
            queue: the queue; None: the application's, which the worker serves.
        """
        queue = self.settings.queue if queue is None else queue
        unique = make_unique("put-" + os.urandom(8).hex(), 1)
        self._client.submit_now(Submission(queue, unique, seal_given(payload, queue, self.settings)))

    def waiting(self) -> int:
        """Jobs that are queued, running or delayed."""
        connection = Connection(self.settings.servers[0], self.settings.connect_timeout)
        try:
            return sum(int(line.split("\t")[1]) for line in connection.admin("status", 10.0))
        finally:
            connection.close()

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until nothing is queued and nothing runs.

        Args:
            timeout: seconds, at most.

        Raises:
            AssertionError: something still is; the text has the end of the worker's log.
        """
        end = time.monotonic() + timeout
        while left := self.waiting():
            if time.monotonic() > end:
                raise AssertionError(f"{left} job(s) left after {timeout:g} s; the worker's log:\n{self.log[-4000:]}")
            time.sleep(0.01)


@contextmanager
def live(app: Any, *, workers: int = 1) -> Iterator[Live]:
    """Run an embedded job server and a worker of `app` for the block; the application here queues to them.

    Its schedule does not run by itself: ticks would come when the clock says so, and not when the test does.

    Args:
        app: `module:name`, importable from the current folder: the worker imports it anew, as in production. Or the
            application itself, as a factory makes it: the worker is then forked from this process, with all that a
            test has set up in it.
        workers: worker processes.

    Raises:
        AppLoadError: the application can't be loaded.
        ConfigError: there is no GearmanMiddleware around it.
        StartError: the job server or the worker did not start; the text has what they wrote.
    """
    middleware = load_application(app)[1] if isinstance(app, str) else get_middleware(app)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="gearwsgi-live-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = stack.enter_context(_job_server(folder))
        settings = overlay.lay_over(middleware.settings, servers, folder, ticks=False)
        log = folder / "worker.log"
        log.touch()
        if isinstance(app, str):
            stack.enter_context(_spawned(overlay.describe(app, servers, folder, ticks=False), workers, log))
        else:
            stack.enter_context(_forked(app, middleware, settings, workers, log))
        client = stack.enter_context(closing(LiveClient(settings)))
        stack.enter_context(overlay.swap(middleware, client))
        yield Live(folder, servers, client)


def get_middleware(application: Any) -> GearmanMiddleware:
    """The GearmanMiddleware in an application.

    Raises:
        ConfigError: there is none.
    """
    middleware = find_middleware(application)
    if middleware is None:
        raise ConfigError(f"{application!r} has no GearmanMiddleware around it")
    return middleware


@contextmanager
def _job_server(folder: Path) -> Iterator[str]:
    """An embedded job server for the block; its address."""
    log = folder / "server.log"
    with log.open("ab") as out:
        server = EmbeddedProcess("127.0.0.1:0", folder, stderr=out)
        try:
            server.start()
            server.wait(_START)
        except StartError as error:
            raise StartError(f"{error}; it wrote:\n{log.read_text(errors='replace')}") from error
    try:
        yield server.address
    finally:
        server.stop()


@contextmanager
def _spawned(environment: dict[str, str], workers: int, log: Path) -> Iterator[None]:
    """A worker for the block, of the application that the environment names."""
    command = [sys.executable, "-m", "gearwsgi", "worker", overlay.APP, "--workers", str(workers)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_ready(log, lambda: process.poll() is not None)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _forked(app: Any, middleware: GearmanMiddleware, settings: Settings, workers: int, log: Path) -> Iterator[None]:
    """A worker for the block, of the application in this process."""
    from ..worker.generation import ForkServerProcess
    from ..worker.options import Options
    from ..worker.posix import die_with_parent
    from ..worker.supervisor import Supervisor

    parent = os.getpid()

    def run() -> NoReturn:
        os.setsid()
        die_with_parent(parent)
        out = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = os.fdopen(out, "w", buffering=1)  # pytest has its own in their place
        middleware.settings = settings
        middleware.use(LiveClient(settings))
        overlay.application = app
        options = Options(overlay.APP, workers=workers)
        sys.exit(Supervisor(options, ForkServerProcess(options)).run())

    process = multiprocessing.get_context("fork").Process(target=run)
    with warnings.catch_warnings():
        # Python 3.12 and later: a test run may have threads. They are not in the copy, which needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        _wait_until_ready(log, lambda: process.exitcode is not None)
        yield
    finally:
        process.terminate()
        process.join(_END)
        process.kill()
        process.join()
        process.close()


def _wait_until_ready(log: Path, has_ended: Callable[[], bool]) -> None:
    """Wait until the worker's log says that it is ready."""
    end = time.monotonic() + _START
    while True:
        ended = has_ended()
        written = log.read_text(encoding="utf-8", errors="replace")
        if "worker ready:" in written:
            return
        if ended or time.monotonic() > end:
            raise StartError(f"the worker did not start; it wrote:\n{written}")
        time.sleep(0.01)

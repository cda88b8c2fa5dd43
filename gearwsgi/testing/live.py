"""A real job server and a real worker for one application, for a test from end to end."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..app import overlay
from ..app.loading import load_application
from ..errors import StartError
from ..settings import Settings
from ..state.dead import DeadLetter, DeadLetters
from ..submit.client import Client
from ..wire.connection import Connection
from ..wire.launch import EmbeddedProcess

_START = 60.0


class Live:
    """What runs.

    Attributes:
        servers: the job server's `host:port`.
        state_dir: its state directory, which is removed at the end.
        settings: the application's, with these two.
    """

    def __init__(self, folder: Path, servers: str, settings: Settings) -> None:
        self.state_dir = folder
        self.servers = servers
        self.settings = settings

    @property
    def log(self) -> str:
        """What the worker has logged."""
        return (self.state_dir / "worker.log").read_text(encoding="utf-8", errors="replace")

    @property
    def dead(self) -> list[DeadLetter]:
        """The dead letters."""
        return list(DeadLetters(self.settings).all())

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
def live(app: str, *, workers: int = 1) -> Iterator[Live]:
    """Run an embedded job server and a worker of `app` for the block; the application here queues to them.

    Args:
        app: `module:name`, importable from the current folder.
        workers: worker processes.

    Raises:
        AppLoadError: the application can't be loaded.
        StartError: the job server or the worker did not start; the text has what they wrote.
    """
    _, middleware = load_application(app)
    folder = Path(tempfile.mkdtemp(prefix="gearwsgi-live-"))
    started: list[subprocess.Popen[bytes]] = []
    server: EmbeddedProcess | None = None
    try:
        with (folder / "server.log").open("ab") as out:
            server = EmbeddedProcess("127.0.0.1:0", folder, stderr=out)
            server.start()
        try:
            server.wait(_START)
        except StartError as error:
            raise StartError(f"{error}; it wrote:\n{(folder / 'server.log').read_text(errors='replace')}") from error
        servers = server.address
        log = folder / "worker.log"
        with log.open("ab") as out:
            command = [sys.executable, "-m", "gearwsgi", "worker", overlay.APP, "--workers", str(workers)]
            started.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **overlay.describe(app, servers, folder)},
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                )
            )  # fmt: skip
        _wait_for("worker ready:", log, started[-1])
        settings = overlay.lay_over(middleware.settings, servers, folder)
        with closing(Client(settings)) as client, overlay.swap(middleware, client):
            yield Live(folder, servers, settings)
    finally:
        for process in reversed(started):
            _end(process)
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the log has a line with `text` in it."""
    end = time.monotonic() + _START
    while True:
        ended = process.poll() is not None
        written = log.read_text(encoding="utf-8", errors="replace")
        for line in written.splitlines(keepends=True):
            if text in line and line.endswith("\n"):
                return
        if ended or time.monotonic() > end:
            raise StartError(f"{process.args!r} did not start; it wrote:\n{written}")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""What tests run for real: job servers of either kind, workers as processes, and patience without clocks."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from click.testing import CliRunner

from gearwsgi import GearmanMiddleware
from gearwsgi.address import parse_address
from gearwsgi.cli import cli
from gearwsgi.errors import GearwsgiError
from gearwsgi.wire.connection import Connection

T = TypeVar("T")

ROOT = Path(__file__).parent.parent
"""The checkout."""
APPS = ROOT / "tests" / "apps"

GEARMAND = shutil.which("gearmand", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
TAB = "\t"
PATIENCE = 60.0
"""Seconds until a condition that does not come is a failure; nothing is asserted on time."""


def until(condition: Callable[[], T], what: str = "", patience: float = PATIENCE, pause: float = 0.02) -> T:
    """Poll until `condition` answers something true, and answer that; a longer `pause` for what is costly to ask."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or condition} did not come within {patience:g} s")
        time.sleep(pause)


_taken: list[IO[str]] = []


def free_port() -> int:
    """A port that nothing listens on, outside the range that the system gives to clients, and ours until we end.

    The lock keeps other test processes off it, of this run and of others on the machine.
    """
    folder = Path(tempfile.gettempdir()) / "gearwsgi-test-ports"
    folder.mkdir(exist_ok=True)
    start = os.getpid() * 37 % 10000
    for step in range(10000):
        port = 20000 + (start + step) % 10000
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _taken.append(lock)
        return port
    raise AssertionError("no free port")


class JobServer:
    """A job server of either kind, on a port that it keeps when it is started again.

    Args:
        kind: `gearmand` or `embedded`.
        folder: where its log and, for the embedded one, its queue are.
        durable: give gearmand a libsqlite3 queue.
    """

    def __init__(self, kind: str, folder: Path, *, durable: bool = False, port: int | None = None) -> None:
        self.kind = kind
        self.folder = folder
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._durable = durable
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "JobServer":
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "gearmand":
            assert GEARMAND is not None
            command = [GEARMAND, "-L", "127.0.0.1", "-p", str(self.port), "-l", "stderr", "--threads=1"]
            if self._durable:
                command += ["-q", "libsqlite3", f"--libsqlite3-db={self.folder / 'gearmand.db'}"]
        else:
            command = [sys.executable, "-m", "gearwsgi", "server", "--listen", self.address]
            command += ["--state-dir", str(self.folder / "server")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until(self.answers, f"{self.kind} on {self.address}")
        return self

    def answers(self) -> bool:
        """Whether it speaks Gearman."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            self.admin("version")
        except GearwsgiError:
            return False
        return True

    def admin(self, command: str) -> list[str]:
        """The lines that a text command is answered with."""
        connection = Connection(parse_address(self.address), 5)
        try:
            return connection.admin(command, 10)
        finally:
            connection.close()

    def queued(self, queue: str = "job") -> int:
        """Jobs of a queue, waiting or running."""
        return self._status(queue)[0]

    def workers(self, queue: str = "job") -> int:
        """Workers that serve a queue."""
        return self._status(queue)[2]

    def _status(self, queue: str) -> tuple[int, int, int]:
        for line in self.admin("status"):
            name, total, running, workers = line.split("\t")
            if name == queue:
                return int(total), int(running), int(workers)
        return 0, 0, 0

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self) -> None:
        """SIGKILL, and start again on the same port."""
        self.kill()
        self.start()

    def clear(self) -> bool:
        """Leave nothing of a test: no connection, job or queue. Whether that went well."""
        try:
            until(lambda: len(self.admin("workers")) == 1, "the end of all connections but this", 5)
            for line in self.admin("show jobs"):
                self.admin(f"cancel job {line.partition(TAB)[0]}")
            for line in self.admin("status"):
                self.admin(f"drop function {line.partition(TAB)[0]}")
            return self.admin("status") == []
        except (AssertionError, GearwsgiError):
            return False


class Worker:
    """`gearwsgi worker` as a process, with its log.

    Args:
        folder: its current folder, from which the application is imported.
        app: `module:name`.
        arguments: further ones.
        env: added to the environment.
        python: which Python runs it.
    """

    def __init__(
        self, folder: Path, app: str, *arguments: str, env: Mapping[str, str] = {}, python: str = sys.executable
    ) -> None:
        self.folder = folder
        self._forgotten = 0
        self.log_path = folder / f"worker-{len(list(folder.glob('worker-*.log')))}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [python, "-m", "gearwsgi", "worker", app, *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_bytes()[self._forgotten :].decode(errors="replace")

    def forget(self) -> None:
        """Have the log begin here."""
        self._forgotten = self.log_path.stat().st_size

    def ready(self) -> "Worker":
        """Wait until it works."""
        self.wait_for("worker ready")
        return self

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until its log holds a text so often."""

        def found() -> bool:
            log = self.log
            if log.count(text) >= count:
                return True
            assert self.process.poll() is None or self.log.count(text) >= count, log
            return False

        try:
            until(found, f"{text!r} in the worker's log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-5000:]}") from None

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """TERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL to it and to all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def children(self) -> list[int]:
        """The pids of its worker processes, as its status file says."""
        for path in self.folder.rglob(f"run/{self.pid}.json"):
            with contextlib.suppress(ValueError, FileNotFoundError):
                return [w["pid"] for w in json.loads(path.read_text())["workers"] if w["pid"]]
        return []


class Bench:
    """One test's job server, folder, and everything it starts; all is ended after it.

    `app` is the middleware around `tests/apps/kitchen.py`, for submitting; workers run the same one.
    """

    def __init__(self, server: JobServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.state_dir = folder / "state"
        self.record = folder / "record.txt"
        self.workers: list[Worker] = []
        self._apps: list[GearmanMiddleware] = []
        self.record.touch()
        shutil.copy(APPS / "kitchen.py", folder / "kitchen.py")

    @property
    def env(self) -> dict[str, str]:
        return {
            "GEARMAN_SERVERS": self.server.address,
            "GEARWSGI_STATE_DIR": str(self.state_dir),
            "RECORD": str(self.record),
        }

    def worker(self, *arguments: str, app: str = "kitchen:application", env: Mapping[str, str] = {}) -> Worker:
        """Start a worker, and wait until it works."""
        return self.start_worker(*arguments, app=app, env=env).ready()

    def start_worker(
        self,
        *arguments: str,
        app: str = "kitchen:application",
        env: Mapping[str, str] = {},
    ) -> Worker:
        """Start a worker."""
        self.workers.append(Worker(self.folder, app, *arguments, env={**self.env, **env}))
        return self.workers[-1]

    def app(self, **settings: Any) -> GearmanMiddleware:
        """A middleware to submit with.

        It waits long for a busy job server: what was sent and not answered may be queued twice, and run twice.
        """
        settings.setdefault("connect_timeout", PATIENCE / 2)
        settings.setdefault("servers", self.server.address)
        settings.setdefault("state_dir", self.state_dir)
        self._apps.append(GearmanMiddleware(lambda environ, start: [], **settings))
        return self._apps[-1]

    def run(
        self, *arguments: str, input: str | None = None, ok: bool = True, env: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        """Run `gearwsgi` with this test's environment, and answer what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "gearwsgi", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.env, **env},
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not ok or done.returncode == 0, done.stderr + done.stdout
        return done

    def dead(self, count: int = 0) -> list[dict[str, Any]]:
        """The dead letters, as `gearwsgi dead list` tells them in this process, once so many files are there."""
        until(lambda: len(list(self.state_dir.glob("dead/*.http"))) >= count, f"{count} dead letters")
        done = CliRunner().invoke(cli, ["dead", "list", "--json"], env=self.env, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def told(self) -> str:
        """What supervisors say of themselves, which `gearwsgi status` shows."""
        return "".join(path.read_text() for path in self.state_dir.glob("run/*.json"))

    def lines(self) -> list[str]:
        """What handlers have recorded, a line a run."""
        return self.record.read_text().splitlines()

    def runs(self) -> Counter[str]:
        """How often each line was recorded."""
        return Counter(self.lines())

    def forget(self) -> None:
        """Have nothing of what was done before, but the job server and the workers: these must have done it all."""
        until(lambda: not any(int(line.split("\t")[1]) for line in self.server.admin("status")), "the end of all jobs")
        last = self.app().gearman.task("/good", {"n": "last"})
        for worker in self.workers:  # what they tell of a job may come after its answer, but before that of the next
            worker.wait_for(f"id {last.id}", 2)
            worker.forget()
        os.truncate(self.record, 0)
        for path in self.state_dir.glob("dead/*.http"):
            path.unlink()

    def close(self) -> None:
        """End all but the job server."""
        for worker in self.workers:
            worker.kill()
        for app in self._apps:
            app.client.close()


@contextlib.contextmanager
def bench(kind: str, *, durable: bool = False) -> Iterator[Bench]:
    """A bench with a running job server."""
    folder = Path(tempfile.mkdtemp(prefix="gearwsgi-"))
    made = Bench(JobServer(kind, folder / kind, durable=durable).start(), folder)
    try:
        yield made
    finally:
        made.close()
        made.server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Spares:
    """Benches whose embedded job server was left as new by another: to start one takes a third of a second."""

    def __init__(self) -> None:
        self._free: list[JobServer] = []

    @contextlib.contextmanager
    def bench(self, kind: str) -> Iterator[Bench]:
        """A bench with a running job server; gearmand's is new, for it starts in no time."""
        if kind == "gearmand":
            with bench(kind) as made:
                yield made
            return
        folder = Path(tempfile.mkdtemp(prefix="gearwsgi-"))
        server = self._free.pop() if self._free else self._make()
        made = Bench(server, folder)
        try:
            yield made
        finally:
            made.close()
            shutil.rmtree(folder, ignore_errors=True)
            if server.clear():
                self._free.append(server)
            else:
                self._end(server)

    @staticmethod
    def _make() -> JobServer:
        return JobServer("embedded", Path(tempfile.mkdtemp(prefix="gearwsgi-embedded-"))).start()

    @staticmethod
    def _end(server: JobServer) -> None:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)

    def close(self) -> None:
        for server in self._free:
            self._end(server)

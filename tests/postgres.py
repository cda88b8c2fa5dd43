"""A real PostgreSQL of the tests' own: in a temporary folder, on a free port, as its own user where we are root."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from tests.support import free_port, until

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
_SETTINGS = {
    "fsync": "off", "max_connections": "60", "shared_buffers": "16MB",
    "log_min_messages": "fatal",
}  # fmt: skip


def find(program: str) -> str | None:
    """Where a program of PostgreSQL's is; Debian keeps its server's where no path leads."""
    return shutil.which(program, path=os.pathsep.join([*map(str, _FOLDERS), os.environ.get("PATH", "")]))


def require() -> None:
    """Skip where there is no PostgreSQL; in CI that is a failure."""
    if find("initdb") is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed; CI must test with it")
        pytest.skip("PostgreSQL is not installed (Debian: postgresql): tested with SQLite alone")


class PostgresServer:
    """A server that keeps its port and its data when it is started again.

    Args:
        host: the address that it listens on.
        on: what its command begins with, where it runs on a host of a test's own.
    """

    def __init__(self, host: str = "127.0.0.1", on: Sequence[str] = ()) -> None:
        self.host = host
        self._on = on
        self.folder = Path(tempfile.mkdtemp(prefix="gearwsgi-pg-"))
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.folder, self._user)
        self._count = 0
        self._free: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                  "--locale=C.UTF-8")  # fmt: skip
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        self.start()

    def _command(self, program: str, *arguments: str) -> list[str]:
        path = find(program)
        assert path is not None
        drop = ["setpriv", "--reuid", self._user, "--regid", self._user, "--init-groups"] if os.geteuid() == 0 else []
        return [*self._on, *drop, path, *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "listen_addresses": self.host}.items()]
        command = self._command("postgres", "-D", str(self.folder / "data"), "-p", str(self.port),
                                "-k", str(self.folder), *settings)  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/")
        until(self.answers, "PostgreSQL")

    def answers(self) -> bool:
        """Whether it takes connections."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, name: str) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/{name}"

    def execute(self, sql: str, name: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement of the test's own; its rows."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def make(self) -> str:
        """An empty database; its URL."""
        if self._free:
            return self._free.pop()
        self._count += 1
        name = f"test{self._count}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Have another test use this database, emptied: a new one costs much more."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        self._free.append(url)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: its clients are cut off."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

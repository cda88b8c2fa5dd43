"""A copy of the tree, in which the scripts run as a user runs them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
FILES = ("gearman-server.py", "run.sh", "stop.sh", "Makefile", "pyproject.toml")
# The build needs these two to be there.
FILES_OF_THE_BUILD = ("README.md", "LICENSE")
MARK = "GEARWSGI_TEST_TREE"


def wait_until(condition: Callable[[], T], what: str, seconds: float = 90) -> T:
    """Poll until the condition holds and return its value. The limit is generous: others use the machine."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"after {seconds} seconds: not {what}"
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tree:
    """One copy, and the processes that were started from it."""

    def __init__(self, folder: Path, servers: str | None) -> None:
        self.folder = folder
        self.environ = {
            name: value
            for name, value in os.environ.items()
            # VENV and its like come from the `make test` that may have started this.
            if not name.startswith(("GEAR", "PYT", "VIRTUAL_ENV", "HOST", "PORT", "MAKE", "MFLAGS", "VENV", "ARGS"))
        }
        self.environ[MARK] = str(folder)
        self.path_begins_with(Path(sys.executable).parent)  # `python3` is the one that runs the tests
        if servers:
            self.environ["GEARMAN_SERVERS"] = servers
        self.nohup_out = folder / "nohup.out"
        self.pid_file = folder / "gearwsgi.pid"

    def path_begins_with(self, folder: Path) -> None:
        self.environ["PATH"] = f"{folder}:{os.environ['PATH']}"

    def run(self, *command: str, timeout: float = 110, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as from cron: no terminal, nothing to read."""
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )

    def popen(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def printed(self, output: str, name: str) -> str:
        """The command that was shown under this name."""
        return next(line.split(name, 1)[1].strip() for line in output.splitlines() if line.startswith(f"  {name} "))

    def run_printed(self, command: str) -> str:
        """Run a command that was shown, as somebody does in a terminal that has just been opened; its output."""
        done = self.run("sh", "-c", command, cwd=self.folder.parent)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, workers: int | None = None) -> int:
        """`sh run.sh N`, which must succeed; returns the worker's process id."""
        done = self.run("sh", "run.sh", *([] if workers is None else [str(workers)]))
        assert done.returncode == 0, done.stdout + done.stderr
        return int(self.pid_file.read_text().split()[0])

    def stop(self) -> str:
        done = self.run("sh", "stop.sh")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def queue(self, service: str, **data: object) -> str:
        """Queue a task as a script or a cron job does; returns its handle."""
        code = f"from demo_app import application; print(application.gearman.task({service!r}, {data!r}))"
        done = self.run("python3", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def lines(self) -> list[str]:
        return self.nohup_out.read_text().splitlines() if self.nohup_out.exists() else []

    def has_line(self, *parts: str) -> str:
        """Wait for a line of nohup.out that has all of these in it."""
        return wait_until(
            lambda: next((line for line in self.lines() if all(part in line for part in parts)), ""),
            f"a line with {parts} in {self.lines()[-20:]}",
        )

    def processes(self) -> dict[int, str]:
        """All processes that came from this tree, found by the environment that they were started with."""
        mark = f"{MARK}={self.folder}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def is_quiet(self) -> bool:
        """No process is left, or none within the 20 seconds that the last ones may take after stop.sh."""
        return wait_until(lambda: not self.processes(), f"the end of {self.processes()}", 20)


@contextmanager
def trees_in(parent: Path) -> Iterator[Callable[..., Tree]]:
    """Makes trees in a folder, and ends what was started from them."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("finds the processes of a tree by /proc")
    trees: list[Tree] = []

    def make(name: str = "my demo (copy) [1]", servers: str | None = "") -> Tree:
        folder = parent / name
        folder.mkdir()
        # The package itself is the checkout's: a copy would be compiled anew, which takes longest of all.
        (folder / "gearwsgi").symlink_to(ROOT / "gearwsgi")
        shutil.copytree(ROOT / "demo_app", folder / "demo_app")
        for file in FILES + FILES_OF_THE_BUILD:
            shutil.copy(ROOT / file, folder)
        # A port of its own, so that several tests can run at a time; None leaves the setting to its default.
        tree = Tree(folder, f"embedded://127.0.0.1:{free_port()}" if servers == "" else servers)
        trees.append(tree)
        return tree

    yield make
    for tree in trees:
        tree.run("sh", "stop.sh")
        for pid in tree.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def make_tree(tmp_path: Path) -> Iterator[Callable[..., Tree]]:
    with trees_in(tmp_path) as make:
        yield make


@pytest.fixture
def tree(make_tree: Callable[..., Tree]) -> Tree:
    return make_tree()

"""Private servers, processes that are surely stopped, and what a tree of processes has used."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import work
from benchmarks.venv import ROOT

TICK = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


class Trouble(RuntimeError):
    """A measurement that can't be made; the text says why."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Trouble(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def noise() -> float:
    """Seconds that a fixed loop takes now: what the machine itself does to all the other numbers."""
    began = time.perf_counter()
    total = 0
    for number in range(400_000):
        total += number
    return time.perf_counter() - began


# --- what a tree of processes has used ---


def processes_of(leader: int) -> list[int]:
    """All processes of the session that `leader` leads, and what they started: workers have their own session."""
    parents, sessions = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
                parents[int(entry)], sessions[int(entry)] = int(fields[1]), int(fields[3])
    found = {pid for pid, number in sessions.items() if number == leader}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def cpu_seconds(leader: int) -> float:
    """CPU of all processes of a command: the living in ns, the children that they have waited for in clock ticks."""
    return sum(map(process_cpu, processes_of(leader)))


def process_cpu(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[13]) + int(fields[14])) / TICK
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return total


def user_share(pid: int) -> float:
    """The part of a process's CPU so far that was not the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return user / max(1, user + system)


def pss_megabytes(leader: int) -> float:
    """Proportional set size of all processes of a command: a page that n processes share counts as 1/n in each."""
    kilobytes = 0
    for pid in processes_of(leader):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


# --- processes ---


@dataclass
class Running:
    name: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def check(self) -> None:
        if self.process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise Trouble(f"{self.name} ended with {self.process.returncode}:\n{tail}")


class Stage:
    """Everything that a run starts; leaving it stops all of it, whatever happened."""

    def __init__(self) -> None:
        self.running: list[Running] = []
        self.environ = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
        self.redis_port = 0

    def __enter__(self) -> Self:
        # Orphans of what is started here come back to this process, so none can outlive it unseen.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.folder = Path(tempfile.mkdtemp(prefix="gearwsgi-bench-"))
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self.new_stamps()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        self.stop(*self.running)
        shutil.rmtree(self.folder, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def new_stamps(self) -> Path:
        """An empty file of slots for the processes that are started from now on."""
        old = self.environ.get("BENCH_STAMPS")
        handle, name = tempfile.mkstemp(dir=self.folder, prefix="stamps-")
        os.close(handle)
        work.create(Path(name))
        self.environ["BENCH_STAMPS"] = name
        if old:
            Path(old).unlink(missing_ok=True)
        return Path(name)

    def start(self, name: str, command: Sequence[str], *, piped: bool = False, **environ: str) -> Running:
        log = self.folder / f"{name.replace(' ', '-')}-{len(self.running)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=self.environ | environ,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
                start_new_session=True,
                text=True,
            )
        running = Running(name, process, log)
        self.running.append(running)
        return running

    def stop(self, *running: Running) -> None:
        """TERM, and KILL for whatever of their sessions is left after two seconds."""
        leaders = {each.pid for each in running}
        for each in running:
            for pipe in (each.process.stdin, each.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._signal(leaders, signal.SIGTERM, only_leaders=True)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for each in running:
                each.process.poll()
            self._reap()
            if not any(processes_of(leader) for leader in leaders):
                break
            time.sleep(0.02)
        self._signal(leaders, signal.SIGKILL)
        for each in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(5)
        self._reap()
        self.running = [each for each in self.running if each not in running]

    def _signal(self, leaders: set[int], number: int, *, only_leaders: bool = False) -> None:
        for leader in leaders:
            for pid in [leader] if only_leaders else processes_of(leader):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _reap(self) -> None:
        """Collect adopted orphans; the processes started here are waited for by their Popen objects."""
        own = {each.pid for each in self.running}
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in map(int, children):
            if pid not in own:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    # --- servers ---

    def gearmand(self) -> Running:
        """A new, empty gearmand; the address is in the environment of all that is started after it."""
        port = free_port()
        state = tempfile.mkdtemp(dir=self.folder, prefix="state-")
        self.environ |= {"BENCH_GEARMAN": f"127.0.0.1:{port}", "BENCH_STATE_DIR": state}
        command = ["gearmand", "-L", "127.0.0.1", "-p", str(port), "-t", "1", "-l", "stderr"]
        running = self.start("gearmand", command)
        wait_for(lambda: listens(port), 10, "gearmand")
        return running

    def redis(self) -> Running:
        self.redis_port = free_port()
        self.environ["BENCH_REDIS"] = f"redis://127.0.0.1:{self.redis_port}/0"
        arguments = f"--port {self.redis_port} --bind 127.0.0.1 --appendonly no --dir {self.folder}".split()
        running = self.start("redis", ["redis-server", *arguments, "--save", ""])
        wait_for(lambda: listens(self.redis_port), 10, "redis-server")
        return running

    def flush_redis(self) -> None:
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=10) as sock:
            sock.sendall(b"FLUSHALL\r\n")
            sock.recv(100)


class Probe:
    """A process that submits for one peer when it is told to: one JSON line in, one JSON line out."""

    def __init__(self, stage: Stage, peer: str) -> None:
        php = ["php", str(ROOT / "benchmarks" / "peers" / "original_client.php")]
        command = php if peer == "php" else [sys.executable, "-m", "benchmarks.probe", peer]
        self.running = stage.start(f"probe {peer}", command, piped=True)
        if self._line() != "ready\n":
            self.running.check()
            raise Trouble(f"the submitting process of {peer} did not start: see {self.running.log}")

    def _line(self) -> str:
        assert self.running.process.stdout is not None
        line = self.running.process.stdout.readline()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.running.process.wait(5)
            self.running.check()
        return line

    def ask(self, command: str, **arguments: Any) -> dict[str, float]:
        assert self.running.process.stdin is not None
        self.running.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self.running.process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer


# --- the slots, as the jobs fill them ---


@dataclass(frozen=True)
class Stamp:
    began: int
    process: int
    ended: int


class Stamps:
    """Reads what `work()` writes."""

    def __init__(self, path: str) -> None:
        self._map = work.open_map(path)
        self._done = 0

    def __getitem__(self, number: int) -> Stamp:
        return Stamp(*work.SLOT.unpack_from(self._map, number * work.SLOT.size))

    def done(self, start: int, count: int) -> int:
        """How many of these jobs have ended, looked at in order (enough to see progress)."""
        self._done = max(self._done, start)
        while self._done < start + count and self[self._done].ended:
            self._done += 1
        return self._done - start

    def wait(self, start: int, count: int, seconds: float, watch: Sequence[Running] = ()) -> None:
        end = time.monotonic() + seconds
        while (done := self.done(start, count)) < count:
            for running in watch:
                running.check()
            if time.monotonic() > end:
                raise Trouble(f"{done} of {count} jobs done within {seconds:g} s")
            time.sleep(0.01)

    def all(self, start: int, count: int) -> list[Stamp]:
        return [self[number] for number in range(start, start + count)]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """No measurement may hang: SIGALRM breaks it off."""

    def alarm(_signal: int, _frame: object) -> None:
        raise Trouble(f"broken off after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")

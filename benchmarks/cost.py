"""`python -m benchmarks.cost`: where the time of one task() and of one job goes, as Markdown.

System calls are counted by strace (no time is taken under it), Python calls by sys.setprofile; the CPU
is shared out over functions by py-spy's samples (of threads that hold the GIL: a wait in the kernel is none).
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import venv

if TYPE_CHECKING:
    from benchmarks.measures import Bench  # at run time from the benchmarks' own environment only

SAMPLES = 400  # a second


def main() -> int:
    venv.enter("benchmarks.cost")
    from benchmarks import measures
    from benchmarks.harness import Stage

    if shutil.which("gearmand") is None:
        print("gearmand is not installed (Debian: apt-get install gearman-job-server).", file=sys.stderr)
        return 2
    if shutil.which("strace") is None:
        print(
            "strace is not installed, so system calls are left out (Debian: apt-get install strace).",
            file=sys.stderr,
        )
    with Stage() as stage:
        bench = measures.Bench(stage, 1.0)
        _task(bench)
        _job(bench)
    return 0


def _task(bench: "Bench") -> None:
    from benchmarks.harness import user_share
    from benchmarks.players import BY_KEY

    probe = bench.probe(BY_KEY["gearwsgi"])
    probe.ask("submit", start=0, n=1000)
    answer = probe.ask("submit", start=0, n=5000)
    cpu = answer["cpu"] / 5000 * 1e6
    print(f"### One `task()`\n\n{cpu:.1f} µs of CPU, {answer['wall'] / 5000 * 1e6:.1f} µs in all.")
    calls = probe.ask("calls", n=200)["calls"]
    print(f"{calls:.0f} Python calls (functions of Python only).\n")
    with Traced(probe.running.pid) as traced:
        probe.ask("submit", start=0, n=1000)
    print(traced.table(1000))
    with Sampled(probe.running.pid) as sampled:
        probe.ask("submit", start=0, n=25_000)
    print(sampled.table(cpu * user_share(probe.running.pid)))
    bench.reset()


def _job(bench: "Bench") -> None:
    from benchmarks.harness import process_cpu, processes_of, user_share
    from benchmarks.players import BY_KEY

    gearwsgi = BY_KEY["gearwsgi"]
    probe, worker = bench.probe(gearwsgi), bench.worker(gearwsgi)

    def drain(n: int, seconds: float = 60) -> int:
        first = bench.take(n)
        probe.ask("fill", start=first, n=n)
        bench.stamps.wait(first, n, seconds, [worker])
        return bench.stamps[first].process

    child = drain(2000)
    parts = {"the supervisor": worker.pid, "the worker process": child}
    server = bench.server(gearwsgi)
    assert server is not None
    before = {pid: process_cpu(pid) for pid in (*parts.values(), server.pid)}
    drain(10_000)
    used = {pid: (process_cpu(pid) - cpu) / 10_000 * 1e6 for pid, cpu in before.items()}
    print(f"### One job, drained\n\ngearmand: {used[server.pid]:.1f} µs of CPU.")
    print(f"Processes of the worker: {len(processes_of(worker.pid))}.\n")
    for name, pid in parts.items():
        print(f"#### In {name}\n\n{used[pid]:.1f} µs of CPU a job.\n")
        with Traced(pid) as traced:
            drain(2000, 120)
        print(traced.table(2000))
        with Sampled(pid) as sampled:
            drain(20_000)
        print(sampled.table(used[pid] * user_share(pid)))
    bench.stage.stop(worker)


class Traced:
    """Counts a process's system calls in a `with` block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._strace = shutil.which("strace")
        self._text = ""

    def __enter__(self) -> "Traced":
        if self._strace is not None:
            command = [self._strace, "-c", "-f", "-p", str(self._pid)]
            self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert self._process.stderr is not None
            self._process.stderr.readline()  # "attached"
        return self

    def __exit__(self, *_: object) -> None:
        if self._strace is not None:
            self._process.send_signal(signal.SIGINT)
            self._text = self._process.communicate(timeout=20)[1]

    def table(self, operations: int) -> str:
        counts = Counter[str]()
        for line in self._text.splitlines():
            found = re.fullmatch(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)", line)
            if found and found[2] != "total" and int(found[1]) > operations / 100:
                counts[found[2]] = int(found[1])
        if not counts:
            return "System calls: not counted.\n"
        each = ", ".join(f"`{name}` {count / operations:.2f}" for name, count in counts.most_common())
        return f"System calls: {sum(counts.values()) / operations:.2f}: {each}.\n"


class Sampled:
    """Samples a process's Python stacks in a `with` block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._own, self._under = Counter[str](), Counter[str]()

    def __enter__(self) -> "Sampled":
        self._output = Path(f"/tmp/gearwsgi-cost-{time.monotonic_ns()}.txt")
        spy = str(Path(sys.prefix) / "bin" / "py-spy")
        options = ["-p", str(self._pid), "--gil", "-r", str(SAMPLES), "-d", "60", "-f", "raw", "-o", str(self._output)]
        self._process = subprocess.Popen(
            [spy, "record", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.5)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)
        if self._output.exists():
            for line in self._output.read_text().splitlines():
                stack, _space, count = line.rpartition(" ")
                names = [_short(frame) for frame in stack.split(";")]
                self._own[names[-1]] += int(count)
                for name in set(names):
                    self._under[name] += int(count)
            self._output.unlink()

    def table(self, cpu: float) -> str:
        total = sum(self._own.values())
        if not total:
            return "Functions: not sampled.\n"
        lines = [f"{cpu:.0f} µs of it outside of the kernel:\n"]
        lines += ["| function | its own µs | with what it calls |", "|---|--:|--:|"]
        for name, count in self._own.most_common(22):
            lines.append(f"| `{name}` | {count / total * cpu:.1f} | {self._under[name] / total * cpu:.1f} |")
        return "\n".join([*lines, ""])


def _short(frame: str) -> str:
    """`send (gearwsgi/connection.py:143)` → `connection.send`."""
    found = re.fullmatch(r"(.*) \((?:.*/)?([\w<>. ]+?)(?:\.py)?(?::\d+)?\)", frame)
    return f"{found[2]}.{found[1]}" if found else frame


if __name__ == "__main__":
    sys.exit(main())

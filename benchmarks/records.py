"""`python -m benchmarks.records`: what records cost, measured with and without them in turn, as Markdown.

Needs gearmand and gearwsgi alone, no peers. Each round drains the same queue twice, starts a worker twice and queues
the same tasks twice: another of the two comes first each round. Ratios and differences are a round's; shown is the
median of the rounds, and their spread.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Probe, Running, Stage, Stamps, Trouble, process_cpu

ON, OFF = "on", "off"
JOBS = 12_000
TASKS = 2_000


class Bench:
    """One job server, one submitting process, and a worker with records or without."""

    def __init__(self, stage: Stage, records: str) -> None:
        self._stage = stage
        self._records = {ON: records, OFF: ""}
        stage.gearmand()
        self._stamps = Stamps(stage.environ["BENCH_STAMPS"])
        self._probe = Probe(stage, "gearwsgi")
        self._next = 0
        self.seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def round(self, order: Sequence[str], jobs: int) -> None:
        """Measure everything once with each."""
        for which in order:
            self._drain(which, jobs)
        for which in order:
            self._start(which)

    def _worker(self, which: str) -> Running:
        command = [sys.executable, "-m", "gearwsgi", "worker", "benchmarks.short_app:application", "--workers", "1"]
        return self._stage.start("worker", [*command, "--log-level", "warning"], GEARWSGI_RECORDS=self._records[which])

    def _fill(self, count: int) -> int:
        first, self._next = self._next, self._next + count
        self._probe.ask("fill", start=first, n=count)
        return first

    def _drain(self, which: str, jobs: int) -> None:
        first = self._fill(jobs)
        worker = self._worker(which)
        try:
            self._stamps.wait(first, jobs // 10, 60, [worker])
            used = process_cpu(worker.pid)
            self._stamps.wait(first, jobs, 120, [worker])
            used = process_cpu(worker.pid) - used
            ended = sorted(stamp.ended for stamp in self._stamps.all(first, jobs))[jobs // 10 :]
            self.seen["jobs a second"][which].append(len(ended) / (ended[-1] - ended[0]) * 1e9)
            self.seen["the supervisor's CPU a job, µs"][which].append(used / (0.9 * jobs) * 1e6)
            time.sleep(2)  # what waits is written
            self.seen["the supervisor's memory, MB"][which].append(_resident(worker.pid))
        finally:
            self._stage.stop(worker)

    def _start(self, which: str) -> None:
        first = self._fill(1)
        began = time.monotonic_ns()
        worker = self._worker(which)
        try:
            self._stamps.wait(first, 1, 60, [worker])
            self.seen["start to the first job, ms"][which].append((self._stamps[first].began - began) / 1e6)
        finally:
            self._stage.stop(worker)


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Trouble(f"process {pid} is gone")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs of a drain")
    parser.add_argument("--records", default="sqlite", help="where they are: sqlite, or a postgresql:// URL")
    options = parser.parse_args()
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    if shutil.which("gearmand") is None:
        print("gearmand is not installed (Debian: apt-get install gearman-job-server).", file=sys.stderr)
        return 2
    try:
        with Stage() as stage:
            bench = Bench(stage, options.records)
            for number in range(options.rounds):
                bench.round((ON, OFF) if number % 2 else (OFF, ON), options.jobs)
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    for what, values in bench.seen.items():
        on, off = values[ON], values[OFF]
        pairs = list(zip(on, off, strict=True))
        by = [a / b for a, b in pairs] if what == "jobs a second" else [a - b for a, b in pairs]
        print(what, statistics.median(on), statistics.median(off), statistics.median(by), min(by), max(by))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.records`: what records cost, measured with and without them in turn, as Markdown.

Needs gearmand and gearwsgi alone, no peers. Each round drains the same queue twice, starts a worker twice and queues
the same tasks twice: another of the two comes first each round. Ratios and differences are a round's; shown is the
median of the rounds, and their spread.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import Probe, Running, Stage, Stamps, Trouble, process_cpu
from gearwsgi.settings import read_settings
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store

ON, OFF = "on", "off"
RATE = "jobs a second"
JOBS = 12_000
TASKS = 2_000


class Bench:
    """One job server, one submitting process, and a worker with records or without."""

    def __init__(self, stage: Stage, records: str) -> None:
        self._stage = stage
        self._records = {ON: records, OFF: ""}
        self._stamps = Stamps(stage.environ["BENCH_STAMPS"])
        self._next = 0
        self._begin()
        self.seen: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def _begin(self) -> None:
        self._stage.gearmand()
        self._probe = Probe(self._stage, "gearwsgi")

    def round(self, order: Sequence[str], jobs: int) -> None:
        """Measure everything once with each."""
        for which in order:
            self._drain(which, jobs)
        for which in order:
            self._start(which)
        self.submit(order)
        self._stage.stop(*self._stage.running)  # and with the job server what was submitted
        self._begin()

    def submit(self, order: Sequence[str]) -> None:
        """What one `task()` costs, in a process of its own each time."""
        for which in order:
            self._stage.environ["GEARWSGI_RECORDS"] = self._records[which]
            probe = Probe(self._stage, "gearwsgi")
            probe.ask("submit", start=0, n=TASKS // 4)
            answer = probe.ask("submit", start=0, n=TASKS)
            self.seen["a task(), µs of CPU"][which].append(answer["cpu"] / TASKS * 1e6)
            self._stage.stop(probe.running)
        del self._stage.environ["GEARWSGI_RECORDS"]

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
            self.seen[RATE][which].append(len(ended) / (ended[-1] - ended[0]) * 1e9)
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
    parser.add_argument("--many", type=int, metavar="N", help="only: how long `gearwsgi tasks` takes with N records")
    parser.add_argument("--records", default="sqlite", help="where they are: sqlite, or a postgresql:// URL")
    options = parser.parse_args()
    if options.many:
        print(many(options.many))
        return 0
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
    print(table(bench.seen))
    return 0


def table(seen: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Medians, and of each round's ratio or difference also the least and the most, as Markdown."""
    lines = ["| | with records | without | by round | least … most |", "|---|--:|--:|--:|--:|"]
    for what, values in seen.items():
        pairs = list(zip(values[ON], values[OFF], strict=True))
        is_rate = what == RATE
        by = [on / off if is_rate else on - off for on, off in pairs]
        shown = [f"{value:.2f} \N{MULTIPLICATION SIGN}" if is_rate else f"{value:+.1f}" for value in by]
        order = [text for _, text in sorted(zip(by, shown, strict=True))]
        medians = " | ".join(f"{statistics.median(values[which]):,.1f}" for which in (ON, OFF))
        lines.append(f"| {what} | {medians} | {order[len(order) // 2]} | {order[0]} … {order[-1]} |")
    return "\n".join(lines)


def many(count: int) -> str:
    """How long `gearwsgi tasks` takes with so many records."""
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({"state_dir": folder, "records": "sqlite"}, {})
        database = open_database(settings)
        assert database is not None
        now = time.time()
        one = ("mail.welcome", "POST", "/mail/welcome", "job")
        rows = [(f"{n:032x}", *one, *[now - n] * 5, 5, "here", 7, None, None) for n in range(count)]
        with database.transaction(write=True) as transaction:
            Store.put_finished(transaction, rows)
        began = time.monotonic()
        Store(database).tasks(state="dead")  # there is none: all are looked at
        lines = [f"{count:,} records, the query alone, all looked at: {time.monotonic() - began:.3f} s"]
        database.close()
        for arguments in ([], ["--state", "dead"], ["--service", "mail.welcome"], ["--since", "1h", "--json"]):
            command = [sys.executable, "-m", "gearwsgi", "tasks", *arguments]
            began = time.monotonic()
            subprocess.run(command, env={**os.environ, "GEARWSGI_STATE_DIR": folder}, check=True, capture_output=True)
            lines.append(f"{count:,} records, `gearwsgi tasks {' '.join(arguments)}`: {time.monotonic() - began:.2f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

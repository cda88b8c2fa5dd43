"""How cost grows with the payload, the backlog, the workers and the submitting threads."""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass

from benchmarks.harness import Trouble, deadline, median
from benchmarks.measures import Bench, drain_once, steady_rate
from benchmarks.players import BY_KEY
from benchmarks.svg import Chart, Line
from benchmarks.venv import ROOT

IMAGES = ROOT / "docs" / "images"
Series = dict[str, dict[float, float]]


GEARWSGI, BARE = BY_KEY["gearwsgi"], BY_KEY["bare"]


class Growth:
    """One method a chart: it takes a point on the x axis and returns a value for each line."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def drained(self, first: int, n: int) -> float:
        """Jobs a second of one worker, over the first n of what waits."""
        worker = self.bench.worker(GEARWSGI)
        try:
            self.bench.stamps.wait(first, n, 60, [worker])
            return steady_rate(self.bench.stamps.all(first, n), 1)
        finally:
            self.bench.stage.stop(worker)

    def payload(self, size: float) -> dict[str, float]:
        n = 10 if size > 1e6 else 200
        values = {}
        for player, name in ((GEARWSGI, "task()"), (BARE, "bare socket")):
            probe = self.bench.probe(player)
            probe.ask("body", n=3, size=int(size))
            values[name] = probe.ask("body", n=n, size=int(size))["wall"] / n * 1000
        first = self.bench.take(n * 2)
        self.bench.probe(GEARWSGI).ask("sink", start=first, n=n * 2, size=int(size))
        return values | {"one job, drained": 1000 / self.drained(first, n * 2)}

    def backlog(self, waiting: float) -> dict[str, float]:
        probe, n, fill = self.bench.probe(GEARWSGI), self.bench.scaled(1500), int(waiting)
        first = self.bench.take(fill + n)
        probe.ask("fill", start=first, n=fill)
        wall = probe.ask("submit", start=first + fill, n=n)["wall"]
        return {"task()": wall / n * 1e6, "one job": 1e6 / self.drained(first, n)}

    def workers(self, count: float) -> dict[str, float]:
        number = int(count)
        slow = drain_once(self.bench, GEARWSGI, self.bench.scaled(300 * number), number, 5.0)
        fast = drain_once(self.bench, GEARWSGI, self.bench.scaled(6000), number)
        return {"handler waits 5 ms": slow.value, "short handler": fast.value}

    def threads(self, count: float) -> dict[str, float]:
        probe, n = self.bench.probe(GEARWSGI), self.bench.scaled(4000)
        probe.ask("threads", start=0, n=n // 4, count=int(count))
        return {"task()": n / probe.ask("threads", start=0, n=n, count=int(count))["wall"]}


@dataclass(frozen=True)
class Plot:
    name: str
    points: tuple[float, ...]
    title: str
    across: str
    up: str
    log_up: bool = False


PLOTS = (
    Plot("payload", (1e3, 1e5, 5e6), "Cost by size of the payload", "bytes", "ms (log)", True),
    Plot("backlog", (1, 100, 1e4, 5e4, 2e5), "Cost by jobs that wait in the queue", "jobs waiting", "µs"),
    Plot("workers", (1, 2, 4, 8), "Throughput by workers", "workers", "jobs a second (log)", True),
    Plot("threads", (1, 2, 5, 10, 20, 50), "Throughput by submitting threads", "threads", "tasks a second"),
)


def medians(bench: Bench, plot: Plot, rounds: int, most: float) -> Series:
    """All points in turn, then all again, so that a slow minute of the machine is no step in the curve."""
    seen: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(rounds):
        for point in plot.points:
            if plot.name == "backlog" and point > most:
                continue
            print(f"\r{plot.name}: round {turn + 1}, {point:g} …      ", end="", file=sys.stderr, flush=True)
            bench.reset()
            try:
                with deadline(180):
                    values = getattr(Growth(bench), plot.name)(point)
            except Trouble as trouble:
                bench.trouble(f"{plot.name}, {point:g}", trouble)
                continue
            for line, value in values.items():
                seen[line][point].append(value)
    return {line: {point: median(values) for point, values in by.items()} for line, by in seen.items()}


def write(bench: Bench, *, quick: bool) -> None:
    """Measure all, write the charts, and print their numbers."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for plot in PLOTS:
        series = medians(bench, plot, 1 if quick else 3, 2e4 if quick else 2e5)
        lines = [Line(name, sorted(points.items())) for name, points in series.items()]
        if lines:
            path = IMAGES / f"cost-by-{plot.name}.svg"
            path.write_text(Chart(plot.title, plot.across, plot.up, lines, plot.log_up).svg())
            print(f"\r{path.relative_to(ROOT)} {json.dumps(series, ensure_ascii=False)}")

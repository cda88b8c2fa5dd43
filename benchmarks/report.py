"""The bars, what was reached, and the Markdown that the README quotes."""

import os
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmarks.measures import Results, Sample
from benchmarks.players import ALL

LABELS = {player.key: player.label for player in ALL}
TIMES = "\N{MULTIPLICATION SIGN}"
UNITS = {
    "submit": ("tasks/s", "CPU µs a task"),
    "batch": ("tasks/s", "CPU µs a task"),
    "drain": ("jobs/s", "CPU µs a job"),
    "workers": ("jobs/s", "CPU µs a job"),
    "latency": ("ms, p50", ""),
    "memory": ("MB", ""),
    "start": ("s", ""),
    "body": ("ms", "CPU µs"),
    "behind": ("s", ""),
    "overhead": ("µs", ""),
    "django enqueue": ("tasks/s", "CPU µs a task"),
    "django drain": ("tasks/s", ""),
    "django latency": ("ms, p50", ""),
}
NAMES = {
    "submit": "`task()` one by one",
    "batch": "100 tasks in one request, `after_response`",
    "drain": "drain, one worker",
    "workers": "drain, more workers",
    "latency": "`task()` to handler start, idle, p50",
    "memory": "memory of 4 workers (PSS)",
    "start": "cold start to the first job",
    "body": "5 MB body",
    "behind": "short jobs behind one of 8 s, two workers",
    "overhead": "middleware on a request that queues nothing",
    "django enqueue": "Django's own Tasks, `enqueue()` one by one",
    "django drain": "Django's own Tasks, drain, one worker",
    "django latency": "Django's own Tasks, `enqueue()` to the function's start, idle, p50",
}
KEYS = {
    "onebyone": "one by one",
    "eight": "gearwsgi, 8 workers",
}


@dataclass(frozen=True)
class Bar:
    measure: str
    against: str
    at_least: bool
    limit: float
    values: Callable[[Results], list[float]]
    unit: str = f" {TIMES}"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


def ratio(measure: str, over: str, under: str) -> Callable[[Results], list[float]]:
    """over / under, round by round: what slows the machine for a while slows both."""

    def values(results: Results) -> list[float]:
        one, other = results.of(measure, over), results.of(measure, under)
        return [one[turn].value / other[turn].value for turn in one if turn in other]

    return values


def plain(measure: str, key: str = "gearwsgi") -> Callable[[Results], list[float]]:
    return lambda results: [sample.value for sample in results.of(measure, key).values()]


def spare_cpu(results: Results) -> list[float]:
    """CPU of task() as a share of what it may cost: 1.5 times the bare socket's + 30 µs."""
    one, other = results.of("submit", "gearwsgi"), results.of("submit", "bare")
    return [(one[turn].cpu or 0.0) / (1.5 * (other[turn].cpu or 0.0) + 30) for turn in one if turn in other]


def a_worker(results: Results) -> list[float]:
    four, eight = results.of("memory", "gearwsgi"), results.of("memory", "eight")
    return [(eight[turn].value - four[turn].value) / 4 for turn in eight if turn in four]


BARS = (
    Bar("submit", "Celery", True, 3, ratio("submit", "gearwsgi", "celery")),
    Bar("submit", "RQ", True, 3, ratio("submit", "gearwsgi", "rq")),
    Bar("submit", "Dramatiq", True, 1.5, ratio("submit", "gearwsgi", "dramatiq")),
    Bar("submit", "Huey", True, 0.8, ratio("submit", "gearwsgi", "huey")),
    Bar("submit", f"CPU, of 1.5 {TIMES} bare socket + 30 µs", False, 1, spare_cpu),
    Bar("batch", "one by one", True, 3, ratio("batch", "gearwsgi", "onebyone")),
    Bar("drain", "Celery", True, 5, ratio("drain", "gearwsgi", "celery")),
    Bar("drain", "RQ SimpleWorker", True, 12, ratio("drain", "gearwsgi", "rq")),
    Bar("drain", "RQ forking", True, 12, ratio("drain", "gearwsgi", "rqfork")),
    Bar("drain", "Huey", True, 1.5, ratio("drain", "gearwsgi", "huey")),
    Bar("drain", "Dramatiq", True, 2.5, ratio("drain", "gearwsgi", "dramatiq")),
    Bar("drain", "HTTP push", True, 3, ratio("drain", "gearwsgi", "http")),
    Bar("drain", "bare one-grab loop", True, 1.3, ratio("drain", "gearwsgi", "bare")),
    Bar("workers", "8 to 1, handler waits 5 ms", True, 7, ratio("workers", "8 x 5 ms", "1 x 5 ms")),
    Bar("workers", "2 to 1, short handler", True, 1, ratio("workers", "2 x short", "1 x short")),
    Bar("latency", "Celery", False, 1 / 3, ratio("latency", "gearwsgi", "celery")),
    Bar("latency", "HTTP push", False, 1.4, ratio("latency", "gearwsgi", "http")),
    Bar("memory", "Celery", False, 0.5, ratio("memory", "gearwsgi", "celery")),
    Bar("memory", "each further worker", False, 7, a_worker, " MB"),
    Bar("start", "Celery", False, 0.5, ratio("start", "gearwsgi", "celery")),
    Bar("body", "bare socket", False, 3, ratio("body", "gearwsgi", "bare")),
    Bar("behind", "the slowest of them", False, 2.5, plain("behind"), " s"),
    Bar("django enqueue", "django-tasks-db", True, 1, ratio("django enqueue", "gearwsgi", "django-tasks-db")),
    Bar("django drain", "django-tasks-db", True, 2, ratio("django drain", "gearwsgi", "django-tasks-db")),
    Bar("django latency", "django-tasks-db", False, 0.5, ratio("django latency", "gearwsgi", "django-tasks-db")),
    Bar("overhead", "with minus without", False, 3, plain("overhead"), " µs"),
)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def bars(results: Results) -> Iterator[tuple[Bar, float | None]]:
    for bar in BARS:
        values = bar.values(results)
        yield bar, statistics.median(values) if values else None


def bars_table(results: Results, names: list[str]) -> str:
    lines = ["| measure | against | bar | reached | |", "|---|---|---|---|---|"]
    for bar, value in bars(results):
        if bar.measure.partition(" ")[0] in names:
            limit = f"{'≥' if bar.at_least else '≤'} {number(bar.limit)}{bar.unit}"
            reached = "not measured" if value is None else f"{number(value)}{bar.unit}"
            verdict = "" if value is None else "met" if bar.met(value) else "**missed**"
            lines.append(f"| {NAMES[bar.measure]} | {bar.against} | {limit} | {reached} | {verdict} |")
    return "\n".join(lines)


def numbers_table(results: Results, names: list[str]) -> str:
    lines = [
        "| measure | who | median | least to most | CPU µs an operation | of the job server |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name in names:
        for (measure, key), samples in results.samples.items():
            if measure == name or measure.startswith(f"{name} "):
                who = KEYS.get(key, LABELS.get(key, key))
                lines.append(_row(NAMES[measure], who, UNITS[measure][0], list(samples.values())))
    return "\n".join(lines)


def _row(name: str, who: str, unit: str, samples: list[Sample]) -> str:
    values = [sample.value for sample in samples]
    spread = f"{number(min(values))} to {number(max(values))}"
    cpu = [sample.cpu for sample in samples if sample.cpu is not None]
    server = [sample.server_cpu for sample in samples if sample.server_cpu]
    cells = [number(statistics.median(part)) if part else "" for part in (cpu, server)]
    middle = f"{number(statistics.median(values))} {unit}"
    return f"| {name} | {who} | {middle} | {spread} | {cells[0]} | {cells[1]} |"


def machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def noise_line(results: Results) -> str:
    if not results.noise:
        return ""
    middle = statistics.median(results.noise)
    least, most = ((edge / middle - 1) * 100 for edge in (min(results.noise), max(results.noise)))
    return (
        f"Noise: a fixed loop beside the rounds took {middle * 1000:.1f} ms in the median, "
        f"{least:+.0f} % to {most:+.0f} %."
    )


def versions() -> str:
    """What is compared, for a ratio means little without it."""
    names = ("gearwsgi", "celery", "rq", "huey", "dramatiq", "waitress", "flask", "django", "django-tasks-db")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def markdown(results: Results, names: list[str], rounds: int) -> str:
    parts = [
        f"{machine()}; medians of {rounds} rounds.\n{versions()}.\n{noise_line(results)}",
        bars_table(results, names),
        numbers_table(results, names),
    ]
    if results.troubles:
        parts.append("Not measured:\n\n" + "\n".join(f"- {trouble}" for trouble in results.troubles))
    return "\n\n".join(parts)

"""Shows a supervisor's metrics to Prometheus's library: made anew for each scrape, from what was counted."""

import platform
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from .._version import __version__
from ..address import Address
from ..errors import SpoolError
from ..message.limits import Limit, find_limit, split_queue
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from .servers import KEEP, Answer, JobServers, Queue
from .tally import OTHER, Tallies, cumulated

WORKER_STATES = ("starting", "idle", "busy", "draining", "disconnected")
MAX_QUEUES = 200
"""Queues of the job servers that have metrics of their own; those that have jobs come first."""


class Snapshot(NamedTuple):
    """What a supervisor does at one moment.

    Attributes:
        at: when that was, by `time.monotonic`.
        is_ready: whether it serves, and all its worker processes are up.
        workers: how many slots are in each state.
        running: how many jobs run.
        dropped: how many records were not written.
        paused: for each queue whether it is paused.
        idle: the queues where nothing waits that could run: a worker that serves them has nothing to do.
    """

    at: float
    is_ready: bool = False
    workers: Mapping[str, int] = {}
    running: int = 0
    dropped: int = 0
    paused: Mapping[str, bool] = {}
    idle: Collection[str] = ()


@dataclass
class State:
    """What the metrics are made of. The supervisor's thread writes it, and the thread of a scrape reads it.

    Attributes:
        tallies: the counted attempts.
        exits: how many worker processes have ended, by reason.
        snapshot: what goes on; replaced, and never changed.
        fronts: for each queue the Unix time since when, at the earliest, its jobs wait.
        successes: for each entry of the schedule the Unix time when a task of it last went well.
        settings: the middleware's; None until the application is loaded.
    """

    tallies: Tallies = field(default_factory=Tallies)
    exits: dict[str, int] = field(default_factory=dict)
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(time.monotonic()))
    fronts: dict[str, float] = field(default_factory=dict)
    successes: dict[str, float] = field(default_factory=dict)
    settings: Settings | None = None


class Metrics:
    """A collector for Prometheus's library.

    Args:
        state: what to show.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._servers = JobServers()
        self._spools = _Spools()
        self._empty: dict[str, float] = {}

    def describe(self) -> list[Metric]:
        """Nothing: with a description, registering this would not ask the job servers."""
        return []

    def has_server(self) -> bool:
        """Whether a job server answers."""
        settings = self._state.settings
        return settings is not None and any(each is not None for each in self._servers.look(settings.servers).values())

    def collect(self) -> Iterator[Metric]:
        """All metrics, for one scrape."""
        snapshot = self._state.snapshot
        yield from _attempts(self._state.tallies)
        yield _gauge("gearwsgi_jobs_running", "Jobs that worker processes of this supervisor run.", snapshot.running)
        yield _of_each(
            "gearwsgi_workers",
            "Workers of this supervisor. disconnected: idle, and without a job server.",
            "state",
            {state: snapshot.workers.get(state, 0) for state in WORKER_STATES},
        )
        exits = CounterMetricFamily(
            "gearwsgi_worker_exits",
            "Worker processes that ended. recycled: --max-jobs or --max-rss. stopped: a reload, a stop. "
            "timeout: killed after a job's time limit. killed: by a signal. exited: by themselves. "
            "failed: before they were ready.",
            labels=["reason"],
        )
        for reason, number in list(self._state.exits.items()):
            exits.add_metric([reason], number)
        yield exits
        yield CounterMetricFamily(
            "gearwsgi_records_dropped",
            "Records that were not written, because their database was away or too slow.",
            value=snapshot.dropped,
        )
        if successes := dict(self._state.successes):
            yield _of_each(
                "gearwsgi_schedule_last_success_timestamp_seconds",
                "When a task of an entry of the schedule went well last, as far as this supervisor knows.",
                "entry",
                successes,
            )
        build = GaugeMetricFamily(
            "gearwsgi_build_info", "1; the versions are the labels.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        settings = self._state.settings
        if settings is not None:
            yield from self._of_site(settings, snapshot)

    def _of_site(self, settings: Settings, snapshot: Snapshot) -> Iterator[Metric]:
        dead, outbox = self._spools.count(settings)
        if dead is not None:
            yield _gauge("gearwsgi_dead_letters", "Dead letters in the state directory of this supervisor.", dead)
        if outbox is not None:
            yield _gauge("gearwsgi_outbox_messages", "Tasks in its outbox, which no job server has taken yet.", outbox)
        found = self._servers.look(settings.servers)
        yield _of_each(
            "gearwsgi_server_up",
            "Whether a job server answers within a second: 1, else 0.",
            "server",
            {str(address): float(answer is not None) for address, answer in found.items()},
        )
        yield from self._of_queues(found, snapshot)
        if settings.limits:
            yield from _of_limits(settings.limits, found)

    def _of_queues(self, found: Mapping[Address, Answer], snapshot: Snapshot) -> Iterator[Metric]:
        jobs = GaugeMetricFamily(
            "gearwsgi_queue_jobs",
            "Jobs on the job servers: waiting, delayed, running. gearmand counts delayed ones as waiting.",
            labels=["queue", "state"],
        )
        oldest = GaugeMetricFamily(
            "gearwsgi_queue_oldest_seconds",
            "How long the oldest job that could run has waited. The embedded job server says it; of gearmand it is at "
            "most this long, by the last job that was grabbed here, and delayed jobs count where no worker is idle.",
            labels=["queue"],
        )
        now = time.time()
        for name, queue in self._together(found, now, snapshot.paused).items():
            for state, number in (("waiting", queue.waiting), ("delayed", queue.delayed), ("running", queue.running)):
                jobs.add_metric([name, state], number)
            oldest.add_metric([name], queue.oldest or 0.0)
        yield jobs
        yield oldest
        yield _of_each("gearwsgi_queue_paused", "Whether a queue is paused: 1, else 0.", "queue", dict(snapshot.paused))

    def _together(self, found: Mapping[Address, Answer], now: float, paused: Mapping[str, bool]) -> dict[str, Queue]:
        """The queues of all job servers together. Where there are too many, the rest of them is shown as one."""
        queues: dict[str, Queue] = {}
        for answer in found.values():
            for function, queue in (answer or {}).items():
                name = split_queue(function)[0]
                told = queue if queue.oldest is not None else queue._replace(oldest=self._guess(name, queue, now))
                queues[name] = _sum(queues.get(name), told)
        self._empty = {name: since for name, since in self._empty.items() if name in queues}
        if len(queues) <= MAX_QUEUES:
            return queues
        by_size = sorted(queues, key=lambda name: sum(queues[name][:3]), reverse=True)
        together = {name: queues[name] for name in by_size[:MAX_QUEUES]}
        for name in by_size[MAX_QUEUES:]:
            together[OTHER] = _sum(together.get(OTHER), queues[name])
        return together

    def _guess(self, name: str, queue: Queue, now: float) -> float:
        """How long the oldest job has waited, at most, where the job server does not say."""
        if not queue.waiting or name in self._state.snapshot.idle:
            self._empty[name] = now
            return 0.0
        return max(0.0, now - max(self._empty.setdefault(name, now), self._state.fronts.get(name, 0.0)))


def _of_limits(limits: Sequence[Limit], found: Mapping[Address, Answer]) -> Iterator[Metric]:
    """How many tasks of keys wait and run, by the pattern of their limit."""
    waiting = dict.fromkeys((limit.pattern for limit in limits), 0.0)
    running = dict(waiting)
    for answer in found.values():
        for function, queue in (answer or {}).items():
            key = split_queue(function)[1]
            limit = find_limit(limits, key) if key and any(queue[:3]) else None
            if limit is not None:
                waiting[limit.pattern] += queue.waiting + queue.delayed
                running[limit.pattern] += queue.running
    yield _of_each("gearwsgi_limit_waiting", "Jobs of limited keys that wait, delayed ones too.", "pattern", waiting)
    yield _of_each("gearwsgi_limit_running", "Jobs of limited keys that run.", "pattern", running)


def _sum(one: Queue | None, other: Queue) -> Queue:
    if one is None:
        return other
    oldest = max(one.oldest or 0.0, other.oldest or 0.0)
    return Queue(one.waiting + other.waiting, one.delayed + other.delayed, one.running + other.running, oldest)


class _Spools:
    """How many letters the dead letters and the outbox have. Counted only once in a while: there may be many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: tuple[int | None, int | None] = (None, None)
        self._counted_at = -KEEP

    def count(self, settings: Settings) -> tuple[int | None, int | None]:
        """Dead letters, and messages in the outbox; None where that can't be read."""
        with self._lock:
            if time.monotonic() - self._counted_at >= KEEP:
                spools = (DeadLetters(settings).spool, Outbox(settings).spool)
                dead, outbox = (_number(spool.count) for spool in spools)
                self._counts = dead, outbox
                self._counted_at = time.monotonic()
            return self._counts


def _number(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except SpoolError:
        return None  # so the metric is missing, which its alert rule notices


def _attempts(tallies: Tallies) -> Iterator[Metric]:
    labels = ["queue", "service"]
    jobs = CounterMetricFamily(
        "gearwsgi_jobs",
        "Attempts that ended, and how: done, retried (failed, and tried again), dead (failed for good), cancelled.",
        labels=[*labels, "outcome"],
    )
    ran = HistogramMetricFamily("gearwsgi_job_duration_seconds", "How long attempts ran.", labels=labels)
    waited = HistogramMetricFamily(
        "gearwsgi_job_wait_seconds",
        "How long attempts had waited, from when they were due to their start.",
        labels=labels,
    )
    for key, tally in tallies.items():
        for outcome, number in tally.outcomes.items():
            jobs.add_metric([*key, outcome], number)
        _add(ran, key, tally.ran, tally.ran_for)
        _add(waited, key, tally.waited, tally.waited_for)
    yield jobs
    yield ran
    yield waited


def _add(family: HistogramMetricFamily, key: tuple[str, str], buckets: list[int], total: float) -> None:
    family.add_metric(list(key), list(cumulated(list(buckets))), total)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _of_each(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family

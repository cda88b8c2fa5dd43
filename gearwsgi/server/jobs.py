"""What the queue consists of: jobs, functions, and the peers (connections) that submit and run jobs."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

__all__ = [
    "DELAYED",
    "GIVEN_UP",
    "GONE",
    "HIGH",
    "LOW",
    "NORMAL",
    "QUEUED",
    "RUNNING",
    "Changes",
    "Function",
    "Job",
    "Outlet",
    "Peer",
    "Row",
    "Uniques",
]

HIGH, NORMAL, LOW = range(3)
QUEUED, DELAYED, RUNNING, GIVEN_UP, GONE = range(5)

# id, function, unique, data, priority, due, position, attempts
Row = tuple[int, bytes, bytes, bytes, int, float, int, int]


class Job:
    """A job in the queue.

    Attributes:
        id: the number in its handle; never used again, also not after a restart.
        position: its place in its line; another one when it is queued again.
        due: when it may run (seconds since 1970); 0 is at once.
        since: when it began to wait in its line (seconds since 1970).
        attempts: how often it was handed to a worker.
        durable: whether it outlives its clients and a restart; a foreground job does neither.
        stored: whether it has a row on disk.
        clients: the peers that wait for its result, one entry for each submit.
        progress: numerator and denominator of the last WORK_STATUS.
    """

    __slots__ = ("attempts", "clients", "data", "due", "durable", "function", "id", "limit_at",
                 "position", "priority", "progress", "since", "state", "stored", "unique", "worker")  # fmt: skip

    def __init__(self, id: int, function: "Function", unique: bytes, data: bytes, *, priority: int, due: float) -> None:
        self.id = self.position = id
        self.function = function
        self.unique = unique
        self.data = data
        self.priority = priority
        self.due = due
        self.since = 0.0
        self.attempts = 0
        self.durable = self.stored = False
        self.state = QUEUED
        self.clients: list[Peer] | None = None
        self.worker: Peer | None = None
        self.progress = (0, 0)
        self.limit_at = inf

    @property
    def key(self) -> bytes:
        """What it coalesces by: its unique, or a hash of its data if that is `-`; empty: it coalesces with none."""
        return b"-\0" + hashlib.sha256(self.data).digest() if self.unique == b"-" else self.unique


class Outlet(Protocol):
    """Where a peer is sent something."""

    def send(self, packet: bytes) -> object: ...
    def forward(self, packet: bytes) -> None: ...


@dataclass(slots=True, eq=False)
class Peer:
    """What the queue knows of a connection: as a worker, as a client, or as both."""

    outlet: Outlet
    name: bytes = b"-"
    exceptions: bool = False  # the client asked for WORK_EXCEPTION; else it is told WORK_FAIL
    functions: dict[bytes, float] = field(default_factory=dict)  # → time limit in seconds; least recently served first
    asleep: bool = False
    woken_for: "Function | None" = None
    running: dict[int, Job] = field(default_factory=dict)
    waiting: dict[int, Job] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Function:
    """A queue by its Gearman name: three lines of jobs, one for each priority, and the workers that serve it."""

    name: bytes
    lines: tuple["OrderedDict[int, Job]", "OrderedDict[int, Job]", "OrderedDict[int, Job]"] = field(
        default_factory=lambda: (OrderedDict(), OrderedDict(), OrderedDict())
    )
    matured: list[tuple[int, Job]] = field(default_factory=list)  # delayed jobs that are due keep their place
    delayed: int = 0
    running: int = 0
    workers: int = 0
    sleepers: dict[Peer, None] = field(default_factory=dict)
    woken: int = 0  # workers woken for it that have not grabbed since
    limits: list[int] = field(default_factory=lambda: [0, 0, 0])  # maxqueue for each priority; 0 is none

    @property
    def ready(self) -> int:
        """Jobs that a worker could have now."""
        return len(self.lines[0]) + len(self.lines[1]) + len(self.lines[2])

    @property
    def total(self) -> int:
        """Jobs, those running and delayed included."""
        return self.ready + self.delayed + self.running

    @property
    def is_idle(self) -> bool:
        """Whether it has neither jobs nor workers nor limits, so that nothing is lost if it is forgotten."""
        return not (self.workers or self.total or any(self.limits))


class Uniques:
    """Which job has a unique, function by function. Nearly all uniques are in one function only."""

    def __init__(self) -> None:
        self._found: dict[bytes, Job | dict[bytes, Job]] = {}

    def get(self, key: bytes, function: Function) -> Job | None:
        """The function's job with that key."""
        found = self._found.get(key)
        if isinstance(found, dict):
            return found.get(function.name)
        return found if found is not None and found.function is function else None

    def any(self, key: bytes) -> Job | None:
        """A job with that key, of whichever function."""
        found = self._found.get(key)
        return next(iter(found.values())) if isinstance(found, dict) else found

    def add(self, key: bytes, job: Job) -> None:
        """Give a key to a job, in its function."""
        found = self._found.setdefault(key, job)
        if isinstance(found, dict):
            found[job.function.name] = job
        elif found is not job:
            self._found[key] = {found.function.name: found, job.function.name: job}

    def drop(self, key: bytes, job: Job) -> None:
        """Free a key, if it is this job's."""
        found = self._found.get(key)
        if found is job:
            del self._found[key]
        elif isinstance(found, dict) and found.get(job.function.name) is job:
            del found[job.function.name]
            if not found:
                del self._found[key]


@dataclass(slots=True)
class Changes:
    """What is to be done outside the queue, in the order in which it happened."""

    insert: list[Job] = field(default_factory=list)
    update: dict[int, Job] = field(default_factory=dict)  # position or attempts are not those on disk
    delete: list[int] = field(default_factory=list)
    wake: list[Peer] = field(default_factory=list)
    failed: list[tuple[Job, list[Peer]]] = field(default_factory=list)  # to be told WORK_FAIL
    dead: list[tuple[Job, str]] = field(default_factory=list)  # given up, with the reason

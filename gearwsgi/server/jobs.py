"""What the queue is made of: jobs, the functions that hold them, the connections that submit and run them."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

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
    "Peer",
    "Row",
]

HIGH, NORMAL, LOW = range(3)
QUEUED, DELAYED, RUNNING, GIVEN_UP, GONE = range(5)

# id, function, unique, data, priority, due, position, attempts
Row = tuple[int, bytes, bytes, bytes, int, float, int, int]


class Job:
    """One queued unit.

    Attributes:
        id: the number in its handle; never used again, also not after a restart.
        position: its place in its line; changes when it is queued again.
        due: when it may run (seconds since 1970); 0 is at once.
        attempts: how often it was handed to a worker.
        durable: it outlives its clients and a restart; a foreground job does neither.
        stored: it has a row on disk.
        clients: who waits for its result, one entry a submit.
    """

    __slots__ = ("attempts", "clients", "data", "denominator", "due", "durable", "function", "id", "limit_at",
                 "numerator", "position", "priority", "state", "stored", "unique", "worker")  # fmt: skip

    def __init__(self, id: int, function: "Function", unique: bytes, data: bytes, *, priority: int, due: float) -> None:
        self.id = self.position = id
        self.function = function
        self.unique = unique
        self.data = data
        self.priority = priority
        self.due = due
        self.attempts = 0
        self.durable = self.stored = False
        self.state = QUEUED
        self.clients: list[Peer] | None = None
        self.worker: Peer | None = None
        self.numerator = self.denominator = b"0"
        self.limit_at = inf

    @property
    def key(self) -> bytes:
        """What it coalesces by: its unique, or the hash of its data if that is `-`; empty: by nothing."""
        return b"-\0" + hashlib.sha256(self.data).digest() if self.unique == b"-" else self.unique


@dataclass(slots=True, eq=False)
class Peer:
    """What the queue knows of a connection: as a worker, as a client, or as both."""

    name: bytes = b"-"
    functions: dict[bytes, float] = field(default_factory=dict)  # → time limit in seconds; least recently served first
    asleep: bool = False
    woken_for: "Function | None" = None
    running: dict[int, Job] = field(default_factory=dict)
    waiting: dict[int, Job] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Function:
    """A queue by its Gearman name: three lines of jobs and the workers that serve it."""

    name: bytes
    lines: tuple["OrderedDict[int, Job]", "OrderedDict[int, Job]", "OrderedDict[int, Job]"] = field(
        default_factory=lambda: (OrderedDict(), OrderedDict(), OrderedDict())
    )
    matured: list[tuple[int, Job]] = field(default_factory=list)  # delayed jobs that are due keep their place
    delayed: int = 0
    running: int = 0
    workers: int = 0
    uniques: dict[bytes, Job] = field(default_factory=dict)
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


@dataclass(slots=True)
class Changes:
    """What is left to do outside the queue, in the order in which it happened."""

    insert: list[Job] = field(default_factory=list)
    update: dict[int, Job] = field(default_factory=dict)  # position or attempts are not those on disk
    delete: list[int] = field(default_factory=list)
    wake: list[Peer] = field(default_factory=list)
    failed: list[tuple[Job, list[Peer]]] = field(default_factory=list)  # to be told WORK_FAIL
    dead: list[tuple[Job, str]] = field(default_factory=list)  # given up, with the reason

"""What somebody who looks through the records asks them: pages of tasks, counts, statistics. Each answer is bounded.

A question looks at the newest `WINDOW` records at most, so that it costs the same however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import model
from .database import Database, Transaction
from .rows import clean
from .store import FRESH, RECORD_COLUMNS, Found, make_record

WINDOW = 100_000
"""Records that one question looks at, the newest."""
SAMPLE = 20_000
"""Records that statistics are made of, the newest."""
SHORTEST = 1.0
"""Seconds from which on somebody is said to wait."""
GROUPED = 100
"""Characters of a reason by which dead ones are told apart in groups."""
_MAX_GROUPS = 200
_FAILED = (model.DEAD, model.RETRYING)
_WAITING = (model.QUEUED, model.SCHEDULED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant; what is empty or None is any.

    Attributes:
        state: their state.
        service: their service.
        queue: their queue.
        id: what their id begins with.
        text: a part of the reason; capitals don't matter.
        since: queued then or later, in Unix time.
        until: queued then or before, in Unix time.
        settled: nothing has happened to them after that, in Unix time.
    """

    state: str = ""
    service: str = ""
    queue: str = ""
    id: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None
    settled: float | None = None


class Key(NamedTuple):
    """A record's place among all, the newest first."""

    queued: float
    id: str


class Page(NamedTuple):
    """Some records.

    Attributes:
        found: they, the newest first.
        next: after which record the next page begins; None: there is none.
    """

    found: list[Found]
    next: Key | None


class Group(NamedTuple):
    """Dead tasks of one service that died of one reason; `last` is when the last one did, in Unix time."""

    service: str
    reason: str
    number: int
    last: float | None


class Step(NamedTuple):
    """What happened in one step of time: how many were done, how many failed, how many waited at its end."""

    done: int
    failed: int
    waiting: int


@dataclass(slots=True)
class Service:
    """What the newest records say of a service. Times are in seconds, of the last attempts, sorted."""

    name: str
    count: int
    dead: int
    retrying: int
    seconds: list[float]
    waited: list[float]
    last_failure: tuple[float, str, str] | None
    """When (Unix time), the task's id, why."""


class LetterKept(NamedTuple):
    """A dead letter as the records have it: the state directory it lies in, its name there, the file's bytes."""

    spool: str
    name: str
    content: bytes


class Queries:
    """See the module. One thread's at a time. All methods raise `RecordsUnavailable`.

    Args:
        database: the records'.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, which: Filter, after: Key | None = None, limit: int = 50) -> Page:
        """Records that are meant, the newest first, from the one after `after` on."""
        fresh = self._database.now() - FRESH
        with self._database.transaction(write=False) as transaction:
            oldest = _oldest(transaction, after)
            where, values = _where(which, oldest)
            if after is not None:
                where += " AND queued <= ? AND (queued < ? OR id < ?)"
                values += [after.queued, after.queued, after.id]
            rows = transaction.all(
                f"SELECT {RECORD_COLUMNS}, owner FROM gearwsgi_task WHERE {where}"
                " ORDER BY queued DESC, id DESC LIMIT ?",
                [*values, limit + 1],
            )
            alive = {row[0] for row in transaction.all("SELECT id FROM gearwsgi_supervisor WHERE heard >= ?", (fresh,))}
        found = []
        for *row, owner in rows[:limit]:
            record = make_record(row)
            found.append(Found(record, owner in alive if record.state == model.RUNNING else None))
        if len(rows) <= limit:
            return Page(found, None if oldest is None else Key(oldest, ""))
        last = found[-1].record
        assert last.queued is not None
        return Page(found, Key(rows[limit - 1][_QUEUED_AT], last.id))

    def count(self, which: Filter, most: int = 1000) -> int:
        """How many are meant; `most + 1`: there are more than `most`."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT count(*) FROM (SELECT 1 FROM gearwsgi_task WHERE {where} LIMIT ?) AS capped",
                [*values, most + 1],
            )
        return int(rows[0][0])

    def names(self, which: Filter) -> tuple[list[str], list[str]]:
        """The services and the queues among the newest of these, by name."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, None)
            rows = transaction.all(
                f"SELECT DISTINCT service, queue FROM (SELECT service, queue FROM gearwsgi_task WHERE {where}"
                " ORDER BY queued DESC LIMIT ?) AS newest",
                [*values, SAMPLE],
            )
        return sorted({row[0] for row in rows})[:_MAX_GROUPS], sorted({row[1] for row in rows})[:_MAX_GROUPS]

    def groups(self, which: Filter) -> list[Group]:
        """Those of these that are dead, by service and reason, the largest groups first."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT service, substr(coalesce(reason, ''), 1, {GROUPED}) AS why, count(*) AS number, max(ended)"
                f" FROM gearwsgi_task WHERE {where} GROUP BY service, why ORDER BY number DESC, service, why LIMIT ?",
                [*values, _MAX_GROUPS],
            )
        return [Group(*row) for row in rows]

    def ids(self, which: Filter, limit: int) -> list[str]:
        """The ids of these, the oldest first."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT id FROM gearwsgi_task WHERE {where} ORDER BY queued, id LIMIT ?", [*values, limit]
            )
        return [row[0] for row in rows]

    def steps(self, number: int, seconds: float) -> list[Step]:
        """What happened in each of the last steps of time, the oldest first; the last one is not over.

        Args:
            number: of steps, 1440 at most.
            seconds: that a step takes.
        """
        now = self._database.now()
        last = int(now / seconds)
        first = last - number + 1
        step = _step("changed", seconds)
        kind = f"CASE WHEN state = '{model.DONE}' THEN 1 WHEN state IN ({_quoted(_FAILED)}) THEN 2 ELSE 0 END"
        due, began = "coalesce(due, queued)", f"CASE WHEN state IN ({_quoted(_WAITING)}) THEN ? ELSE began END"
        with self._database.transaction(write=False) as transaction:
            where, values = _where(Filter(), _oldest(transaction))
            where, values = f"{where} AND changed >= ?", [*values, first * seconds]
            # One number to group by: with two columns SQLite takes twice as long.
            counted = transaction.all(
                f"SELECT {step} * 4 + {kind} AS code, count(*) FROM gearwsgi_task WHERE {where} GROUP BY code", values
            )
            waited = transaction.all(
                f"SELECT {_step(due, seconds)}, {_step('began', seconds)} FROM (SELECT due, queued, {began} AS began"
                f" FROM gearwsgi_task WHERE {where}) AS seen WHERE began - {due} >= {SHORTEST:g}"
                f" AND {_step(due, seconds)} < {_step('began', seconds)}",
                [now + seconds, *values],
            )
        return _steps(counted, waited, first, number)

    def services(self) -> tuple[list[Service], float | None]:
        """What the newest records say of each service, by name; and when the oldest of them was queued."""
        with self._database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT service, state, queued, coalesce(due, queued), began, changed, id, reason FROM gearwsgi_task"
                " ORDER BY queued DESC LIMIT ?",
                (SAMPLE,),
            )
        found: dict[str, Service] = {}
        for name, state, _, due, began, changed, task_id, reason in rows:
            service = found.get(name)
            if service is None:
                service = found[name] = Service(name, 0, 0, 0, [], [], None)
            service.count += 1
            if began is not None:
                service.waited.append(max(0.0, began - due))
                if state in (model.DONE, model.DEAD):
                    service.seconds.append(max(0.0, changed - began))
            if state in _FAILED:
                service.dead += state == model.DEAD
                service.retrying += state == model.RETRYING
                if service.last_failure is None or changed > service.last_failure[0]:
                    service.last_failure = (changed, task_id, reason or "")
        for service in found.values():
            service.seconds.sort()
            service.waited.sort()
        return [found[name] for name in sorted(found)], rows[-1][2] if rows else None

    def letters(self, task_id: str) -> list[LetterKept]:
        """The dead letters of a task, wherever they lie."""
        with self._database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT spool, name, content FROM gearwsgi_letter WHERE task = ? ORDER BY spool, name LIMIT 10",
                (task_id,),
            )
        return [LetterKept(spool, name, bytes(content)) for spool, name, content in rows]


_QUEUED_AT = RECORD_COLUMNS.split(", ").index("queued")


def _where(which: Filter, oldest: float | None) -> tuple[str, list[Any]]:
    parts, values = ["1 = 1"], list[Any]()
    conditions: Sequence[tuple[str, Any]] = (
        # Said twice, so that the index of all others is used.
        ("state = ?" if which.state == model.DONE else f"state = ? AND state <> '{model.DONE}'", which.state),
        ("service = ?", which.service and clean(which.service)),
        ("queue = ?", which.queue and clean(which.queue)),
        ("id >= ?", which.id and clean(which.id)),
        ("id < ?", which.id and clean(which.id) + "\U0010ffff"),
        ("lower(reason) LIKE ? ESCAPE '\\'", which.text and f"%{_escape(clean(which.text).lower())}%"),
        ("queued >= ?", which.since),
        ("queued <= ?", which.until),
        ("changed <= ?", which.settled),
        ("queued >= ?", oldest),
    )
    for condition, value in conditions:
        if value is not None and value != "":
            parts.append(condition)
            values.append(value)
    return " AND ".join(parts), values


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _oldest(transaction: Transaction, after: Key | None = None) -> float | None:
    """When the oldest record of the window was queued; None where all are in it."""
    # Only the index is read, and no further than the window's end.
    rows = transaction.all(
        "SELECT queued FROM gearwsgi_task WHERE queued <= ? ORDER BY queued DESC LIMIT 1 OFFSET ?",
        (after.queued if after is not None else 1e12, WINDOW),
    )
    return float(rows[0][0]) if rows else None


def _step(column: str, seconds: float) -> str:
    # By whole numbers: a fraction is cut off by SQLite's CAST, and rounded by PostgreSQL's.
    return f"CAST({column} * 1000 AS BIGINT) / {round(seconds * 1000)}"


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _steps(
    counted: Sequence[tuple[int, int]], waited: Sequence[tuple[int, int]], first: int, number: int
) -> list[Step]:
    """From (step and kind, how many) and (the step from which on one waited, and to which)."""
    done, failed, waiting = [0] * number, [0] * number, [0] * number
    for code, count in counted:
        at, kind = divmod(code, 4)
        if kind:
            (done if kind == 1 else failed)[_inside(at - first, number)] += count
    for due, began in waited:
        for at in range(max(0, due - first), min(began - first, number)):
            waiting[at] += 1
    return list(map(Step, done, failed, waiting))


def _inside(at: int, number: int) -> int:
    return min(max(0, at), number - 1)

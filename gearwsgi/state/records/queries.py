"""Queries for people who look through the records: pages of tasks, counts, statistics. Each answer is bounded.

A query looks at no more than the newest `WINDOW` records, so that it costs the same however many there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import model
from .database import Database, Transaction
from .rows import clean
from .store import FRESH, RECORD_COLUMNS, Found, make_record

WINDOW = 100_000
"""How many records one query looks at: the newest."""
SAMPLE = 20_000
"""How many records statistics are made of: the newest."""
SHORTEST = 1.0
"""Seconds that a task must have waited to be counted as waiting."""
_MAX_GROUPS = 200
_FAILED = (model.DEAD, model.RETRYING)
_WAITING = (model.QUEUED, model.SCHEDULED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are meant: all that match every field. A field that is empty or None matches any.

    Attributes:
        state: their state.
        service: their service.
        queue: their queue.
        id: what their id begins with.
        text: a part of the reason; capitals don't matter.
        since: queued then or later, in Unix time.
        until: queued then or before, in Unix time.
        settled: nothing has happened to them since then, in Unix time.
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
    """A record's place in the list of all, the newest first."""

    queued: float
    id: str


class Page(NamedTuple):
    """A page of records.

    Attributes:
        found: the records, the newest first.
        next: the place of the last one, after which the next page begins; None: there is no next page.
    """

    found: list[Found]
    next: Key | None


class Group(NamedTuple):
    """Dead tasks of one service that died for the same reason; `last` is when the last of them did, in Unix time."""

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
    """What the newest records say of one service. Times are in seconds, of the last attempts, in ascending order."""

    name: str
    count: int
    dead: int
    retrying: int
    seconds: list[float]
    waited: list[float]
    last_failure: tuple[float, str, str] | None
    """The last failure: when, in Unix time, the task's id, and why."""


class LetterKept(NamedTuple):
    """A dead letter as kept in the records: which state directory it lies in, its name there, and the file's bytes."""

    spool: str
    name: str
    content: bytes


class Queries:
    """Queries on one database. For one thread at a time. All methods raise `RecordsUnavailable`.

    Args:
        database: the records'.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, which: Filter, after: Key | None = None, limit: int = 50) -> Page:
        """A page of the records that are meant, the newest first, beginning after the place `after`."""
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
        """How many records are meant; `most + 1` where there are more than `most`."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT count(*) FROM (SELECT 1 FROM gearwsgi_task WHERE {where} LIMIT ?) AS capped",
                [*values, most + 1],
            )
        return int(rows[0][0])

    def names(self, which: Filter) -> tuple[list[str], list[str]]:
        """The services and the queues of the newest of the records that are meant, in alphabetical order."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, None)
            rows = transaction.all(
                f"SELECT DISTINCT service, queue FROM (SELECT service, queue FROM gearwsgi_task WHERE {where}"
                " ORDER BY queued DESC LIMIT ?) AS newest",
                [*values, SAMPLE],
            )
        return sorted({row[0] for row in rows})[:_MAX_GROUPS], sorted({row[1] for row in rows})[:_MAX_GROUPS]

    def groups(self, which: Filter) -> list[Group]:
        """The dead tasks among the records that are meant, by service and reason, the largest group first."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT service, substr(coalesce(reason, ''), 1, {model.GROUPED}) AS why, count(*) AS number,"
                f" max(ended) FROM gearwsgi_task WHERE {where} GROUP BY service, why"
                " ORDER BY number DESC, service, why LIMIT ?",
                [*values, _MAX_GROUPS],
            )
        return [Group(*row) for row in rows]

    def ids(self, which: Filter, limit: int) -> list[str]:
        """The ids of the records that are meant, the oldest first."""
        with self._database.transaction(write=False) as transaction:
            where, values = _where(which, _oldest(transaction))
            rows = transaction.all(
                f"SELECT id FROM gearwsgi_task WHERE {where} ORDER BY queued, id LIMIT ?", [*values, limit]
            )
        return [row[0] for row in rows]

    def steps(self, number: int, seconds: float) -> list[Step]:
        """What happened in each of the last steps of time, the oldest first. The last step is not over yet.

        Args:
            number: how many steps, 1440 at most.
            seconds: how long a step is.
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
            # Group by one number: for two columns SQLite would take twice as long.
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
        """What the newest records say of each service, in alphabetical order; and when the oldest was queued."""
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
        """The dead letters of a task, in whichever state directory they lie."""
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
        # The second condition says nothing new, but lets the index of all states but this one be used.
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
    """When the oldest record that a query looks at was queued; None where it looks at all."""
    # This reads only the index, and no further than the window's end.
    rows = transaction.all(
        "SELECT queued FROM gearwsgi_task WHERE queued <= ? ORDER BY queued DESC LIMIT 1 OFFSET ?",
        (after.queued if after is not None else 1e12, WINDOW),
    )
    return float(rows[0][0]) if rows else None


def _step(column: str, seconds: float) -> str:
    # In whole numbers, for SQLite's CAST cuts fractions off and PostgreSQL's rounds them.
    return f"CAST({column} * 1000 AS BIGINT) / {round(seconds * 1000)}"


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _steps(
    counted: Sequence[tuple[int, int]], waited: Sequence[tuple[int, int]], first: int, number: int
) -> list[Step]:
    """The steps, from counts of (step and kind) and from pairs of steps: from which to which a task waited."""
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

"""The records: writes rows, finds tasks, results, letters and supervisors, in SQL that both databases run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import RecordsUnavailable, UnknownTask
from . import model
from .database import Database, Transaction
from .rows import COLUMNS, FINISHED, FINISHED_AS, WAITING, WAITING_AS, Row, clean, clean_id
from .steering import Steering

GONE = 60.0
"""Seconds of silence after which a supervisor is left out of lists."""
FRESH = 10.0
"""Seconds of silence after which a supervisor counts as not responding."""
MAX_HISTORY = 200_000
"""Characters of a history; when it gets longer, its older half is dropped."""
MAX_LIST = 10_000
_BITE = 500

_HISTORY = f"CASE WHEN length(history) > {MAX_HISTORY} THEN substr(history, {MAX_HISTORY // 2}) ELSE history END || ?"
_KEPT = frozenset({"id", "started", "reason", "history"})
_NEWER = (
    "(excluded.queued > gearwsgi_task.queued"
    " OR excluded.queued = gearwsgi_task.queued AND excluded.place >= gearwsgi_task.place)"
)
_SET = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEPT)
_SAME = "CASE WHEN excluded.queued = gearwsgi_task.queued THEN"
_STARTED = f"{_SAME} coalesce(gearwsgi_task.started, excluded.started) ELSE excluded.started END"
_REASON = f"{_SAME} coalesce(excluded.reason, gearwsgi_task.reason) ELSE excluded.reason END"
_INSERT = f"INSERT INTO gearwsgi_task ({', '.join(COLUMNS)})"
_OR_UPDATE = f"ON CONFLICT (id) DO UPDATE SET {_SET}, started = {_STARTED}, reason = {_REASON} WHERE {_NEWER}"
_INSERT_FINISHED = f"INSERT INTO gearwsgi_task ({', '.join((*FINISHED, *FINISHED_AS))})"
_ONE_FINISHED = f"({', '.join([*'?' * len(FINISHED), *map(repr, FINISHED_AS.values())])})"
_INSERT_WAITING = f"INSERT INTO gearwsgi_task ({', '.join((*WAITING, *WAITING_AS))})"
_ONE_WAITING = f"({', '.join([*'?' * len(WAITING), *map(repr, WAITING_AS.values())])})"
_ADD = f"UPDATE gearwsgi_task SET history = {_HISTORY} WHERE id = ?"
_NAMES = COLUMNS[: COLUMNS.index("owner")]
"""The columns of a record, in their order."""
RECORD_COLUMNS = ", ".join(_NAMES)
"""The columns of which `make_record` makes a record."""
_HISTORY_AT = COLUMNS.index("history")


class Supervisor(NamedTuple):
    """What a supervisor says of itself, and how many seconds ago it did."""

    id: str
    silent: float
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A record in a list; and whether the supervisor that has the task responds: None where no supervisor has it."""

    record: model.Record
    is_fresh: bool | None


class Store:
    """The records of one database. One thread's at a time. All methods raise `RecordsUnavailable`.

    Args:
        database: where they are.

    Attributes:
        steering: the requests to supervisors.
    """

    lag = 1.0
    """Seconds after which the records surely show what has happened: supervisors write several times a second."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.steering = Steering(database)

    # -- writing -----------------------------------------------------------------------------------------------------

    @staticmethod
    def put(transaction: Transaction, rows: Sequence[Row]) -> None:
        """Write rows, each of another task. A stored row that is later stays as it is; histories are added to."""
        values = [row.values() for row in rows]
        histories = [(row.history, row.id) for row in rows if row.history]
        if histories:
            values = [(*each[:_HISTORY_AT], "", *each[_HISTORY_AT + 1 :]) for each in values]
        if values:
            transaction.insert(_INSERT, _OR_UPDATE, values)
        if histories:
            transaction.run_many(_ADD, histories)

    @staticmethod
    def put_finished(transaction: Transaction, rows: Sequence[Sequence[Any]]) -> None:
        """Write tasks that were done at their first attempt, each another task: values of the columns `FINISHED`."""
        if rows:
            transaction.insert(_INSERT_FINISHED, _OR_UPDATE, rows, _ONE_FINISHED)

    @staticmethod
    def put_queued(transaction: Transaction, rows: Sequence[Sequence[Any]]) -> None:
        """Write tasks that are being queued: values of the columns `WAITING`; only the message where there is a row."""
        transaction.insert(
            _INSERT_WAITING, "ON CONFLICT (id) DO UPDATE SET message = excluded.message", rows, _ONE_WAITING
        )

    @staticmethod
    def forget_queued(transaction: Transaction, task_id: str) -> None:
        """Remove the row of a task that was not queued after all."""
        transaction.run(
            "DELETE FROM gearwsgi_task WHERE id = ? AND state IN (?, ?)",
            (clean_id(task_id), model.QUEUED, model.SCHEDULED),
        )

    @staticmethod
    def keep_result(transaction: Transaction, task_id: str, until: float, content: bytes) -> None:
        """Keep a response until that time."""
        transaction.run(
            "INSERT INTO gearwsgi_result (task, until, content) VALUES (?, ?, ?)"
            " ON CONFLICT (task) DO UPDATE SET until = excluded.until, content = excluded.content",
            (clean_id(task_id), until, content),
        )

    @staticmethod
    def keep_letter(transaction: Transaction, spool: str, name: str, task_id: str, content: bytes) -> None:
        """Keep a dead letter's file, so that any machine can retry it."""
        transaction.run(
            "INSERT INTO gearwsgi_letter (spool, name, task, content) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (spool, name) DO UPDATE SET task = excluded.task, content = excluded.content",
            (spool, name, clean_id(task_id), content),
        )

    # -- tasks -------------------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> model.Record:
        """The record with this id, which may be shortened; with its history.

        Raises:
            UnknownTask: there is none, or the shortened id fits several.
        """
        with self.database.transaction(write=False) as transaction:
            full = whole_id(transaction, task_id)
            rows = transaction.all(f"SELECT {RECORD_COLUMNS}, began, history FROM gearwsgi_task WHERE id = ?", (full,))
        if not rows:
            raise UnknownTask(f"no task {task_id!r} is known")
        *values, began, history = rows[0]
        return make_record(values, _with_last(values, began, model.read_history(history)))

    def find_many(self, ids: Sequence[str]) -> dict[str, model.Record]:
        """The records with these full ids, without their histories."""
        found = {}
        with self.database.transaction(write=False) as transaction:
            for start in range(0, len(ids), _BITE):
                keys = [clean_id(each) for each in ids[start : start + _BITE]]
                places = ", ".join("?" * len(keys))
                rows = transaction.all(f"SELECT {RECORD_COLUMNS} FROM gearwsgi_task WHERE id IN ({places})", keys)
                found.update({row[0]: make_record(row) for row in rows})
        return found

    def story(self, task_id: str) -> tuple[model.Event, ...]:
        """What people have done with the task of this full id, oldest first."""
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all("SELECT history FROM gearwsgi_task WHERE id = ?", (clean_id(task_id),))
        return model.read_events(rows[0][0]) if rows else ()

    def tasks(
        self,
        *,
        state: str | None = None,
        service: str | None = None,
        queue: str | None = None,
        since: float | None = None,
        limit: int = 100,
    ) -> list[Found]:
        """Records, newest first: those that were queued last.

        Args:
            state: only those in this state.
            service: only those of this service.
            queue: only those of this queue.
            since: only those to which something has happened since this Unix time.
            limit: at most so many.
        """
        parts, values = ["1 = 1"], list[Any]()
        for name, wanted in (("state", state), ("service", service), ("queue", queue)):
            if wanted is not None:
                parts.append(f"{name} = ?")
                values.append(clean(wanted))
        if since is not None:
            parts.append("changed >= ?")
            values.append(since)
        values.append(max(0, min(limit, MAX_LIST)))
        fresh = self.database.now() - FRESH
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all(
                f"SELECT {RECORD_COLUMNS}, owner FROM gearwsgi_task WHERE {' AND '.join(parts)}"
                " ORDER BY queued DESC, id LIMIT ?",
                values,
            )
            alive = {row[0] for row in transaction.all("SELECT id FROM gearwsgi_supervisor WHERE heard >= ?", (fresh,))}
        found = []
        for *row, owner in rows:
            record = make_record(row)
            found.append(Found(record, owner in alive if record.state == model.RUNNING else None))
        return found

    def counts(self, since: float, recent: float) -> list[tuple[str, str, int, int]]:
        """(queue, state, how many changed since one time, how many since a later one), in Unix time."""
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT queue, state, count(*), count(CASE WHEN changed >= ? THEN 1 END) FROM gearwsgi_task"
                " WHERE changed >= ? GROUP BY queue, state",
                (recent, since),
            )
        return [(queue, state, number, few) for queue, state, number, few in rows]

    def waiting(self) -> list[tuple[str, int, float | None]]:
        """(queue, how many are due later, seconds that the oldest other one has waited) of what is known to wait."""
        now = self.database.now()
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT queue, count(CASE WHEN due > ? THEN 1 END),"
                " min(CASE WHEN coalesce(due, 0) <= ? THEN coalesce(due, queued) END) FROM gearwsgi_task"
                f" WHERE state IN (?, ?, ?) AND state <> '{model.DONE}' GROUP BY queue",
                (now, now, model.QUEUED, model.SCHEDULED, model.RETRYING),
            )
        return [(queue, later, None if oldest is None else max(0.0, now - oldest)) for queue, later, oldest in rows]

    def cancel(self, task: model.Record, *, by: str = "") -> str:
        """See `Steering.cancel`."""
        return self.steering.cancel(task, by=by)

    def message(self, task_id: str) -> bytes | None:
        """The message of a task, where the process that queued it has written it to the records."""
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all("SELECT message FROM gearwsgi_task WHERE id = ?", (clean_id(task_id),))
        return bytes(rows[0][0]) if rows and rows[0][0] is not None else None

    def result(self, task_id: str) -> bytes | None:
        """The response of a task that is kept, as a message; None where none is kept any more."""
        now = self.database.now()
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT content FROM gearwsgi_result WHERE task = ? AND until > ?", (clean_id(task_id), now)
            )
        return bytes(rows[0][0]) if rows else None

    # -- the fleet ---------------------------------------------------------------------------------------------------

    @staticmethod
    def hear(transaction: Transaction, supervisor: str, now: float, about: dict[str, Any]) -> None:
        """Note that a supervisor is alive, and what it says of itself."""
        transaction.run(
            "INSERT INTO gearwsgi_supervisor (id, heard, about) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET heard = excluded.heard, about = excluded.about",
            (supervisor, now, json.dumps(about)),
        )

    @staticmethod
    def leave(transaction: Transaction, supervisor: str) -> None:
        """Remove a supervisor: it has ended."""
        transaction.run("DELETE FROM gearwsgi_supervisor WHERE id = ?", (supervisor,))

    def fleet(self) -> list[Supervisor]:
        """The supervisors that were heard of within a minute."""
        now = self.database.now()
        with self.database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT id, heard, about FROM gearwsgi_supervisor WHERE heard >= ? ORDER BY id", (now - GONE,)
            )
        return [Supervisor(key, max(0.0, now - heard), json.loads(about)) for key, heard, about in rows]


def whole_id(transaction: Transaction, task_id: str) -> str:
    """The full id for one that may be shortened; the same text where no record's id begins so.

    Raises:
        UnknownTask: several ids begin so, as all do with an empty one.
    """
    key = clean_id(task_id)
    if not key:
        raise UnknownTask("an empty id is no task's")
    rows = transaction.all(
        "SELECT id FROM gearwsgi_task WHERE id >= ? AND id < ? ORDER BY id LIMIT 2", (key, key + "\U0010ffff")
    )
    if not rows or rows[0][0] == key:
        return key
    if len(rows) > 1:
        raise UnknownTask(
            f"{task_id!r} is not the beginning of one task's id, but of several: give more of it", is_ambiguous=True
        )
    return str(rows[0][0])


def make_record(values: Sequence[Any], history: tuple[model.Attempt, ...] = ()) -> model.Record:
    """The record in a row of `RECORD_COLUMNS`."""
    row = dict(zip(_NAMES, values, strict=True))
    done, total = row.pop("done"), row.pop("total")
    row["queued"] = row["queued"] or None  # cancelled before any supervisor has seen it
    for name in ("queued", "due", "started", "ended"):
        row[name] = model.moment(row[name])
    return model.Record(**row, progress=None if done is None else (done, total), history=history)


def _with_last(values: Sequence[Any], began: float | None, history: tuple[model.Attempt, ...]) -> tuple[Any, ...]:
    """Add to the record of a task that was done at once its one attempt, which is not written to its history."""
    row = dict(zip(_NAMES, values, strict=True))
    if row["state"] != model.DONE or history or began is None:
        return history
    seconds = round(max(0.0, row["ended"] - began), 6)
    started = model.moment(began)
    return (model.Attempt(row["attempts"], started, seconds, row["host"], row["pid"], "done", row["status"]),)


def unavailable() -> RecordsUnavailable:
    """The error that says that records are off."""
    return RecordsUnavailable("records are off: set records='sqlite', or a postgresql:// URL")

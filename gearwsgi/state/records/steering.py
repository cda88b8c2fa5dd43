"""Requests to supervisors: pause, limit, cancel, forget. In SQL that both databases run.

A request is a row: of a kind, for a name, until it is withdrawn or its time is over. Each change counts a number up, so
that a supervisor, which looks several times a second, reads all requests only when that number has changed.
"""

import hashlib
import time
from typing import NamedTuple

from . import model
from .database import Database, Transaction
from .rows import MAX_PATH, QUEUED, clean, clean_id, place

PAUSE = "pause"
"""Take no jobs of the queue of that name. `about`: who asked."""
PAUSE_ENTRY = "pause entry"
"""Do not run the ticks of the schedule's entry of that name. `about`: who asked."""
LIMIT = "limit"
"""Hold the keys that match the pattern of that name to another limit. `about`: the limit, and who asked."""
CANCEL = "cancel"
"""Cancel the task with that id. `about`: who asked."""
FORGET = "forget"
"""Remove the dead letter of that name and mark, which was retried or discarded elsewhere. `about`: the state directory
that it lies in."""

KEPT = 86400.0
"""Seconds that a cancelled task is remembered after a supervisor has seen it: it may be handed out twice."""
_NUMBER = "steering"


class Request(NamedTuple):
    """A request to supervisors.

    Attributes:
        kind: one of the kinds above.
        name: what it is about, as the kind says.
        made: when it was made, in Unix time.
        until: when it is over, in Unix time; None: when it is withdrawn.
        about: as the kind says.
        ends: `until`, by this process's `time.monotonic`.
    """

    kind: str
    name: str
    made: float
    until: float | None
    about: str
    ends: float | None = None

    def holds(self, now: float) -> bool:
        """Whether it still holds at `now`, by `time.monotonic`."""
        return self.ends is None or now < self.ends


class Steering:
    """The requests in one database. For one thread at a time. All methods raise `RecordsUnavailable`.

    Args:
        database: the records'.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = -1
        self._known: list[Request] = []

    def requests(self, transaction: Transaction, now: float) -> list[Request]:
        """All requests that hold at the database's time `now`; supervisors may have done some of them already."""
        number = _number(transaction)
        if number != self._number:
            rows = transaction.all("SELECT kind, name, made, until, about FROM gearwsgi_request")
            here = time.monotonic() - now
            self._known = [
                Request(kind, name, made, until, about, None if until is None else until + here)
                for kind, name, made, until, about in rows
            ]
            self._number = number
        return [each for each in self._known if each.until is None or each.until > now]

    def pauses(self, kind: str = PAUSE) -> list[Request]:
        """The pauses of that kind that hold just now, by name."""
        now = self._database.now()
        with self._database.transaction(write=False) as transaction:
            found = self.requests(transaction, now)
        return sorted(each for each in found if each.kind == kind)

    def limit(self, pattern: str, about: str | None) -> bool:
        """Have another limit hold for a pattern's keys, or (None) the setting's again; whether another one held."""
        now = self._database.now()
        pattern = clean(pattern)
        with self._database.transaction(write=True) as transaction:
            held = transaction.all("SELECT 1 FROM gearwsgi_request WHERE kind = ? AND name = ?", (LIMIT, pattern))
            withdraw(transaction, LIMIT, pattern)
            if about is not None:
                ask(transaction, Request(LIMIT, pattern, now, None, about))
        return bool(held)

    def pause(self, name: str, seconds: float | None = None, *, by: str = "", kind: str = PAUSE) -> None:
        """Pause the queue of that name, or what else `kind` says, for some seconds or until it is resumed."""
        now = self._database.now()
        with self._database.transaction(write=True) as transaction:
            name = clean(name)
            withdraw(transaction, kind, name)
            ask(transaction, Request(kind, name, now, None if seconds is None else now + seconds, clean(by)))

    def resume(self, name: str, *, kind: str = PAUSE) -> bool:
        """End a pause; whether there was one."""
        now = self._database.now()
        name = clean(name)
        with self._database.transaction(write=True) as transaction:
            held = transaction.all(
                "SELECT 1 FROM gearwsgi_request WHERE kind = ? AND name = ? AND (until IS NULL OR until > ?)",
                (kind, name, now),
            )
            withdraw(transaction, kind, name)
        return bool(held)

    def cancel(self, task: model.Record, *, by: str = "") -> str:
        """Cancel a task; returns the state that it had.

        One that waits is `cancelled` from now on. One that runs is, once its supervisor has ended it. One that has
        ended stays as it is.

        Args:
            task: what is known of it; this may be no more than its id.
            by: who asks for it.
        """
        now = self._database.now()
        key = clean_id(task.id)
        with self._database.transaction(write=True) as transaction:
            rows = transaction.all("SELECT state FROM gearwsgi_task WHERE id = ?", (key,))
            state = str(rows[0][0]) if rows else model.UNKNOWN
            if state in model.ENDED:
                return state
            withdraw(transaction, CANCEL, key)
            ask(transaction, Request(CANCEL, key, now, None, clean(by)))
            if not rows:
                _insert(transaction, task, key, now)
            elif state == model.RUNNING:
                note(transaction, key, "cancel asked", now, by)
                return state
            transaction.run(
                "UPDATE gearwsgi_task SET state = ?, ended = ?, changed = ?, reason = ? WHERE id = ?",
                (model.CANCELLED, now, now, clean(cancelled(by)), key),
            )
            note(transaction, key, model.CANCELLED, now, by)
        return state

    @staticmethod
    def settle(transaction: Transaction, now: float) -> None:
        """Mark tasks that wait as cancelled where that is asked: who wrote them may not have known of it."""
        transaction.run(
            "UPDATE gearwsgi_task SET state = ?, ended = ?, changed = ? WHERE state IN (?, ?, ?) AND id IN"
            " (SELECT name FROM gearwsgi_request WHERE kind = ? AND until IS NULL)",
            (model.CANCELLED, now, now, model.QUEUED, model.SCHEDULED, model.RETRYING, CANCEL),
        )

    def allow(self, transaction: Transaction, task_id: str) -> None:
        """Let a task run again that was cancelled before: somebody wants it after all."""
        withdraw(transaction, CANCEL, clean_id(task_id))

    @staticmethod
    def forget(transaction: Transaction, spool: str, name: str, content: bytes, now: float) -> None:
        """Have the supervisors of a state directory remove a letter that was retried or discarded elsewhere.

        Args:
            transaction: where it is asked.
            spool: the id of that state directory.
            name: the letter's name.
            content: the letter's bytes: if the task has died again, under the same name, that letter stays.
            now: the database's time.
        """
        ask(transaction, Request(FORGET, f"{name} {mark(content)}", now, None, spool))

    @staticmethod
    def obeyed(transaction: Transaction, request: Request, now: float) -> None:
        """Note that one supervisor has done it. A cancelled task may come to another, and is remembered a while."""
        if request.kind != CANCEL:
            withdraw(transaction, request.kind, request.name, request.about)
            return
        transaction.run(
            "UPDATE gearwsgi_request SET until = ? WHERE kind = ? AND name = ? AND until IS NULL",
            (now + KEPT, request.kind, request.name),
        )


def _insert(transaction: Transaction, task: model.Record, key: str, now: float) -> None:
    """Insert the row of a task that no supervisor has seen; what a supervisor writes of it later replaces this."""
    values = {
        "id": key, "service": clean(task.service), "method": task.method, "path": clean(task.path, MAX_PATH),
        "queue": clean(task.queue), "priority": task.priority, "state": model.CANCELLED, "queued": 0.0, "attempts": 0,
        "place": place(1, QUEUED), "changed": now, "history": "",
    }  # fmt: skip
    transaction.run(
        f"INSERT INTO gearwsgi_task ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        " ON CONFLICT (id) DO NOTHING",
        list(values.values()),
    )


def note(transaction: Transaction, task_id: str, what: str, now: float, by: str) -> None:
    """Add to a task's history what somebody has done with it."""
    transaction.run(
        "UPDATE gearwsgi_task SET history = history || ? WHERE id = ?",
        (model.write_event(now, what, clean(by)), clean_id(task_id)),
    )


def mark(content: bytes) -> str:
    """What tells a letter from a later one of the same name."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def cancelled(by: str) -> str:
    """The reason of a task that was cancelled."""
    return f"cancelled by {by}" if by else "cancelled"


def ask(transaction: Transaction, request: Request) -> None:
    """Make a request to all supervisors."""
    transaction.run(
        "INSERT INTO gearwsgi_request (kind, name, made, until, about) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (kind, name, about) DO UPDATE SET made = excluded.made, until = excluded.until",
        request[:5],
    )
    _count(transaction)


def withdraw(transaction: Transaction, kind: str, name: str, about: str | None = None) -> None:
    """Withdraw a request; `about` None: whatever it says there."""
    which, values = ("", (kind, name)) if about is None else (" AND about = ?", (kind, name, about))
    transaction.run(f"DELETE FROM gearwsgi_request WHERE kind = ? AND name = ?{which}", values)
    _count(transaction)


def _number(transaction: Transaction) -> int:
    rows = transaction.all("SELECT value FROM gearwsgi_meta WHERE name = ?", (_NUMBER,))
    return int(rows[0][0]) if rows else 0


def _count(transaction: Transaction) -> None:
    transaction.run(
        "INSERT INTO gearwsgi_meta (name, value) VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET value = gearwsgi_meta.value + 1",
        (_NUMBER,),
    )

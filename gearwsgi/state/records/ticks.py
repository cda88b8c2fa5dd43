"""The schedule in the records: the last tick of each entry, and which job has which tick."""

from typing import NamedTuple

from .database import Database
from .rows import clean, clean_id

CLAIMED = 7 * 86400.0
"""Seconds that it is remembered which job has a tick: a job server may be away for so long, and then bring another."""


class LastTick(NamedTuple):
    """The last tick of an entry that a supervisor has seen.

    Attributes:
        at: the tick, in Unix time; where no tick has come yet, since when the entry is known.
        task: the id of its task; None where no tick has come yet.
    """

    at: float
    task: str | None


def last_ticks(database: Database) -> dict[str, LastTick]:
    """The last tick of each entry by its name.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=False) as transaction:
        rows = transaction.all("SELECT name, at, task FROM gearwsgi_tick")
    return {name: LastTick(at, task) for name, at, task in rows}


def came(database: Database, name: str, at: float, task: str) -> None:
    """Note that an entry was run by hand, and the id of that task.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        transaction.run(f"{_PUT} <= excluded.at", (clean(name), at, clean_id(task)))


def begin(database: Database, name: str, queue: str, at: float, task: str, job: str) -> str:
    """Have a job run for a tick, unless another job of the same tick has come before.

    Args:
        database: the records'.
        name: the entry's name.
        queue: the entry's queue: an entry of the same name, of another application, has another queue.
        at: the tick, in Unix time.
        task: the id of its task.
        job: what tells this job from another of the same tick; the same when the job is handed out again.

    Returns:
        The job that has the tick: this one, or the one that came before.

    Raises:
        RecordsUnavailable: the database is away.
    """
    key, until = clean_id(f"tick:{queue}:{int(at)}:{name}"), database.now() + CLAIMED
    with database.transaction(write=True) as transaction:
        transaction.run(
            "INSERT INTO gearwsgi_seen (key, until, holder) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
            (key, until, job),
        )
        ((holder,),) = transaction.all("SELECT holder FROM gearwsgi_seen WHERE key = ?", (key,))
        if holder == job:
            transaction.run(f"{_PUT} <= excluded.at", (clean(name), at, clean_id(task)))
    return str(holder)


def take_over(database: Database, name: str, at: float) -> bool:
    """Undertake to look after all missed ticks up to this time; whether nobody has undertaken it before.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        return transaction.run(f"{_PUT} < excluded.at", (clean(name), at, None)) > 0


_PUT = (
    "INSERT INTO gearwsgi_tick (name, at, task) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET at = excluded.at, task = excluded.task WHERE gearwsgi_tick.at"
)

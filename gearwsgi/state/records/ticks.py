"""What the records know of the schedule: the last tick of each entry."""

from typing import NamedTuple

from .database import Database
from .rows import clean, clean_id

CLAIMED = 7 * 86400.0
"""Seconds that a claim is kept: for so long a job server may be away, and bring a tick that has run meanwhile."""


class LastTick(NamedTuple):
    """The last tick of an entry that a supervisor has seen.

    Attributes:
        at: Unix time; where no tick has come yet, the time since when the entry is known.
        task: the id of its task; None where it has not come.
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
    """An entry runs, and this is its task: somebody has run it now.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        transaction.run(f"{_PUT} <= excluded.at", (clean(name), at, clean_id(task)))


def begin(database: Database, name: str, queue: str, at: float, task: str, job: str) -> str:
    """A tick has come, and this job of it is to run, unless another one was before it.

    Args:
        database: the records'.
        name: the entry's.
        queue: its queue: another application's entry of the same name has another.
        at: the tick, in Unix time.
        task: the id of its task.
        job: tells this job from another one of the same tick; it is the same when it is handed out again.

    Returns:
        The job that is the tick's one: this, or the one before it.

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
    """Take it on oneself to see to all ticks up to this time; whether nobody has before.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        return transaction.run(f"{_PUT} < excluded.at", (clean(name), at, None)) > 0


_PUT = (
    "INSERT INTO gearwsgi_tick (name, at, task) VALUES (?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET at = excluded.at, task = excluded.task WHERE gearwsgi_tick.at"
)

"""What the records know of the schedule: the last tick of each entry."""

from typing import NamedTuple

from .database import Database
from .rows import clean, clean_id


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
    """A tick has come, and this is its task.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        transaction.run(f"{_PUT} <= excluded.at", (clean(name), at, clean_id(task)))


def claim(database: Database, name: str, at: float) -> bool:
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

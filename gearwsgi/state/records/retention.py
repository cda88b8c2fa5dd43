"""Removes records that are too old or too many, a few at a time, each time in a transaction of its own."""

import time
from collections.abc import Iterator

from ...settings import Settings
from .database import Transaction
from .model import DEAD
from .store import GONE, Store

BITE = 500
"""Rows that one transaction removes, at most."""

# A task that ended before some time was queued before it as well: for that there is an index.
_TOO_OLD = f"queued < ? AND ended IS NOT NULL AND state <> '{DEAD}' AND ended < ?"
# A task that a job server has lost will never end. One that is due later is not lost yet.
_LOST = "ended IS NULL AND changed < ? AND coalesce(due, 0) < ?"


class Retention:
    """Removes records in rounds, each in many small steps.

    Args:
        store: the records.
        settings: `records_max_age` and `records_max_count`.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._max_age = settings.records_max_age
        self._max_count = settings.records_max_count
        self._bites: Iterator[int] | None = None

    def begin(self) -> None:
        """Begin a new round."""
        self._bites = self._round()

    def work(self, seconds: float) -> None:
        """Go on with the round for about so many seconds.

        Raises:
            RecordsUnavailable: the database is away; the next round makes up for it.
        """
        end = time.monotonic() + seconds
        while self._bites is not None and time.monotonic() < end:
            if next(self._bites, None) is None:
                self._bites = None

    def _round(self) -> Iterator[int]:
        """One round, which stops after each transaction to tell how many rows that removed."""
        now = self._store.database.now()
        oldest = now - self._max_age
        yield from self._remove(_TOO_OLD, (oldest, oldest))
        yield from self._remove(_LOST, (oldest, oldest))
        yield from self._remove_surplus()
        with self._store.database.transaction(write=True) as transaction:
            transaction.run("DELETE FROM gearwsgi_request WHERE until < ?", (now,))
            self._store.steering.settle(transaction, now)
            transaction.run("DELETE FROM gearwsgi_supervisor WHERE heard < ?", (now - GONE,))
        yield from self._remove_over("gearwsgi_result", "task", now)
        yield from self._remove_over("gearwsgi_seen", "key", now)
        self._store.database.tidy()
        yield 0

    def _remove(self, which: str, values: tuple[float, ...]) -> Iterator[int]:
        removed = BITE
        while removed == BITE:
            with self._store.database.transaction(write=True) as transaction:
                removed = _remove(transaction, which, values, BITE)
            yield removed

    def _remove_over(self, table: str, key: str, now: float) -> Iterator[int]:
        """Remove what was to be kept until now, or until an earlier time."""
        over = f"SELECT {key} FROM {table} WHERE until <= ? ORDER BY until LIMIT ?"
        removed = BITE
        while removed == BITE:
            with self._store.database.transaction(write=True) as transaction:
                removed = transaction.run(f"DELETE FROM {table} WHERE {key} IN ({over})", (now, BITE))
            yield removed

    def _remove_surplus(self) -> Iterator[int]:
        with self._store.database.transaction(write=False) as transaction:
            surplus = transaction.all("SELECT count(*) FROM gearwsgi_task")[0][0] - self._max_count
        while surplus > 0:
            with self._store.database.transaction(write=True) as transaction:
                removed = _remove(transaction, f"ended IS NOT NULL AND state <> '{DEAD}'", (), min(BITE, surplus))
            yield removed
            if not removed:
                return
            surplus -= removed


def _remove(transaction: Transaction, which: str, values: tuple[float, ...], limit: int) -> int:
    """Remove the oldest such tasks, by when they were queued."""
    return transaction.run(
        f"DELETE FROM gearwsgi_task WHERE id IN (SELECT id FROM gearwsgi_task WHERE {which} ORDER BY queued LIMIT ?)",
        (*values, limit),
    )

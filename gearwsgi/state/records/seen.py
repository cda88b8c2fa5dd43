"""Which deliveries were seen, so that a second one is told: over processes, restarts and machines.

The table has the claims of the schedule's ticks, too: see `ticks.begin`.

    nobody knows it -- claim() --> claimed -- keep(): it is queued --> seen -- its time is over --> nobody knows it
                                   claimed -- release(), or its time is over --> nobody knows it

So an id is blocked only by a delivery that was queued; one whose process has died amid it is taken again.
"""

import contextlib
import secrets
from collections.abc import Iterator

from ...settings import Settings
from .database import Database
from .opening import open_database
from .store import unavailable

CLAIM = 10.0
"""Seconds that a claim lasts: more than it takes to queue something, and few enough to wait for."""


class Seen:
    """The table of what was seen, for one delivery: one thread's. All methods raise `RecordsUnavailable`.

    Args:
        database: where it is.
        key: what the delivery is told by.
    """

    def __init__(self, database: Database, key: str) -> None:
        self._database = database
        self._key = key
        self._holder = secrets.token_hex(8)

    def claim(self) -> bool | None:
        """Claim it: whether it is ours; None where another has claimed it just now."""
        now = self._database.now()
        with self._database.transaction(write=True) as transaction:
            is_ours = transaction.run(
                "INSERT INTO gearwsgi_seen (key, until, holder) VALUES (?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET until = excluded.until, holder = excluded.holder"
                " WHERE gearwsgi_seen.until <= ?",
                (self._key, now + CLAIM, self._holder, now),
            )
            if is_ours:
                return True
            holders = transaction.all("SELECT holder FROM gearwsgi_seen WHERE key = ?", (self._key,))
        return False if holders == [("",)] else None

    def keep(self, seconds: float) -> None:
        """It is queued: it was seen from now on, for so long."""
        until = self._database.now() + seconds
        with self._database.transaction(write=True) as transaction:
            transaction.run(
                "UPDATE gearwsgi_seen SET until = ?, holder = '' WHERE key = ? AND holder = ?",
                (until, self._key, self._holder),
            )

    def release(self) -> None:
        """It could not be queued: it was not seen."""
        with self._database.transaction(write=True) as transaction:
            transaction.run("DELETE FROM gearwsgi_seen WHERE key = ? AND holder = ?", (self._key, self._holder))


@contextlib.contextmanager
def looking(settings: Settings, key: str) -> Iterator[Seen]:
    """What is known of one delivery, for one thread; closed at the end of the block.

    Raises:
        RecordsUnavailable: the records are off, or their driver is missing.
    """
    database = open_database(settings)
    if database is None:
        raise unavailable()
    try:
        yield Seen(database, key)
    finally:
        database.close()

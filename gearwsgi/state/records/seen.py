"""Which webhook deliveries were seen, so that a repeated one is noticed: across processes, restarts and machines.

The table also holds the claims of the schedule's ticks: see `ticks.begin`. A delivery goes through these states:

    nobody knows it -- claim() --> claimed -- keep(): it is queued --> seen -- its time is over --> nobody knows it
                                   claimed -- release(), or its time is over --> nobody knows it

So an id is blocked only by a delivery that was queued. One whose process has died before that is taken again.
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
    """One delivery in that table. For one thread. All methods raise `RecordsUnavailable`.

    Args:
        database: where it is.
        key: what identifies the delivery.
    """

    def __init__(self, database: Database, key: str) -> None:
        self._database = database
        self._key = key
        self._holder = secrets.token_hex(8)

    def claim(self) -> bool | None:
        """Claim it. True: it is ours to queue. False: it was seen before. None: another process claims it just now."""
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
        """Note that it is queued: from now on, and for so many seconds, it was seen."""
        until = self._database.now() + seconds
        with self._database.transaction(write=True) as transaction:
            transaction.run(
                "UPDATE gearwsgi_seen SET until = ?, holder = '' WHERE key = ? AND holder = ?",
                (until, self._key, self._holder),
            )

    def release(self) -> None:
        """Give up the claim: it could not be queued."""
        with self._database.transaction(write=True) as transaction:
            transaction.run("DELETE FROM gearwsgi_seen WHERE key = ? AND holder = ?", (self._key, self._holder))


@contextlib.contextmanager
def looking(settings: Settings, key: str) -> Iterator[Seen]:
    """One delivery, for one thread; closed at the end of the block.

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

"""The starts of tasks of keys with a rate: written before they happen, so that a key's next owner goes on counting.

Times are in seconds from now, and negative in the past: a supervisor's clock is not the database's.
"""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .database import Transaction
from .rows import clean

LASTS = 6.0
"""Seconds for which an owner may rely on what it was told: a start that is written ahead happens within them, or
never."""
PARTS = 50
"""Into how many parts a rate's window is divided. For each part it is kept how many tasks started in it, and when the
last of them did."""

Start = tuple[float, int]
"""When, and how many tasks started then."""


class Count(NamedTuple):
    """The starts of one key's tasks in one queue.

    Attributes:
        queue: the queue.
        share: the number of the share that the key is in.
        key: the key.
        window: seconds for which a start counts.
        starts: those that still count, the oldest first.
    """

    queue: str
    share: int
    key: str
    window: float
    starts: Sequence[Start]


def condense(times: Iterable[float], window: float) -> list[Start]:
    """These times in fewer starts, the oldest first: some are moved a little later, none earlier."""
    found: list[Start] = []
    part = None
    for at in times:
        if part == (part := at * PARTS // window):
            found[-1] = at, found[-1][1] + 1
        else:
            found.append((at, 1))
    return found


def keep(transaction: Transaction, now: float, counts: Iterable[Count]) -> None:
    """Write these, each in place of what was written of the same key before."""
    rows = [
        (
            clean(each.queue), each.share, clean(each.key), now + LASTS + each.window,
            json.dumps([(math.ceil((now + at) * 1000) / 1000, number) for at, number in each.starts]),
        )
        for each in counts
    ]  # fmt: skip
    if rows:
        transaction.insert(
            "INSERT INTO gearwsgi_start (queue, share, key, until, starts)",
            "ON CONFLICT (queue, share, key) DO UPDATE SET until = excluded.until, starts = excluded.starts",
            rows,
        )


def forget(transaction: Transaction, now: float) -> None:
    """Remove starts that do not count any more."""
    transaction.run("DELETE FROM gearwsgi_start WHERE until <= ?", (now,))


def find(transaction: Transaction, now: float, shares: Collection[tuple[str, int]]) -> list[Count]:
    """What is known of the keys in these shares; without their windows, which are not written."""
    known = {(clean(queue), share): queue for queue, share in shares}
    return [
        Count(known[queue, share], share, key, 0.0, [(at - now, number) for at, number in json.loads(starts)])
        for queue, share, key, starts in transaction.all("SELECT queue, share, key, starts FROM gearwsgi_start")
        if (queue, share) in known
    ]

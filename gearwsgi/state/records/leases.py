"""Which supervisor owns which keys of limits. Keys are divided into shares; an owner has a share as long as it renews.

All who share the records see the same owners. Times are by the database's clock; an owner goes by its own clock, and
stops sooner than others may take over.
"""

import functools
import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from . import starts
from .database import Database, Transaction
from .rows import clean
from .starts import LASTS, Count

SHARES = 64
"""Into how many shares the keys of each queue are divided."""
AFTER = 5.5
"""Seconds that are added, before another supervisor may own a share, to those for which its owner may rely on it: by
then the processes of an owner that has died have ended."""

Share = tuple[str, int]
"""A queue, and the number of one share of its keys."""


class Owned(NamedTuple):
    """The shares that a supervisor owns.

    Attributes:
        shares: all of them.
        unwanted: those that are to be another's, once this one gives them up.
        taken: those that it did not own before.
        counts: the starts, so far, of the keys in `taken`.
    """

    shares: frozenset[Share]
    unwanted: frozenset[Share]
    taken: frozenset[Share] = frozenset()
    counts: tuple[Count, ...] = ()


def share_of(key: str) -> int:
    """The number of the share that a key belongs to; it does not depend on the queue."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=2).digest()[0] % SHARES


def renew(
    database: Database, owner: str, queues: Collection[str], leave: Iterable[Share], counts: Iterable[Count] = ()
) -> Owned:
    """Renew a supervisor's leases, take the shares that are to be its and are free, and give up others.

    Args:
        database: the records'.
        owner: the supervisor's name.
        queues: the queues that it serves.
        leave: the shares that it gives up.
        counts: the starts of the keys in those.

    Raises:
        RecordsUnavailable: the database is away.
    """
    now = database.now()
    with database.transaction(write=True) as transaction:
        _lock(transaction)
        transaction.run("DELETE FROM gearwsgi_lessee WHERE until <= ? OR owner = ?", (now, owner))
        until = now + LASTS + AFTER
        transaction.run_many(
            "INSERT INTO gearwsgi_lessee (owner, queue, until) VALUES (?, ?, ?)",
            [(owner, clean(queue), until) for queue in queues],
        )
        starts.forget(transaction, now)
        starts.keep(transaction, now, _ours(transaction, owner, counts))
        _delete(transaction, owner, leave)
        lessees: dict[str, list[str]] = {}
        for name, queue in transaction.all("SELECT owner, queue FROM gearwsgi_lessee"):
            lessees.setdefault(queue, []).append(name)
        held = {
            (queue, share): name
            for queue, share, name in transaction.all("SELECT queue, share, owner FROM gearwsgi_lease")
        }
        mine, unwanted, taken = set(), set(), set()
        for queue in queues:
            known = clean(queue)
            winners = _winners(tuple(sorted(lessees[known])))
            for share in range(SHARES):
                is_mine = held.get((known, share)) == owner
                is_free = held.get((known, share)) not in lessees[known]
                is_wanted = winners[share] == owner
                if is_mine and not is_wanted:
                    unwanted.add((queue, share))
                if is_mine or (is_free and is_wanted):
                    mine.add((queue, share))
                    taken |= set() if is_mine else {(queue, share)}
        found: list[Count] = []
        if taken:
            transaction.run_many(
                "INSERT INTO gearwsgi_lease (queue, share, owner) VALUES (?, ?, ?)"
                " ON CONFLICT (queue, share) DO UPDATE SET owner = excluded.owner",
                [(clean(queue), share, owner) for queue, share in sorted(taken)],
            )
            found = starts.find(transaction, now, taken)
    return Owned(frozenset(mine), frozenset(unwanted), frozenset(taken), tuple(found))


def book(database: Database, owner: str, counts: Iterable[Count]) -> frozenset[Share]:
    """Write down the starts of these keys, past and about to come; of their shares, those that this supervisor owns.

    Of keys in other shares nothing is written. No share can change hands between the look and the writing.

    Raises:
        RecordsUnavailable: the database is away.
    """
    now = database.now()
    with database.transaction(write=True) as transaction:
        ours = _ours(transaction, owner, counts)
        starts.keep(transaction, now, ours)
    return frozenset((each.queue, each.share) for each in ours)


def leave(database: Database, owner: str, counts: Iterable[Count] = ()) -> None:
    """Free all that a supervisor owned, at once: it ends, and nothing of it runs any more.

    Args:
        database: the records'.
        owner: the supervisor's name.
        counts: the starts of its keys.

    Raises:
        RecordsUnavailable: the database is away.
    """
    now = database.now()
    with database.transaction(write=True) as transaction:
        _lock(transaction)
        starts.keep(transaction, now, _ours(transaction, owner, counts))
        transaction.run("DELETE FROM gearwsgi_lessee WHERE owner = ?", (owner,))
        transaction.run("DELETE FROM gearwsgi_lease WHERE owner = ?", (owner,))


def _lock(transaction: Transaction) -> None:
    """Have supervisors do this one after the other: PostgreSQL would let them look at the same time."""
    transaction.run(
        "INSERT INTO gearwsgi_meta (name, value) VALUES ('leases', 1)"
        " ON CONFLICT (name) DO UPDATE SET value = gearwsgi_meta.value + 1"
    )


def _ours(transaction: Transaction, owner: str, counts: Iterable[Count]) -> list[Count]:
    """Those whose share this supervisor owns. Until the transaction's end nobody else can own it."""
    counts = list(counts)
    ours = {
        share
        for share in sorted({(each.queue, each.share) for each in counts})
        if transaction.run(
            "UPDATE gearwsgi_lease SET owner = owner WHERE queue = ? AND share = ? AND owner = ?",
            (clean(share[0]), share[1], owner),
        )
    }
    return [each for each in counts if (each.queue, each.share) in ours]


def _delete(transaction: Transaction, owner: str, shares: Iterable[Share]) -> None:
    rows = [(clean(queue), share, owner) for queue, share in shares]
    if rows:
        transaction.run_many("DELETE FROM gearwsgi_lease WHERE queue = ? AND share = ? AND owner = ?", rows)


@functools.lru_cache(maxsize=16)  # called several times a second, while supervisors seldom come or go
def _winners(names: tuple[str, ...]) -> tuple[str, ...]:
    """The supervisor that each share is to be owned by. When one comes or goes, only shares of its own change."""

    def weight(share: int, name: str) -> bytes:
        return hashlib.blake2b(f"{share} {name}".encode(), digest_size=8).digest()

    return tuple([max(names, key=functools.partial(weight, share)) for share in range(SHARES)])

"""Which supervisor owns which keys of limits: in shares, each its owner's for as long as that one tells that it lives.

All who share the records see the same. The clock is the database's; an owner goes by its own, and stops sooner.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from .database import Database, Transaction
from .rows import clean

SHARES = 64
"""Shares of each queue's keys."""
LASTS = 6.0
"""Seconds that an owner may go by what it was told."""
AFTER = 5.5
"""Seconds after that until somebody else may: the processes of one that has died have ended by then."""

Share = tuple[str, int]
"""A queue, and the number of a share of its keys."""


class Owned(NamedTuple):
    """What a supervisor owns.

    Attributes:
        shares: its shares.
        unwanted: those of them that are another's by right, once it gives them up.
    """

    shares: frozenset[Share]
    unwanted: frozenset[Share]


def share_of(key: str) -> int:
    """The number of the share that a key is in: the same in each queue."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=2).digest()[0] % SHARES


def renew(database: Database, owner: str, queues: Collection[str], leave: Iterable[Share]) -> Owned:
    """Tell that this supervisor lives, take what is its by right and free, and give up what it does not use.

    Args:
        database: the records'.
        owner: the supervisor.
        queues: those that it serves.
        leave: shares that it gives up.

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
        _delete(transaction, owner, leave)
        lessees: dict[str, list[str]] = {}
        for name, queue in transaction.all("SELECT owner, queue FROM gearwsgi_lessee"):
            lessees.setdefault(queue, []).append(name)
        held = {
            (queue, share): name
            for queue, share, name in transaction.all("SELECT queue, share, owner FROM gearwsgi_lease")
        }
        mine, unwanted, taken = set(), set(), []
        for queue in queues:
            known = clean(queue)
            for share in range(SHARES):
                is_mine = held.get((known, share)) == owner
                is_free = held.get((known, share)) not in lessees[known]
                is_wanted = _winner(lessees[known], share) == owner
                if is_mine and not is_wanted:
                    unwanted.add((queue, share))
                if is_mine or (is_free and is_wanted):
                    mine.add((queue, share))
                    taken += [] if is_mine else [(known, share, owner)]
        if taken:
            transaction.run_many(
                "INSERT INTO gearwsgi_lease (queue, share, owner) VALUES (?, ?, ?)"
                " ON CONFLICT (queue, share) DO UPDATE SET owner = excluded.owner",
                taken,
            )
    return Owned(frozenset(mine), frozenset(unwanted))


def leave(database: Database, owner: str) -> None:
    """This supervisor ends, and nothing of it runs any more: what it owned is free at once.

    Raises:
        RecordsUnavailable: the database is away.
    """
    with database.transaction(write=True) as transaction:
        _lock(transaction)
        transaction.run("DELETE FROM gearwsgi_lessee WHERE owner = ?", (owner,))
        transaction.run("DELETE FROM gearwsgi_lease WHERE owner = ?", (owner,))


def _lock(transaction: Transaction) -> None:
    """Have one supervisor after the other do this: PostgreSQL would let them look at the same time."""
    transaction.run(
        "INSERT INTO gearwsgi_meta (name, value) VALUES ('leases', 1)"
        " ON CONFLICT (name) DO UPDATE SET value = gearwsgi_meta.value + 1"
    )


def _delete(transaction: Transaction, owner: str, shares: Iterable[Share]) -> None:
    rows = [(clean(queue), share, owner) for queue, share in shares]
    if rows:
        transaction.run_many("DELETE FROM gearwsgi_lease WHERE queue = ? AND share = ? AND owner = ?", rows)


def _winner(names: Iterable[str], share: int) -> str:
    """Whose a share is by right: who comes or goes changes only what is theirs."""
    return max(names, key=lambda name: hashlib.blake2b(f"{share} {name}".encode(), digest_size=8).digest())

"""Who owns a deferred task: the task's id says so, and no database is needed.

Where tasks may have owners, an id ends with a hash of its beginning and the owner. So a status address knows at once
whether the visitor is the one who has queued the task: on any machine, before a worker has seen it, and with none
alive. The beginning is random: 88 bits.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

from ...rules import Owner
from ...settings import Settings

_TAIL = 5
"""Bytes of the hash at the end of an id."""


def known_owners(settings: Settings) -> Sequence[Owner]:
    """All callables that may say who asks."""
    rules = [rule.owner for rule in settings.defer]
    return [owner for owner in dict.fromkeys([settings.owner, *rules]) if owner is not None]


def make_id(environ: dict[str, Any], owner: Owner | None, owners: Sequence[Owner]) -> str:
    """An id for a task that the request in hand queues.

    Args:
        environ: the request's.
        owner: says who asks; None: nobody owns it, so whoever has the id may see it.
        owners: all callables that may say who asks.
    """
    if not owners:
        return os.urandom(16).hex()
    beginning = os.urandom(16 - _TAIL)
    return (beginning + _tail(beginning, owner(environ) if owner is not None else None)).hex()


def may_see(environ: dict[str, Any], task_id: str, owners: Iterable[Owner]) -> bool:
    """Whether the visitor owns the task with this id, or nobody does."""
    raw = bytes.fromhex(task_id)
    beginning, tail = raw[:-_TAIL], raw[-_TAIL:]
    return any(_tail(beginning, name) == tail for name in [None, *[owner(environ) for owner in owners]])


def _tail(beginning: bytes, name: Any) -> bytes:
    text = b"" if name is None or name == "" else b"=" + str(name).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=beginning, digest_size=_TAIL, person=b"gearwsgi-owner").digest()

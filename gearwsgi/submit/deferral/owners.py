"""To whom a deferred task belongs: its id says so, and needs no database for it.

Where somebody may own tasks, the end of an id is a hash of its beginning and the owner. So a status address knows at
once, on any machine, before any worker has seen the task and with none alive, whether who asks is who has queued it.
What is left of the id is random: 88 bits.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

from ...rules import Owner
from ...settings import Settings

_TAIL = 5
"""Bytes of an id that tell its owner."""


def known_owners(settings: Settings) -> Sequence[Owner]:
    """Every callable that says who asks."""
    rules = [rule.owner for rule in settings.defer]
    return [owner for owner in dict.fromkeys([settings.owner, *rules]) if owner is not None]


def make_id(environ: dict[str, Any], owner: Owner | None, owners: Sequence[Owner]) -> str:
    """An id for a task that the request in hand queues.

    Args:
        environ: the request's.
        owner: says who asks; None: the id alone is the key.
        owners: every one that there is.
    """
    if not owners:
        return os.urandom(16).hex()
    beginning = os.urandom(16 - _TAIL)
    return (beginning + _tail(beginning, owner(environ) if owner is not None else None)).hex()


def may_see(environ: dict[str, Any], task_id: str, owners: Iterable[Owner]) -> bool:
    """Whether who asks is the owner of the task with this id, or nobody is."""
    raw = bytes.fromhex(task_id)
    beginning, tail = raw[:-_TAIL], raw[-_TAIL:]
    return any(_tail(beginning, name) == tail for name in [None, *[owner(environ) for owner in owners]])


def _tail(beginning: bytes, name: Any) -> bytes:
    text = b"" if name is None or name == "" else b"=" + str(name).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=beginning, digest_size=_TAIL, person=b"gearwsgi-owner").digest()

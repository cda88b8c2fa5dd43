"""The jobs that wait on the job servers, one by one. The embedded one tells all about each; gearmand only its unique.

A unique is `id:attempt`, so the records know the rest, if a supervisor has seen the task before.
"""

import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..address import Address
from ..errors import GearwsgiError, RecordsError
from ..log import clean
from ..settings import Settings
from ..wire.connection import Connection
from .records import model
from .records.opening import reading

READY, LATER = "ready", "later"
_ANSWER = 5.0
"""Seconds until a job server must have given its whole answer."""
_OURS = re.compile(r"(.+):(\d+)(?:[~r][0-9a-f]+)?")


class Waiting(NamedTuple):
    """A job that waits.

    Attributes:
        queue: the queue; `-` where it is not known, as in the next two.
        service: what was called.
        id: the task's id; the job's unique where that is not one of ours.
        state: `ready`: it waits for a worker; `later`: it is not due yet.
        due: when it is due, in Unix time; None: at once.
    """

    queue: str
    service: str
    id: str
    state: str
    due: float | None


def list_waiting(settings: Settings, limit: int) -> list[Waiting]:
    """The jobs that wait, those that are ready first; at most `limit` of each job server that answers."""
    found: list[Waiting] = []
    for address in settings.servers:
        try:
            lines, is_ours = _ask(address, settings.connect_timeout, limit)
        except GearwsgiError:
            continue  # `status` says that this one is down
        found += _read(lines) if is_ours else _look_up([_id(line) for line in lines], settings, limit)
    return sorted(found, key=lambda each: (each.state == LATER, each.due or 0.0))


def _ask(address: Address, timeout: float, limit: int) -> tuple[list[str], bool]:
    connection = Connection(address, timeout)
    try:
        is_ours = any("+gearwsgi" in line for line in connection.admin("version", _ANSWER))
        return connection.admin(f"show waiting {limit}" if is_ours else "show unique jobs", _ANSWER), is_ours
    finally:
        connection.close()


def _read(lines: Sequence[str]) -> list[Waiting]:
    found = []
    for line in lines:
        queue, unique, service, due = line.split("\t")
        later = float(due) > time.time()
        found.append(Waiting(queue, service, _id(unique), LATER if later else READY, float(due) or None))
    return found


def _id(unique: str) -> str:
    ours = _OURS.fullmatch(unique)
    return ours[1] if ours is not None else unique


def _look_up(ids: Sequence[str], settings: Settings, limit: int) -> list[Waiting]:
    """What the records say of jobs of which only the id is known; those that run are left out."""
    known = {}
    try:
        with reading(settings) as store:
            known = store.find_many(ids) if store is not None else {}
    except RecordsError:
        pass  # the records are off or away: `status` says so
    found = []
    for each in ids:
        record = known.get(each)
        if record is None:
            found.append(Waiting("-", "-", clean(each), READY, None))
        elif record.state not in (model.RUNNING, *model.ENDED):
            due = record.due.timestamp() if record.due is not None else None
            state = LATER if due is not None and due > time.time() else READY
            found.append(Waiting(record.queue, record.service, record.id, state, due))
        if len(found) == limit:
            break
    return found

"""The status address of a task: how far it is, its result, and how to cancel it."""

import re
import time
from collections.abc import Sequence
from typing import Any

from ...errors import RecordsUnavailable, ServerUnavailable
from ...rules import Owner
from ...state.records import model
from ...state.records.model import Record
from ..client import Client
from ..lookup import Lookup
from ..tasks import Gearman
from . import pages
from .answer import HTML, JSON, Answer, choose, make, make_json, problem
from .owners import may_see
from .queueing import BUSY, status_url

_ADDRESS = re.compile(r"([0-9a-f]{32})(/result)?")
_SHOWN = ("id", "state", "progress", "attempts", "queued", "started", "ended", "reason")
_POLL_MIN, _POLL_MAX = 1, 30
"""Seconds after which a client may ask again, at least and at most."""
_POLL_PART = 10
"""It is asked to wait for this part of a task's age: what has taken long is not done in the next second."""


def answer(environ: dict[str, Any], place: str, client: Client, owners: Sequence[Owner]) -> Answer:
    """What a status address answers.

    Args:
        environ: the request's.
        place: what follows the setting `status_path` and a slash.
        client: the middleware's.
        owners: those who may own tasks.
    """
    address = _ADDRESS.fullmatch(place)
    if address is None or not may_be_seen(environ, address[1], owners):
        return _unknown()
    method = environ.get("REQUEST_METHOD", "GET")
    allowed = ("GET", "HEAD", "OPTIONS")
    if method == "OPTIONS":
        return Answer("204 No Content", [("Allow", ", ".join(allowed))], b"")
    if method not in allowed:
        return problem(405, f"{method} has no meaning here", ("Allow", ", ".join(allowed)))
    try:
        return _Asked(environ, client, address[1]).show()
    except (ServerUnavailable, RecordsUnavailable) as error:
        return problem(503, f"nobody can tell just now: {error}", ("Retry-After", str(BUSY)))


def may_be_seen(environ: dict[str, Any], task_id: str, owners: Sequence[Owner]) -> bool:
    """Whether who asks may know of this task."""
    return not owners or may_see(environ, task_id, owners)


def _unknown() -> Answer:
    return problem(404, "no task with this id is known")


class _Asked:
    """One request for one task."""

    def __init__(self, environ: dict[str, Any], client: Client, task_id: str) -> None:
        self._environ = environ
        self._lookup = Lookup(client, task_id)
        self._url = status_url(Gearman(client, environ), task_id)

    def show(self) -> Answer:
        """How far it is."""
        record = self._lookup.known()
        if record is None:
            return _unknown()
        headers = []
        seconds = poll_after(record, time.time())
        if seconds is not None:
            headers.append(("Retry-After", str(seconds)))
        if choose(self._environ, JSON, HTML) == HTML:
            text = pages.page(record.id, record.state, progress=record.progress, refresh=seconds)
            return make(200, HTML, text, *headers, ("Content-Security-Policy", pages.POLICY))
        return make_json(200, describe(record), *headers)


def describe(record: Record) -> dict[str, Any]:
    """What the public may know of a task."""
    known = record.to_json(history=False)
    return {name: known[name] for name in _SHOWN}


def poll_after(record: Record, now: float) -> int | None:
    """Seconds after which it is worth a look again; None: nothing more happens."""
    if record.state in model.ENDED:
        return None
    waits = record.state in (model.SCHEDULED, model.RETRYING) and record.due is not None
    seconds = 0.0
    if waits and record.due is not None:
        seconds = record.due.timestamp() - now
    elif record.queued is not None:
        seconds = (now - record.queued.timestamp()) / _POLL_PART
    return round(min(max(seconds, _POLL_MIN), _POLL_MAX))

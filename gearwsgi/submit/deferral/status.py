"""The status addresses of tasks: how far a task is, its result, and a way to cancel it."""

import re
import threading
import time
from typing import Any
from urllib.parse import urljoin

from ...errors import RecordsUnavailable, ServerUnavailable
from ...settings import Settings
from ...state.records import model
from ...state.records.model import Record
from ..client import Client
from ..lookup import Lookup
from ..tasks import Gearman
from . import pages
from .answer import EVENTS, HTML, JSON, Answer, Sendable, as_given, choose, make, make_json, problem
from .events import Events
from .owners import known_owners, may_see
from .queueing import BUSY, status_url

_ADDRESS = re.compile(r"([0-9a-f]{32})(/result)?")
_SHOWN = ("id", "state", "progress", "attempts", "queued", "started", "ended", "reason")
_POLL_MIN, _POLL_MAX = 1, 30
"""Seconds after which a client may ask again, at least and at most."""
_POLL_PART = 10
"""A client is told to wait for this fraction of the task's age: what took long won't be done in the next second."""
_SEARCHES = 2
"""Ids that nobody has asked for before and that are searched for at a time: a search everywhere takes a second."""
_PATIENCE = 0.25
"""Seconds to wait until one more may be searched for."""
_NOT_STORED = frozenset({"set-cookie", "cache-control", "expires", "pragma", "age"})
"""Headers of a response that were meant for that visitor, or for caches."""


class Addresses:
    """The status addresses of one middleware.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._owners = known_owners(settings)
        self._searches = threading.BoundedSemaphore(_SEARCHES)

    def answer(self, environ: dict[str, Any], place: str, client: Client) -> Sendable:
        """What a status address answers.

        Args:
            environ: the request's.
            place: what follows the setting `status_path` and a slash.
            client: the middleware's.
        """
        address = _ADDRESS.fullmatch(place)
        if address is None or (self._owners and not may_see(environ, address[1], self._owners)):
            return _unknown()
        task_id, wants_result = address.groups()
        method = environ.get("REQUEST_METHOD", "GET")
        allowed = ("GET", "HEAD", "OPTIONS") if wants_result else ("GET", "HEAD", "DELETE", "OPTIONS")
        if method == "OPTIONS":
            return Answer("204 No Content", [("Allow", ", ".join(allowed))], b"")
        if method not in allowed:
            return problem(405, f"{method} has no meaning here", ("Allow", ", ".join(allowed)))
        asked = _Asked(environ, client, task_id)
        try:
            record = self._find(asked.lookup, client, task_id)
            if record is None:
                return _unknown(records_are_off=not client.settings.records)
            if method == "DELETE":
                return asked.cancel()
            return asked.result(record) if wants_result else asked.show(record)
        except (ServerUnavailable, RecordsUnavailable) as error:
            return problem(503, f"Nobody can tell just now: {error}", ("Retry-After", str(BUSY)))

    def _find(self, lookup: Lookup, client: Client, task_id: str) -> Record | None:
        """What is known of a task. Clients that try random ids keep no more than a few threads busy."""
        record = lookup.known(quick=True)
        if record is None and client.desk.knows(task_id):
            record = lookup.known()  # most likely it has ended just now
        elif record is None:
            record = self._search(lookup)
        if record is not None:
            client.desk.remember(task_id)
        return record

    def _search(self, lookup: Lookup) -> Record | None:
        if self._searches.acquire(timeout=_PATIENCE):
            try:
                return lookup.known()
            finally:
                self._searches.release()
        record = lookup.known(quick=True)
        if record is None:
            raise RecordsUnavailable("many ask for tasks that nobody knows")
        return record


def _unknown(*, records_are_off: bool = False) -> Answer:
    more = " Records are off: what has ended is not known any more." if records_are_off else ""
    return problem(404, f"No task with this id is known.{more}")


class _Asked:
    """One request about one task."""

    def __init__(self, environ: dict[str, Any], client: Client, task_id: str) -> None:
        self.lookup = Lookup(client, task_id)
        self._environ = environ
        self._task_id = task_id
        self._gearman = Gearman(client, environ)
        self._url = status_url(self._gearman, task_id)
        self._base = "{}://{}{}".format(*self._gearman.base)

    def show(self, record: Record) -> Sendable:
        """How far it is."""
        kind = choose(self._environ, JSON, HTML, EVENTS)
        if kind == EVENTS:
            return Events(self._environ, record, self._look_again)
        response = self.lookup.response() if record.state == model.DONE else None
        if kind == HTML and response is not None:
            return make(303, HTML, "", ("Location", f"{self._url}/result"))
        headers = _retry_after(record)
        if kind == HTML:
            refresh = int(headers[0][1]) if headers else None
            text = pages.page(record.id, record.state, progress=record.progress, refresh=refresh)
            return make(200, HTML, text, *headers, ("Content-Security-Policy", pages.POLICY))
        return make_json(200, self._describe(record, has_result=response is not None), *headers)

    def cancel(self) -> Answer:
        """Cancel it. What has ended stays as it is; what runs is about to be ended: 202."""
        if not self._gearman.client.settings.records:
            return problem(501, "A task can't be cancelled: records are off.")
        state = self._gearman.cancel(self._task_id)
        found = self._look_again(None)
        values = {"id": self._task_id, "state": str(state)} if found is None else found[1]
        return make_json(202 if state == model.RUNNING else 200, values)

    def _look_again(self, record: Record | None) -> tuple[Record, dict[str, Any]] | None:
        """The record as it is now, if it is still known, and what the public may know of it.

        Args:
            record: the record, if it is known already; None: it is looked up.
        """
        found = record or self.lookup.known()
        if found is None:
            return None
        has_result = found.state == model.DONE and self.lookup.response() is not None
        return found, self._describe(found, has_result=has_result)

    def _describe(self, record: Record, *, has_result: bool) -> dict[str, Any]:
        known = record.to_json(history=False)
        values = {name: known[name] for name in _SHOWN}
        return {**values, "result": f"{self._url}/result"} if has_result else values

    def result(self, record: Record) -> Answer:
        """The response that its handler gave."""
        if record.state not in model.ENDED:
            return problem(409, f"The task is {record.state}: it has no result yet.", *_retry_after(record))
        response = self.lookup.response() if record.state in (model.DONE, model.DEAD) else None
        if response is not None:
            return self._stored(as_given(response), record)
        if record.state == model.DONE:
            return problem(410, "The task is done, and its response is not kept, not any more, or was too large.")
        return problem(404, f"The task is {record.state}: there is no response of it.")

    def _stored(self, answer: Answer, record: Record) -> Answer:
        """The response of a handler, at another address than its own: without what was meant for one visitor."""
        headers = [
            (name, urljoin(self._base + record.path, value) if name.lower() == "location" else value)
            for name, value in answer.headers
            if name.lower() not in _NOT_STORED
        ]
        return answer._replace(headers=[*headers, ("Cache-Control", "no-store")])


def _retry_after(record: Record) -> list[tuple[str, str]]:
    seconds = poll_after(record, time.time())
    return [] if seconds is None else [("Retry-After", str(seconds))]


def poll_after(record: Record, now: float) -> int | None:
    """Seconds after which another look is worth it; None: nothing more will happen."""
    if record.state in model.ENDED:
        return None
    seconds = 0.0
    if record.state in (model.SCHEDULED, model.RETRYING) and record.due is not None:
        seconds = record.due.timestamp() - now
    elif record.queued is not None:
        seconds = (now - record.queued.timestamp()) / _POLL_PART
    return round(min(max(seconds, _POLL_MIN), _POLL_MAX))

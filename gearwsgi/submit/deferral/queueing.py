"""Queues a request instead of having it answered, and makes the answer: a 202, or why it could not be queued."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

from ...errors import ServerError, ServerUnavailable, SpoolError
from ...kinds import BaseURL
from ...message.prefer import RESPOND_ASYNC, read_prefer, seconds_to_wait
from ...rules import Options, Owner
from ...settings import Settings
from ...state.records import model
from ..checks import limited_queue
from ..client import Client
from ..request import BodyError
from ..task import Task
from . import pages
from .answer import HTML, JSON, Answer, as_given, choose, make, make_json, problem
from .owners import known_owners, make_id

_log = logging.getLogger("gearwsgi")

BUSY = 5
"""Seconds after which a client may try again when it could not be queued."""


class Queuer(Protocol):
    """`environ["gearman"]`, as far as it is needed here."""

    @property
    def client(self) -> Client: ...
    @property
    def base(self) -> BaseURL: ...
    def queue_request(
        self, options: Options, task_id: str, body: bytes | None = None, awaited: tuple[str, float] | None = None
    ) -> Task: ...


def is_preflight(environ: Mapping[str, Any]) -> bool:
    """Whether a browser asks here, before the true request, whether it may send that (CORS)."""
    return environ.get("REQUEST_METHOD") == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ


def is_wanted(environ: Mapping[str, Any], options: Options) -> bool:
    """Whether the client has asked for it, where it must."""
    return not options.prefer or RESPOND_ASYNC in read_prefer(environ.get("HTTP_PREFER", ""))


def defer(
    gearman: Queuer, environ: dict[str, Any], options: Options, owner: Owner | None, body: bytes | None = None
) -> Answer | None:
    """Queue the request in hand, and make the answer that says so.

    Args:
        gearman: `environ["gearman"]` of the request.
        environ: the request's environ.
        options: how it is queued.
        owner: says who asks.
        body: the request's body, where something has read it before.

    Returns:
        A 202 where it is queued, or its true response where that came in time; else an answer that says why it is not
        queued. None where the client has to ask for it, and does not.

    Raises:
        InvalidTask: there is no request in hand that can be queued.
    """
    if not is_wanted(environ, options):
        return None
    preferences = read_prefer(environ.get("HTTP_PREFER", ""))
    settings = gearman.client.settings
    try:
        queue = limited_queue(options.queue or settings.queue, options.limit, "", settings)
        if options.max_waiting is not None and gearman.client.desk.is_full(queue, options.max_waiting):
            return _busy("Too much is waiting already: ask again later.")
        task_id = make_id(environ, owner or settings.owner, known_owners(settings))
        seconds = _time_to_wait(options, preferences, settings)
        if not seconds:
            task = gearman.queue_request(options, task_id, body)
        else:
            with gearman.client.desk.mailbox() as mailbox:
                task = gearman.queue_request(options, task_id, body, (mailbox.name, time.time() + seconds))
                response = mailbox.fetch(task.server, task_id, time.monotonic() + seconds)
            if response:
                return as_given(response)
    except BodyError as error:
        return problem(error.status, str(error))
    except (ServerUnavailable, ServerError, SpoolError) as error:
        _log.error("%s %s can't be deferred: %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"), error)
        return _busy("It can't be queued just now: ask again later.")
    return _accepted(gearman, environ, task, options, preferences)


def _time_to_wait(options: Options, preferences: dict[str, str], settings: Settings) -> float:
    """Seconds to wait for the true response."""
    if options.delay:
        return 0.0
    wanted = seconds_to_wait(preferences)
    return options.wait if wanted is None else min(float(wanted), settings.defer_max_wait)


def _busy(text: str) -> Answer:
    return problem(503, text, ("Retry-After", str(BUSY)))


def _accepted(
    gearman: Queuer, environ: Mapping[str, Any], task: Task, options: Options, preferences: Mapping[str, str]
) -> Answer:
    gearman.client.desk.remember(task.id)
    url = status_url(gearman, task.id)
    seconds = max(1, math.ceil(options.delay))
    headers = [("Location", url), ("Retry-After", str(seconds))]
    if RESPOND_ASYNC in preferences:
        headers.append(("Preference-Applied", RESPOND_ASYNC))
    if choose(environ, JSON, HTML) == HTML:
        state = model.SCHEDULED if options.delay else model.QUEUED
        text = pages.page(task.id, state, refresh=seconds, url=url)
        return make(202, HTML, text, *headers, ("Content-Security-Policy", pages.POLICY))
    return make_json(202, {"id": task.id, "status": url}, *headers)


def status_url(gearman: Queuer, task_id: str) -> str:
    """The address that tells what becomes of a task."""
    scheme, host, mount = gearman.base
    return f"{scheme}://{host}{mount}{gearman.client.settings.status_path}/{task_id}"

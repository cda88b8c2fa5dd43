"""The inbox: webhooks are verified and queued (on a job server or on disk) before their sender is answered.

If the sender got a 2xx, the delivery is run. A delivery that is not genuine, or could not be queued, is not run, and
does not block its id.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any

from ..errors import BadDelivery, InvalidTask, RecordsUnavailable, ServerError, ServerUnavailable, SpoolError
from ..message.model import one_line
from ..message.routes import Routes
from ..settings import Settings
from ..webhooks.entries import Inbox
from .client import Client, Seen
from .deferral.answer import Answer, make_json, problem
from .request import BodyError, read_body
from .tasks import Gearman

_log = logging.getLogger("gearwsgi")

POLL = 0.05
"""Seconds between two looks at a delivery that another process is about to queue."""
WAIT = 15.0
"""Seconds that it is waited for: longer than a claim lasts."""
AGAIN = 30
"""Seconds after which a sender may try again, when a delivery could not be queued."""


class Door:
    """Takes in the deliveries for a middleware's inboxes.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._routes = Routes(inbox.route for inbox in settings.inbox)
        self._trouble = ""

    def answer(self, environ: dict[str, Any], client: Client) -> Answer | None:
        """Take in a delivery, and answer its sender; None where the request is none.

        Raises:
            Exception: what a verifier of the application's own raises: its sender gets what the server makes of it, and
                tries again.
        """
        number = self._routes.find(environ.get("REQUEST_METHOD", "GET"), environ.get("PATH_INFO", ""))
        if number is None:
            return None
        inbox = self._settings.inbox[number]
        try:
            body = read_body(environ, self._settings.max_body)
            if not inbox.verify(environ, body):
                raise BadDelivery("its verifier says so")
            return self._take(inbox, environ, body, client)
        except (BadDelivery, InvalidTask) as error:
            _log.warning("inbox: %s refused: %s", inbox.route, error)
            status = error.status if isinstance(error, BodyError) else 400
            return problem(status, "The delivery is not genuine, or can't be read: the receiver's log says why.")
        except (ServerUnavailable, ServerError, SpoolError) as error:
            _log.error("inbox: %s is not queued, and its sender is to try again: %s", inbox.route, error)
            return _try_again()

    def _take(self, inbox: Inbox, environ: dict[str, Any], body: bytes, client: Client) -> Answer:
        """Queue a genuine delivery, unless it was seen before."""
        name = str(inbox.id(environ, body) or "")
        key = hashlib.blake2b(f"{inbox.route}\0{name}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        gearman = Gearman(client, environ)
        queued = False

        def queue(unique: str | None = f"inbox:{key}") -> None:
            nonlocal queued
            gearman.replay(
                inbox.queue, body=body, priority=inbox.priority, unique=unique, max_attempts=inbox.max_attempts,
                timeout=inbox.timeout, identity="", verified=True,
            )  # fmt: skip
            queued = True

        if not name:
            _log.warning("inbox: %s: a delivery has no id, so that a second one of it can't be told", inbox.route)
            queue(None)
            return _taken("accepted")
        try:
            with client.look_for(key) as seen:
                is_new = self._claim(seen)
                if is_new:
                    self._once(seen, queue)
            self._note_end()
        except RecordsUnavailable as error:
            self._note_trouble(str(error))
            if not queued:
                queue()
            is_new = True
        if is_new is None:
            return _try_again()
        if not is_new:
            _log.info("inbox: %s: dropped, it was seen before: %s", inbox.route, one_line(name, 100))
            return _taken("duplicate")
        return _taken("accepted")

    def _once(self, seen: Seen, queue: Callable[[], None]) -> None:
        """Queue a delivery that we have claimed."""
        try:
            queue()
        except BaseException:
            seen.release()
            raise
        seen.keep(self._settings.inbox_keep)

    @staticmethod
    def _claim(seen: Seen) -> bool | None:
        """Claim a delivery; whether it is ours to queue. None: another process has claimed it, for too long."""
        end = time.monotonic() + WAIT
        while True:
            is_new = seen.claim()
            if is_new is not None or time.monotonic() > end:
                return is_new
            time.sleep(POLL)

    def _note_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("inbox: duplicates can't be told, what comes is taken and run: %s", trouble)

    def _note_end(self) -> None:
        if self._trouble:
            self._trouble = ""
            _log.info("inbox: duplicates are told again")


def _taken(how: str) -> Answer:
    return make_json(200, {"status": how})


def _try_again() -> Answer:
    return problem(503, "It can't be taken just now: try again.", ("Retry-After", str(AGAIN)))

"""What the middleware answers before the application sees the request: status addresses, and what is deferred."""

from typing import Any

from ...message.routes import Routes
from ...settings import Settings
from ..client import Client
from ..tasks import Gearman
from . import queueing
from .answer import Sendable
from .status import Addresses


class Door:
    """Where public requests come in.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._rules = settings.defer
        self._routes = Routes(rule.route for rule in settings.defer)
        self._addresses = Addresses(settings)
        self._beginning = settings.status_path + "/"

    def answer(self, environ: dict[str, Any], client: Client) -> Sendable | None:
        """The answer to a request; None: it is the application's."""
        path = environ.get("PATH_INFO", "")
        if path.startswith(self._beginning):
            return self._addresses.answer(environ, path[len(self._beginning) :], client)
        number = self._routes.find(environ.get("REQUEST_METHOD", "GET"), path)
        if number is None or queueing.is_preflight(environ):
            return None
        rule = self._rules[number]
        return queueing.defer(Gearman(client, environ), environ, rule.options, rule.owner)

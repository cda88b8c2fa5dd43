"""What the middleware answers before the application sees the request: status addresses, and what is deferred."""

from typing import Any

from ...environ import WSGIApplication
from ...message.routes import Routes
from ...rules import Options
from ...settings import Settings
from ..client import Client
from ..tasks import Gearman
from . import queueing
from .answer import Sendable
from .status import Addresses


class Door:
    """Sees public requests before the application does: answers them itself, or lets them through.

    Args:
        settings: the middleware's.
        app: the wrapped application.
    """

    def __init__(self, settings: Settings, app: WSGIApplication) -> None:
        self._app = app
        self._identity = settings.identity
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
        if not queueing.is_wanted(environ, rule.options) or not self._find_user(environ, rule.options):
            return None
        return queueing.defer(Gearman(client, environ), environ, rule.options, rule.owner)

    def _find_user(self, environ: dict[str, Any], options: Options) -> bool:
        """Find out who asks, if the task is to run as that user. False: it is nobody; the application must answer."""
        if not (self._identity if options.identity is None else options.identity):
            return True
        from ..identity import USER_KEY, find_user_at_door  # where it is used

        environ[USER_KEY] = find_user_at_door(self._app, environ)
        return bool(environ[USER_KEY]) or not options.identity

"""Flask: `Gearman(app)`, configured in `app.config["GEARWSGI"]`.

    app.config["GEARWSGI"] = {"servers": "127.0.0.1:4730", "tasks": {"testTask": "Test.task"}}
    gearman = Gearman(app)

    @app.route("/index")
    def index():
        gearman.task("default.index", {"name": "x"})

Flask-WTF's `CSRFProtect` lets replays, and only them, pass: a job has no form with a token, and comes from a handler.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app, g, has_app_context, has_request_context, request

from ..app.job import Continue
from ..environ import JOB_KEY
from ..errors import ConfigError
from ..kinds import BaseURL
from ..submit import tasks
from ..submit.client import Status
from ..submit.middleware import KEY, GearmanMiddleware
from ..submit.task import Task

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from webob import Response

    from ..state.records.model import Record

EXTENSION = "gearwsgi"
"""Its key in `app.extensions`, which holds the middleware."""


class Gearman:
    """The extension: wraps `app.wsgi_app`, and queues tasks for the request in hand, or outside of one.

    Args:
        app: the application; without one, `init_app` is called later.
        settings: as `GearmanMiddleware`'s; `app.config["GEARWSGI"]` goes before them.

    Raises:
        ConfigError: as the middleware; or `app` has one already.
    """

    def __init__(self, app: Flask | None = None, **settings: Any) -> None:
        self._settings = settings
        self._app: Flask | None = None
        if app is not None:
            self.init_app(app)
            self._app = app

    def init_app(self, app: Flask) -> None:
        """Wrap this application; in a factory.

        Raises:
            ConfigError: as the class itself.
        """
        if EXTENSION in app.extensions:
            raise ConfigError("the application has a Gearman extension already: make one")
        config = app.config.get("GEARWSGI") or {}
        if not isinstance(config, Mapping):
            raise ConfigError(f'app.config["GEARWSGI"] is {type(config).__name__}: give a dict')
        middleware = GearmanMiddleware.from_config(app.wsgi_app, {**self._settings, **config})
        app.extensions[EXTENSION] = middleware
        app.wsgi_app = middleware  # type: ignore[method-assign]
        # The first of all: Flask-WTF's check is one of them, and may have been put there before.
        app.before_request_funcs.setdefault(None, []).insert(0, _trust_replays)
        app.register_error_handler(Continue, _go_on_later)

    @property
    def current(self) -> tasks.Gearman:
        """What the core offers for the request in hand, or outside of one.

        Outside, the setting `base_url`, or else `SERVER_NAME`, `PREFERRED_URL_SCHEME` and `APPLICATION_ROOT` say what
        URLs look like, as they do for Flask's own `url_for`.

        Raises:
            ConfigError: there is no application in sight.
        """
        if has_request_context() and KEY in request.environ:
            found: tasks.Gearman = request.environ[KEY]
            return found
        app = current_app if has_app_context() else self._app
        if app is None or EXTENSION not in app.extensions:
            raise ConfigError("no application: call it in a request, within app.app_context(), or make it Gearman(app)")
        root = app.config.get("APPLICATION_ROOT") or "/"
        middleware: GearmanMiddleware = app.extensions[EXTENSION]
        own = BaseURL(
            app.config.get("PREFERRED_URL_SCHEME") or "http",
            app.config.get("SERVER_NAME") or "localhost",
            root.rstrip("/"),
        )
        return tasks.Gearman(middleware.client, None, base=middleware.settings.base_url or own)

    @property
    def task(self) -> Callable[..., Task]:
        """`environ["gearman"].task`."""
        return self.current.task

    @property
    def call(self) -> "Callable[..., Response]":
        """`environ["gearman"].call`."""
        return self.current.call

    @property
    def batch(self) -> "Callable[[], AbstractContextManager[list[Task]]]":
        """The core's `batch()`."""
        return self.current.batch

    @property
    def status(self) -> Callable[[Task | str], Status]:
        """`environ["gearman"].status`."""
        return self.current.status

    @property
    def record(self) -> "Callable[[Task | str], Record]":
        """`environ["gearman"].record`."""
        return self.current.record

    @property
    def result(self) -> "Callable[..., Response]":
        """`environ["gearman"].result`."""
        return self.current.result

    def replay(self, queue: str | None = None, **options: Any) -> Task:
        """Queue the request in hand itself; as `environ["gearman"].replay`, and its body may be read before or after.

        Raises:
            InvalidTask: as there; or a form was parsed before, which leaves nothing: call it first.
        """
        if has_request_context() and "body" not in options:
            body = request.get_data()
            if len(body) == (request.content_length or 0) or (body and request.content_length is None):
                options["body"] = body
        return self.current.replay(queue, **options)


def _trust_replays() -> None:
    """A replay comes from a handler of ours, which had its own check: Flask-WTF asks it for no token."""
    if JOB_KEY not in request.environ:
        return
    g.csrf_valid = True  # what FlaskForm looks at
    csrf = current_app.extensions.get("csrf")
    if csrf is not None and not hasattr(csrf, "gearwsgi_protect") and hasattr(csrf, "protect"):
        csrf.gearwsgi_protect = csrf.protect
        csrf.protect = _unless_replay(csrf.protect)


def _go_on_later(error: Continue) -> tuple[str, int]:
    """It is no error: nothing is logged, and no one is told by Flask's signal."""
    if not error.catch(request.environ.get(JOB_KEY)):
        raise error
    return "", 204


def _unless_replay(protect: Callable[..., None]) -> Callable[..., None]:
    @wraps(protect)
    def check(*arguments: Any, **options: Any) -> None:
        if JOB_KEY not in request.environ:
            protect(*arguments, **options)

    return check

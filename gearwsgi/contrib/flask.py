"""Flask: `Gearman(app)`, configured in `app.config["GEARWSGI"]`.

    app.config["GEARWSGI"] = {"servers": "127.0.0.1:4730", "tasks": {"testTask": "Test.task"}}
    gearman = Gearman(app)

    @app.route("/index")
    def index():
        gearman.task("default.index", {"name": "x"})

Flask-WTF's `CSRFProtect` lets replays, and only them, pass: a job has no form with a token, and comes from a handler.
"""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from flask import Flask, current_app, g, has_app_context, has_request_context, request

from ..app.job import Continue
from ..environ import JOB_KEY
from ..errors import ConfigError
from ..kinds import BaseURL
from ..rules import Given, read_options
from ..submit import tasks
from ..submit.middleware import KEY, GearmanMiddleware
from ..submit.task import Status, Task

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from webob import Response

    from ..state.records.model import Record

EXTENSION = "gearwsgi"
"""The key in `app.extensions` under which the middleware is kept."""


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
        # As the first function: Flask-WTF's check is one as well, and may have been added before.
        app.before_request_funcs.setdefault(None, [])[:0] = [_trust_replays, _keep_body]
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
        return self.current.replay(queue, **_with_body(options))

    def defer(self, **options: Any) -> Any:
        """Queue the request in hand, and answer 202; as `environ["gearman"].defer`, and its body may be read before.

        Returns:
            What a view returns; None with `prefer=True` where the client did not ask for it.

        Raises:
            InvalidTask: as there.
        """
        return self.current.defer(**_with_body(options))


_View = TypeVar("_View", bound=Callable[..., Any])


@overload
def deferred(view: _View) -> _View: ...
@overload
def deferred(view: None = None, **options: Unpack[Given]) -> Callable[[_View], _View]: ...
def deferred(view: Any = None, **options: Unpack[Given]) -> Any:
    """Have a view's request queued and answered 202; its body runs in the replay, in a worker.

    Decorators above it, and what Flask does before a view (login, CSRF, `before_request`), run in front of the 202, and
    again in the replay:

        @app.post("/reports")
        @login_required
        @deferred(wait=2)
        def report(): ...

    Args:
        view: the view, where there are no options.
        options: as `environ["gearman"].defer` takes them.

    Raises:
        ConfigError: an option is unknown or can't work.
    """
    if view is None:
        return partial(deferred, **options)
    read_options(options)

    @wraps(view)
    def queue(*arguments: Any, **values: Any) -> Any:
        if JOB_KEY not in request.environ:
            if KEY not in request.environ:
                raise ConfigError("@deferred needs the extension: make Gearman(app)")
            response = request.environ[KEY].defer(**_with_body(dict(options)))
            if response is not None:
                return response
        return current_app.ensure_sync(view)(*arguments, **values)

    queue.gearwsgi_deferred = True  # type: ignore[attr-defined]
    return queue


def _with_body(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the body of the request in hand, where all of it is there."""
    if has_request_context() and "body" not in options:
        body = request.get_data()
        if len(body) == (request.content_length or 0) or (body and request.content_length is None):
            options["body"] = body
    return options


def _keep_body() -> None:
    """Read the body of a deferred view before a form is parsed from it, which would leave nothing to be queued."""
    view = current_app.view_functions.get(request.endpoint or "")
    if getattr(view, "gearwsgi_deferred", False) and JOB_KEY not in request.environ:
        middleware: GearmanMiddleware = current_app.extensions[EXTENSION]
        if (request.content_length or 0) <= middleware.settings.max_body:
            request.get_data(cache=True)


def _trust_replays() -> None:
    """Let Flask-WTF ask no token of a replay: it was queued by a handler, which had its own check."""
    if JOB_KEY not in request.environ:
        return
    g.csrf_valid = True  # what FlaskForm looks at
    csrf = current_app.extensions.get("csrf")
    if csrf is not None and not hasattr(csrf, "gearwsgi_protect") and hasattr(csrf, "protect"):
        csrf.gearwsgi_protect = csrf.protect
        csrf.protect = _unless_replay(csrf.protect)


def _go_on_later(error: Continue) -> tuple[str, int]:
    """Answer a `Continue`, which is no error: nothing is logged, and Flask's signal is not sent."""
    if not error.catch(request.environ.get(JOB_KEY)):
        raise error
    return "", 204


def _unless_replay(protect: Callable[..., None]) -> Callable[..., None]:
    @wraps(protect)
    def check(*arguments: Any, **options: Any) -> None:
        if JOB_KEY not in request.environ:
            protect(*arguments, **options)

    return check

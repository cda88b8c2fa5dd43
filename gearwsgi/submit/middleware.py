"""The WSGI middleware: puts `gearman` into the environ, keeps tasks' paths private, submits after the response."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from ..environ import JOB_KEY, KEYS, WSGIApplication
from ..errors import ConfigError
from ..kinds import BaseURL
from ..message.model import Message
from ..message.routes import Paths, spellings
from ..policy import accepted
from ..settings import SETTINGS, Keywords, Settings, read_settings
from .client import Client
from .frameworks import known_login_urls, leads_to
from .tasks import Gearman
from .walk import walk

if TYPE_CHECKING:
    from .deferral.door import Door
    from .inbox import Door as Inbox

KEY, SHORT_KEY = KEYS


class GearmanMiddleware:
    """Wraps a WSGI application, so that its handlers can queue requests to itself.

    A setting that is not given, or None, is taken from the environment where it has a variable, then is its default.

    Args:
        app: the application.
        servers: as below.
        tasks: as below.
        settings: the others.

    Raises:
        ConfigError: a setting is unknown, or its value can't work.
    """

    __signature__: ClassVar[inspect.Signature]

    def __init__(
        self,
        app: WSGIApplication,
        servers: str | Sequence[str] | None = None,
        tasks: Mapping[str, Any] | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        if not callable(app):
            raise ConfigError(f"the application is {type(app).__name__}: give the WSGI callable that is to be wrapped")
        if find_middleware(app) is not None:
            raise ConfigError("the application is wrapped in GearmanMiddleware already: wrap it once")
        self.settings = read_settings({"servers": servers, "tasks": tasks, **settings})
        self.app = app
        if self.settings.schedule:
            from .ticks import plan_all

            plan_all(self.settings, BaseURL())  # says what can't be queued
        self.client = _client(self.settings)
        self.gearman = Gearman(self.client, None)
        """The same object without a request, for scripts and cron jobs."""
        self._inbox = _open_inbox(self.settings)
        self._asks = self.settings.authorize is not None
        self._private = Paths(self.settings.tasks_only) if self.settings.tasks_only else None

    @functools.cached_property
    def _door(self) -> "Door":
        from .deferral.door import Door  # where it is used

        return Door(self.settings, self.app)

    @classmethod
    def from_config(cls, app: WSGIApplication, config: Mapping[str, Any]) -> "GearmanMiddleware":
        """Wrap `app` with a configuration in PhalApi-Gearman's shape, `{"servers": …, "task": {…}}`.

        Any setting may stand beside the two.

        Raises:
            ConfigError: as the class itself.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(
                f"config is {type(config).__name__}: give a dict, such as {{'servers': '127.0.0.1:4730'}}"
            )
        settings = dict(config)
        if "task" in settings:
            if "tasks" in settings:
                raise ConfigError("config has both 'task' and 'tasks': give one")
            settings["tasks"] = settings.pop("task")
        return cls(app, **settings)

    def accepts(self, task: Message, status: int, location: str) -> bool:
        """Whether the work of a replayed task is done although its response's status is none from 200 to 299.

        Args:
            task: the message.
            status: the response's.
            location: the response's Location; empty where there is none.
        """

        def leads_to_login() -> bool:
            known = {*self.settings.login_urls, *known_login_urls(self.app)}
            return leads_to(location, task, known)

        return accepted(status, self.settings.succeeds(task), task.from_request, leads_to_login)

    def _why_not(self, environ: dict[str, Any], job: Any) -> str:
        from .identity import why_not  # only where there is something to ask

        return why_not(self.app, self.settings, environ, job)

    def use(self, client: Client) -> None:
        """Queue with this client from now on, `gearman` included: say, with the test kit's."""
        self.client = client
        # The same object stays: a module may have taken it when it was imported.
        self.gearman.use(client)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        job = environ.get(JOB_KEY)
        if job is None:
            # Clients must not set what only the queue may say. One search for all keys is cheaper than a look at each.
            if "HTTP_X_GEARMAN" in "\n".join(environ):
                for key in [key for key in environ if key.startswith("HTTP_X_GEARMAN")]:
                    del environ[key]
            if self._inbox is not None:
                answer = self._inbox.answer(environ, self.client)
                if answer is not None:
                    return answer.send(environ, start_response)
            # However the application reads the path, a public request does not get through.
            if self._private is not None and self._private.fit(spellings(environ.get("PATH_INFO", ""))):
                return _plain("404 Not Found", environ, start_response)
            if self.client.shows_status:
                instead = self._door.answer(environ, self.client)
                if instead is not None:
                    return instead.send(environ, start_response)
        gearman = environ[KEY] = Gearman(self.client, environ, True)
        if self.settings.short_key:
            environ[SHORT_KEY] = gearman
        if job is not None:
            course = getattr(job, "course", None)
            if course is not None and course.watch(gearman.finish, self.accepts):
                if self._asks or job.identity is not None:
                    reason = self._why_not(environ, job)
                    if reason:
                        job.refuse(reason)
                        return _plain("403 Forbidden", environ, start_response)
                return self.app(environ, start_response)  # the replay itself looks after its response's end
        status = ""

        def start(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = line
            return start_response(line, headers, exc_info) if exc_info else start_response(line, headers)

        try:
            body = self.app(environ, start)
        except BaseException:
            gearman.finish(False, _code(status))
            raise
        if type(body) in _FINISHED and gearman.is_idle():
            return body
        return _Body(body, gearman, lambda: _code(status))


def _open_inbox(settings: Settings) -> "Inbox | None":
    if not settings.inbox:
        return None
    from .inbox import Door  # where there is one

    return Door(settings)


def _describe() -> None:
    """Give the class a docstring and a signature, for `help()`, that say each setting with its true default."""
    names = inspect.signature(GearmanMiddleware).parameters
    shown = [names["app"]]
    for name, setting in SETTINGS.items():
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if name in names else inspect.Parameter.KEYWORD_ONLY
        shown.append(inspect.Parameter(name, kind, default=setting.default))
    GearmanMiddleware.__signature__ = inspect.Signature(shown)
    about = "\n".join(f"    {name}: {setting.help}" for name, setting in SETTINGS.items())
    GearmanMiddleware.__doc__ = f"{inspect.getdoc(GearmanMiddleware)}\n\nSettings:\n{about}\n"


_describe()

_FINISHED = (list, tuple)


def _client(settings: Settings) -> Client:
    if not settings.metrics:
        return Client(settings)
    try:
        from .counted import CountedClient
    except ImportError as error:
        raise ConfigError(f"metrics=True: {error}: `pip install 'gearwsgi[metrics]'`") from error
    return CountedClient(settings)


def _code(status: str) -> int:
    """The number of a status line; 0 where there is none."""
    number = status[:3]
    return int(number) if number.isdecimal() else 0


class _Body:
    """A response's body, which notices whether all of it was sent."""

    __slots__ = ("_body", "_close", "_exhausted", "_gearman", "_iterator", "_status")

    def __init__(self, body: Iterable[bytes], gearman: Gearman, status: Callable[[], int]) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._gearman = gearman
        self._status = status
        self._exhausted = False

    def __iter__(self) -> "_Body":
        return self

    def __next__(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        try:
            return next(self._iterator)
        except StopIteration:
            self._exhausted = True
            raise

    def close(self) -> None:
        """Close the application's body; then, where the response went out whole, submit."""
        sent = False
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
            sent = self._exhausted
        finally:
            self._gearman.finish(sent, self._status())


def _plain(status: str, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    text = f"{status}\n".encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else text]


def find_middleware(app: Any, *, globals_too: bool = False) -> GearmanMiddleware | None:
    """The GearmanMiddleware that `app` is, holds (as Flask's `app.wsgi_app`), or wraps in other middleware; or None.

    Args:
        app: the application.
        globals_too: look at the module's names that a function uses, too: `def application(environ, start_response):
            return inner(environ, start_response)`. A handler may well name the middleware that it is in, so this is
            no way to see whether an application is wrapped.
    """
    return next((part for part in walk(app, globals_too=globals_too) if isinstance(part, GearmanMiddleware)), None)

"""A process of `gearwsgi dev`: its worker, or its web application under waitress. It ends when its parent is gone."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

import waitress

from .. import log
from ..app import overlay
from ..app.loading import load_application
from ..errors import GearwsgiError
from ..submit.client import Client
from ..submit.middleware import GearmanMiddleware
from ..submit.servers import Receipt
from ..wire.payload import Submission
from ..worker.posix import die_with_parent
from .routes import find_router
from .signals import asked_to_end

READY = "\x1egearwsgi web ready"
"""The line that tells the parent, and is not shown, that requests are served."""
PREFIX = "/-/gearwsgi"
"""The path of the dashboard."""
FINISH = 10.0
"""Seconds that requests have to end when the process is replaced."""

NEW = 1.0
"""Seconds that a connection has to send its first request, when the process is replaced."""

_ids: ContextVar[list[str] | None] = ContextVar("gearwsgi.dev.ids", default=None)


class NotingClient(Client):
    """A client that notes what was queued during the request."""

    def submit(self, submissions: Sequence[Submission], meanwhile: Callable[[], None] | None = None) -> list[Receipt]:
        receipts = super().submit(submissions, meanwhile)
        ids = _ids.get()
        if ids is not None:
            ids.extend(submission.id for submission in submissions)
        return receipts


class Logged:
    """The application, with a line in the log for each request, which names the tasks that it has queued."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.running = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        with self._lock:
            self.running += 1
        ids: list[str] = []
        _ids.set(ids)
        began = time.perf_counter()
        status = "no status"

        def start(line: str, *rest: Any) -> Any:
            nonlocal status
            status = line
            return start_response(line, *rest)

        body: Any = None
        try:
            body = self._app(environ, start)
            yield from body
        except GeneratorExit:
            status += ", and the client is gone"
            raise
        except BaseException as error:
            status = type(error).__name__
            raise
        finally:
            try:
                if hasattr(body, "close"):
                    body.close()  # tasks that wait for the response's end are queued here
            finally:
                _ids.set(None)
                path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
                if environ.get("QUERY_STRING"):
                    path += "?" + environ["QUERY_STRING"]
                took = (time.perf_counter() - began) * 1000
                queued = f", queued id {', '.join(ids)}" if ids else ""
                log.write(environ["REQUEST_METHOD"], f"{path} {status} in {took:.1f} ms{queued}")
                with self._lock:
                    self.running -= 1


def with_static_files(application: Any) -> Any:
    """The application; where it is Django's in DEBUG, with its static files, as Django's `runserver` serves them."""
    router = find_router(application)
    if router is None or router[0] != "Django":
        return application
    from django.apps import apps
    from django.conf import settings
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    if not settings.DEBUG or not apps.is_installed("django.contrib.staticfiles"):
        return application
    return StaticFilesHandler(application)


class WithDashboard:
    """An application, with the dashboard below `PREFIX`, open to whoever comes from this machine.

    Args:
        app: the application.
        middleware: whose tasks the dashboard shows.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], middleware: GearmanMiddleware) -> None:
        self._app = app
        self._middleware = middleware
        self._dashboard: Callable[..., Iterable[bytes]] | None = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path != PREFIX and not path.startswith(PREFIX + "/"):
            return self._app(environ, start_response)
        if self._dashboard is None:  # it costs nothing until somebody looks at it
            from ..dashboard import Dashboard, on_this_machine

            self._dashboard = Dashboard(self._middleware, on_this_machine, app=overlay.name())
        script_name = environ.get("SCRIPT_NAME", "") + PREFIX
        moved = {**environ, "SCRIPT_NAME": script_name, "PATH_INFO": path[len(PREFIX) :]}
        return self._dashboard(moved, start_response)


def serve(fd: int) -> int:
    """Serve the application on a listening socket until SIGTERM; then finish the requests that run."""
    application, middleware = load_application(overlay.APP)
    middleware.use(NotingClient(middleware.client.settings))
    logged = Logged(with_static_files(application))
    server: Any = waitress.create_server(WithDashboard(logged, middleware), sockets=[socket.socket(fileno=fd)])
    wait = asked_to_end()
    threading.Thread(target=server.run, daemon=True, name="waitress").start()
    print(READY, flush=True)
    wait()
    server.accepting = False  # new connections are for the successor, which listens on the same socket
    end = time.monotonic() + FINISH
    while time.monotonic() < end and (logged.running or _unsent(server)):
        time.sleep(0.02)
    return 0


def _unsent(server: Any) -> bool:
    channels = list(server.active_channels.values())
    return any(channel.total_outbufs_len or channel.requests or _is_new(channel) for channel in channels)


def _is_new(channel: Any) -> bool:
    """Whether its connection was accepted just now, and its first request is about to be read."""
    return bool(channel.last_activity == channel.creation_time > time.time() - NEW)


def main(arguments: Sequence[str]) -> NoReturn:
    """`python -m gearwsgi.cli.devchild PARENT worker …` or `… PARENT web DESCRIPTOR`."""
    parent, role, *rest = arguments
    die_with_parent(int(parent), signal.SIGTERM)
    if role == "web":
        try:
            code = serve(int(rest[0]))
        except GearwsgiError as error:
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__)
            print(f"ERROR: {error}", file=sys.stderr)
            code = 4
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # threads that the application has started must not delay the end
    from . import main as command_line

    command_line([role, *rest])


if __name__ == "__main__":
    main(sys.argv[1:])

"""Django: settings in `GEARWSGI`, replays past CSRF, tasks that wait for the commit, `manage.py gearman_worker`.

# settings.py
GEARWSGI = {"servers": "127.0.0.1:4730", "tasks": {"testTask": "Test.task"}}
INSTALLED_APPS = [..., "gearwsgi.contrib.django"]
MIDDLEWARE = ["gearwsgi.contrib.django.JobMiddleware", ...]

# wsgi.py
from gearwsgi.contrib.django import get_wsgi_application
application = get_wsgi_application()
"""

import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application as _django_application
from django.db import connections, transaction
from django.http import HttpResponse, HttpResponseForbidden
from django.utils.module_loading import import_string

from ...app.job import Continue
from ...environ import JOB_KEY
from ...errors import InvalidTask
from ...submit.client import Client
from ...submit.identity import django_key
from ...submit.middleware import KEY, SHORT_KEY, GearmanMiddleware, find_middleware
from ...submit.task import Status, Task
from ...submit.tasks import Gearman as Core  # `tasks` in this package is the backend's module
from . import users
from .deferral import deferred, find_body, keep_body, to_django

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from webob import Response

    from ...state.records.model import Record

__all__ = ["Gearman", "JobMiddleware", "deferred", "gearman", "get_wsgi_application"]

_current: contextvars.ContextVar["Gearman | None"] = contextvars.ContextVar("gearwsgi.django", default=None)


class Gearman:
    """`environ["gearman"]` in Django: the core's, whose tasks may wait for the transaction's commit.

    Args:
        core: the core's.
        request: Django's request in hand, or None.
    """

    __slots__ = ("_core", "_request")

    def __init__(self, core: Core, request: Any = None) -> None:
        self._core = core
        self._request = request

    def task(
        self,
        service: str,
        data: Any = None,
        queue: str | None = None,
        *,
        after_commit: bool = False,
        using: str | None = None,
        **options: Any,
    ) -> Task:
        """Queue a request for `service`; the core's `task()`.

        Args:
            after_commit: submit when the transaction in hand commits; at once where there is none, and never where it
                is rolled back. What is given is checked now; the task's handle is empty until then.
            using: the database whose transaction it is.

        The other arguments, and what it raises, are the core's.
        """
        return self._core.task(service, data, queue, **_waiting(options, after_commit, using))

    @property
    def client(self) -> Client:
        """What it queues with."""
        return self._core.client

    def call(self, service: str, data: Any = None, queue: str | None = None, **options: Any) -> "Response":
        """The core's `call()`."""
        return self._core.call(service, data, queue, **options)

    def replay(
        self, queue: str | None = None, *, after_commit: bool = False, using: str | None = None, **options: Any
    ) -> Task:
        """Queue the request in hand itself; the core's `replay()`, with `task()`'s `after_commit`.

        Django may have read the body (its CSRF check does, of a form): what it still has of it is taken from there.
        """
        if self._request is not None and "body" not in options:
            options["body"] = find_body(self._request)
        return self._core.replay(queue, **_waiting(options, after_commit, using))

    def defer(self, **options: Any) -> HttpResponse | None:
        """Queue the request in hand, and answer 202; the core's `defer()`, whose answer a view can return.

        The body is found as `replay()` finds it.
        """
        if self._request is not None and "body" not in options:
            options["body"] = find_body(self._request)
        response = self._core.defer(**options)
        return to_django(response) if response is not None else None

    def user_key(self) -> str:
        """The key of the user whose request is in hand; empty: it is nobody's."""
        user = getattr(self._request, "user", None)
        return django_key(user) if user is not None else ""

    def batch(self) -> "AbstractContextManager[list[Task]]":
        """The core's `batch()`."""
        return self._core.batch()

    def status(self, task: Task | str) -> Status:
        """The core's `status()`."""
        return self._core.status(task)

    def record(self, task: Task | str) -> "Record":
        """The core's `record()`."""
        return self._core.record(task)

    def result(self, task: Task | str, timeout: float = 0) -> "Response":
        """The core's `result()`."""
        return self._core.result(task, timeout)

    def cancel(self, task: Task | str) -> Status:
        """The core's `cancel()`."""
        return self._core.cancel(task)


def _waiting(options: dict[str, Any], after_commit: bool, using: str | None) -> dict[str, Any]:
    if not after_commit:
        return options
    if options.get("after") is not None:
        raise InvalidTask("after_commit and after are given together: give one")
    return {**options, "after": functools.partial(transaction.on_commit, using=using)}


class JobMiddleware:
    """First in MIDDLEWARE: lets replays, and only them, past CSRF; `environ["gearman"]` gets `after_commit=`.

    A job has no form with a token. That it is one says an environ key that no client can send.
    """

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        """Answer the request."""
        environ = request.META
        job = environ.get(JOB_KEY)
        if job is not None:
            request._dont_enforce_csrf_checks = True
            if job.identity is not None and not users.become(request, job):
                return HttpResponseForbidden()
        if KEY not in environ:  # Django's test client goes around WSGI middleware
            environ[KEY] = environ[SHORT_KEY] = Core(_middleware().client, environ)
        gearman = environ[KEY] = request.gearwsgi = Gearman(environ[KEY], request)
        if SHORT_KEY in environ:
            environ[SHORT_KEY] = gearman
        token = _current.set(gearman)
        try:
            return self.get_response(request)
        finally:
            _current.reset(token)

    def process_view(self, request: Any, view: Any, arguments: Any, values: Any) -> None:
        """A deferred view's body is wanted as it came."""
        keep_body(request, view)

    def process_exception(self, request: Any, exception: Exception) -> HttpResponse | None:
        """`Continue` is no error: nothing is logged, and nobody gets a mail.

        Raises:
            ImproperlyConfigured: what the view has written is rolled back, and its cursor would say that it was done.
        """
        if not isinstance(exception, Continue):
            return None
        _check_kept(request)
        return HttpResponse(status=204) if exception.catch(request.META.get(JOB_KEY)) else None


def _check_kept(request: Any) -> None:
    """That no transaction was around the view, as ATOMIC_REQUESTS has it."""
    free = getattr(request.resolver_match.func, "_non_atomic_requests", ())
    for alias, options in connections.settings.items():
        if options["ATOMIC_REQUESTS"] and alias not in free:
            raise ImproperlyConfigured(
                "Continue in a view under ATOMIC_REQUESTS, which has rolled back what the view has written: mark it "
                "@transaction.non_atomic_requests, and commit step by step"
            )


def get_wsgi_application() -> GearmanMiddleware:
    """Django's WSGI application, wrapped with the settings in `GEARWSGI`; for `wsgi.py`.

    Raises:
        ConfigError: as `GearmanMiddleware`.
        ImproperlyConfigured: `GEARWSGI` is no dict.
    """
    application = _django_application()
    backends = _task_backends()
    if not backends:
        return GearmanMiddleware.from_config(application, _config())
    from .task_api import PATH
    from .task_runs import TaskHandler

    config = dict(_config())
    config["tasks_only"] = [*(config.get("tasks_only") or ()), PATH]
    if not config.get("queues"):
        served = [config.get("queue") or "job", *(queue for backend in backends for queue in backend.served())]
        config["queues"] = list(dict.fromkeys(served))
    return GearmanMiddleware.from_config(TaskHandler(), config)


def _task_backends() -> list[Any]:
    """The backends of ours that `TASKS` names."""
    named = {alias: params.get("BACKEND", "") for alias, params in (getattr(settings, "TASKS", None) or {}).items()}
    others = ("django.tasks.", "django_tasks.")
    if all(path.startswith(others) for path in named.values()):
        return []  # nearly always: nothing of it is imported
    from .task_api import tasks as found

    backends = [found.task_backends[alias] for alias, path in named.items() if not path.startswith(others)]
    return [backend for backend in backends if hasattr(backend, "served")]


def gearman() -> Gearman:
    """What tasks are queued with where no request is at hand to ask: models, signals, management commands.

    Within a request it is that request's. Outside, URLs begin with the setting `base_url`, or else with the first of
    `ALLOWED_HOSTS`, and `https` where `SECURE_SSL_REDIRECT` is set, so that Django takes the job.
    """
    current = _current.get()
    return current if current is not None else Gearman(_middleware().gearman)


def dashboard_urls(
    *, allow: Callable[[Any], bool] = lambda user: bool(user.is_staff), read_only: bool = False
) -> tuple[list[Any], str, str]:
    """The dashboard, for `urls.py`: `path("admin/tasks/", dashboard_urls())`, before `admin/` itself.

    Who has not logged in is sent to the login, and comes back from there.

    Args:
        allow: whether a user who has logged in may see it; by default staff may.
        read_only: whether it only shows.
    """
    from .dashboard import make_urls

    return make_urls(_middleware, allow, read_only)


def _config() -> Mapping[str, Any]:
    config = getattr(settings, "GEARWSGI", {})
    if not isinstance(config, Mapping):
        raise ImproperlyConfigured(f"GEARWSGI is {type(config).__name__}: give a dict, such as {{'servers': '…:4730'}}")
    return config


@functools.lru_cache(maxsize=1)
def _middleware() -> GearmanMiddleware:
    """The middleware in WSGI_APPLICATION; where that has none, one that only submits."""
    path = getattr(settings, "WSGI_APPLICATION", None)
    found = find_middleware(import_string(path)) if path else None
    return found if found is not None else GearmanMiddleware.from_config(_no_application, _config())


def _no_application(environ: Any, start_response: Any) -> list[bytes]:
    raise ImproperlyConfigured("WSGI_APPLICATION has no GearmanMiddleware: see gearwsgi.contrib.django")

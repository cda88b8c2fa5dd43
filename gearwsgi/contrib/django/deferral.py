"""Deferral in Django: the decorator `@deferred` for views, and the request's body for it."""

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse

from ...environ import JOB_KEY
from ...rules import Given, read_options

if TYPE_CHECKING:
    from webob import Response

_View = TypeVar("_View", bound=Callable[..., Any])


@overload
def deferred(view: _View) -> _View: ...
@overload
def deferred(view: None = None, **options: Unpack[Given]) -> Callable[[_View], _View]: ...
def deferred(view: Any = None, **options: Unpack[Given]) -> Any:
    """Have a view's request queued and answered 202; its body runs in the replay, in a worker.

    Decorators above it, and the site's middleware (login, CSRF), run in front of the 202, and again in the replay:

        @login_required
        @deferred(wait=2)
        def report(request): ...

    It needs `gearwsgi.contrib.django.JobMiddleware`. For a view that is a class: `@method_decorator(deferred,
    name="dispatch")`.

    Args:
        view: the view, where there are no options.
        options: as `environ["gearman"].defer` takes them.

    Raises:
        ConfigError: an option is unknown or can't work.
    """
    if view is None:
        return functools.partial(deferred, **options)
    read_options(options)
    run = async_to_sync(view) if iscoroutinefunction(view) else view

    @functools.wraps(view)
    def queue(request: Any, *arguments: Any, **values: Any) -> Any:
        if JOB_KEY not in request.META:
            response = _gearman(request).defer(**options)
            if response is not None:
                return response
        return run(request, *arguments, **values)

    queue.gearwsgi_deferred = True  # type: ignore[attr-defined]
    return queue


def _gearman(request: Any) -> Any:
    found = getattr(request, "gearwsgi", None)
    if found is None:
        raise ImproperlyConfigured("@deferred needs gearwsgi.contrib.django.JobMiddleware in MIDDLEWARE")
    return found


def keep_body(request: Any, view: Any) -> None:
    """Read the body of a deferred view before Django parses a form from it, which would leave nothing to be queued."""
    if getattr(view, "gearwsgi_deferred", False) and JOB_KEY not in request.META and not request._read_started:
        body = request.gearwsgi_body = request.read()
        request._stream, request._read_started = io.BytesIO(body), False


def find_body(request: Any) -> bytes | None:
    """The request's body, if Django has it; None: it may still be in the stream."""
    kept: bytes | None = getattr(request, "gearwsgi_body", None)
    if kept is None:
        try:
            kept = request.body
        except Exception:  # RawPostDataException, or it is too large for Django
            return None
    return kept or None


def to_django(response: "Response") -> HttpResponse:
    """WebOb's response as Django's."""
    found = HttpResponse(response.body, status=response.status_int, reason=response.status[4:])
    for name, value in response.headerlist:
        if name.lower() == "set-cookie":
            found.cookies.load(value)
        else:
            found.headers[name] = value
    return found

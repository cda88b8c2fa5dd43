"""The dashboard below a path of a Django site, where the site's own login decides who may see it."""

import io
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import NoReverseMatch, re_path, reverse
from django.views.decorators.csrf import csrf_exempt

from ...dashboard import Dashboard
from ...submit.middleware import GearmanMiddleware

_WHO = "gearwsgi.contrib.django.who"


def make_urls(
    find: Callable[[], GearmanMiddleware], allow: Callable[[Any], bool], read_only: bool
) -> tuple[list[Any], str, str]:
    """What `path()` takes as its second argument."""
    # The dashboard's forms have tokens of its own, which Django's check does not know.
    return [re_path(r"^(?P<path>.*)$", csrf_exempt(_View(find, allow, read_only)), name="page")], "gearwsgi", "gearwsgi"


class _View:
    """A view that answers as the dashboard does.

    Args:
        find: answers the middleware; asked at the first request, when the site is loaded.
        allow: whether a user may see it.
        read_only: whether nothing may be changed.
    """

    def __init__(self, find: Callable[[], GearmanMiddleware], allow: Callable[[Any], bool], read_only: bool) -> None:
        self._find = find
        self._allow = allow
        self._read_only = read_only
        self._dashboard: Dashboard | None = None

    def __call__(self, request: Any, path: str) -> Any:
        user = request.user
        if not user.is_authenticated:
            return redirect_to_login(request.get_full_path(), _login())
        if not self._allow(user):
            raise PermissionDenied
        if self._dashboard is None:
            self._dashboard = Dashboard(self._find(), lambda environ: environ[_WHO], self._read_only)
        mount = request.path[: len(request.path) - len(path)].rstrip("/")
        environ = {
            **request.META,
            "SCRIPT_NAME": mount.encode().decode("latin-1"),
            "PATH_INFO": "/" + path.encode().decode("latin-1"),
            "wsgi.input": io.BytesIO(request.body),
            "wsgi.url_scheme": request.scheme,
            _WHO: user.get_username(),
        }
        return _respond(self._dashboard, environ)


def _respond(dashboard: Dashboard, environ: dict[str, Any]) -> Any:
    response = HttpResponse()

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        code, _, response.reason_phrase = status.partition(" ")
        response.status_code = int(code)
        for name, value in headers:
            if name.lower() == "set-cookie":
                response.cookies.load(value)
            else:
                response[name] = value

    response.content = b"".join(dashboard(environ, start))
    return response


def _login() -> Any:
    """The admin's login where the site has the admin, else its own."""
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return settings.LOGIN_URL

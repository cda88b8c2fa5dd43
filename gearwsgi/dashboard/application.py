"""The dashboard as a WSGI application: finds out who asks and for which page, and answers."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from webob import Request, Response

from ..environ import WSGIApplication
from ..errors import ConfigError, GearwsgiError
from ..submit.middleware import find_middleware
from .access import Access, Authorize
from .answers import Refused, quoted_mount, secured
from .pages.routes import PAGES
from .rendering import Renderer
from .view import Site, View

_STATIC = Path(__file__).with_name("static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_FORM = 64 * 1024
"""Bytes that a form may have."""
_FORM = "application/x-www-form-urlencoded"


class Dashboard:
    """Pages on the tasks of one middleware: what runs, what failed and why, and buttons to do something about it.

    Without `authorize` nothing is answered but to who comes with the `token`, as `?token=…`, which each dashboard makes
    anew.

    Args:
        middleware: the `GearmanMiddleware`, or an application that is wrapped in it.
        authorize: called with each request's environ; answers by what name the visitor is known, or None for nobody
            who may be here.
        read_only: whether there are no buttons, and nothing can be changed.
        trace_url: address of a trace, with `{trace_id}` where its id belongs; a task's page leads there.
        app: `module:name` of the application, for what is shown to be run in a terminal.

    Raises:
        ConfigError: `middleware` has none, or `trace_url` can't be one.
    """

    def __init__(
        self,
        middleware: WSGIApplication,
        authorize: Authorize | None = None,
        read_only: bool = False,
        *,
        trace_url: str = "",
        app: str = "",
    ) -> None:
        found = find_middleware(middleware)
        if found is None:
            raise ConfigError(
                f"the dashboard was given {type(middleware).__name__}: give the GearmanMiddleware, "
                "or the application that is wrapped in it"
            )
        if trace_url and not (trace_url.startswith(("http://", "https://")) and "{trace_id}" in trace_url):
            raise ConfigError(f"trace_url={trace_url!r}: give an http:// or https:// address that holds {{trace_id}}")
        self._access = Access(authorize)
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _TYPES}
        everything = b"".join(self._files[name] for name in sorted(self._files))
        version = hashlib.sha256(everything).hexdigest()[:12]
        self._site = Site(found, Renderer(), PAGES, read_only, trace_url, app, version)
        self._pages = {page.path: page for page in PAGES}

    @property
    def token(self) -> str:
        """What opens the dashboard, where there is no `authorize`."""
        return self._access.token

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._answer(request)
        except Refused as refused:
            response = self._refuse(request, refused)
        except UnicodeDecodeError:
            text = "The address, or the form, is not in UTF-8."
            response = self._refuse(request, Refused(400, "That can't be read", text))
        except GearwsgiError as error:
            response = self._refuse(request, Refused(503, "That can't be had now", str(error)))
        secured(response)
        # Not by calling the response: WebOb would make a redirect absolute, by a Host that a proxy may have changed.
        start_response(response.status, response.headerlist)
        return [] if request.method == "HEAD" else response.app_iter

    def _answer(self, request: Request) -> Response:
        way_on = self._access.log_in(request)
        if way_on is not None:
            return way_on
        who = self._access.who(request)
        path = request.environ.get("PATH_INFO", "")
        if not path:
            return Response(status=308, location=quoted_mount(request.environ) + "/", charset="utf-8")
        if path.startswith("/static/"):
            return self._file(request, path.removeprefix("/static/"))
        page = self._pages.get(path[1:])
        if page is None:
            raise Refused(404, "No such page", "The pages that there are stand at the top.")
        if request.method not in (("POST",) if page.is_action else ("GET", "HEAD")):
            raise Refused(405, "Not so", "Open this page by its link, and use its buttons.")
        response = Response(content_type="text/html", charset="utf-8")
        if page.is_action:
            self._check_form(request)
        csrf = self._access.csrf(request, response)
        return page.show(View(self._site, request, response, page, who=who, csrf=csrf))

    def _check_form(self, request: Request) -> None:
        """Check that this form may change something."""
        if self._site.read_only:
            raise Refused(403, "Nothing was done", "This dashboard only shows: it was made with read_only=True.")
        if (request.content_length or 0) > _MAX_FORM:
            raise Refused(413, "Nothing was done", f"The form has more than {_MAX_FORM} bytes.")
        if request.content_type != _FORM:
            raise Refused(415, "Nothing was done", "Use the buttons of the dashboard's pages.")
        self._access.check_form(request)

    def _file(self, request: Request, name: str) -> Response:
        content = self._files.get(name)
        if content is None or request.method not in ("GET", "HEAD"):
            raise Refused(404, "No such file", "The dashboard has none of that name.")
        response = Response(body=content, content_type=_TYPES[Path(name).suffix], charset="utf-8")
        response.headers["Cache-Control"] = "private, max-age=3600"
        return response

    def _refuse(self, request: Request, refused: Refused) -> Response:
        response = Response(status=refused.status, content_type="text/html", charset="utf-8")
        response.text = self._site.renderer.render(
            "refused.html", refused=refused, mount=quoted_mount(request.environ), site=self._site
        )
        return response

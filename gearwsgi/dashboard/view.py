"""What a page is, what it sees of the request that it answers, and what all requests share."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from webob import Request, Response

from ..log import clean
from ..settings import Settings
from ..state.records.opening import reading
from ..state.records.store import Store
from ..submit.client import Client
from ..submit.middleware import GearmanMiddleware
from .answers import address, quoted_mount
from .fields import Fields
from .rendering import Renderer

_log = logging.getLogger("gearwsgi")

OFF = (
    "Records are off, so nobody writes down what becomes of tasks. Set records='sqlite' in the GearmanMiddleware "
    "(or GEARWSGI_RECORDS=sqlite for workers and dashboard alike), and start the workers anew."
)
NONE_YET = "No worker has written a record yet. Start one with `gearwsgi worker module:app`, and queue a task."


class Page(NamedTuple):
    """A page, or an action.

    Attributes:
        path: below the mount, without a slash in front.
        show: answers a request for it.
        title: its name in the navigation; empty: it is not listed there.
        under: the path of the page that is marked in the navigation, where that is another one.
        is_action: whether it is a POST that changes something.
    """

    path: str
    show: "Show"
    title: str = ""
    under: str = ""
    is_action: bool = False


@dataclass(slots=True)
class Site:
    """What all requests share.

    Attributes:
        middleware: the application's.
        renderer: what fills templates.
        pages: all.
        read_only: whether nothing may be changed.
        trace_url: address of a trace, with `{trace_id}` in it; or empty.
        app: `module:name` of the application; or empty.
        version: of the static files.
    """

    middleware: GearmanMiddleware
    renderer: Renderer
    pages: Sequence[Page]
    read_only: bool
    trace_url: str
    app: str
    version: str


class View:
    """The request that is answered, as a page sees it.

    Args:
        site: what all requests share.
        request: WebOb's.
        response: the response, whose headers may be set already.
        page: the page that was asked for.
        who: the visitor's name.
        csrf: the value that the page's forms carry.
    """

    def __init__(self, site: Site, request: Request, response: Response, page: Page, *, who: str, csrf: str) -> None:
        self.site = site
        self.page = page
        self.who = who
        self.csrf = csrf
        self.mount = quoted_mount(request.environ)
        self.fields = Fields(request.POST if page.is_action else request.GET)
        self.response = response
        self.trouble = ""
        """Why the records can't be asked, and what to do about it; empty where they can."""

    @property
    def settings(self) -> Settings:
        """The middleware's, as they are now."""
        return self.site.middleware.settings

    @property
    def client(self) -> Client:
        """The middleware's."""
        return self.site.middleware.client

    @contextlib.contextmanager
    def records(self) -> Iterator[Store | None]:
        """The records; None where they are off, and `trouble` then says why.

        Raises:
            RecordsUnavailable: the database is away; also within the block.
        """
        if not self.settings.records:
            self.trouble = OFF
            yield None
            return
        with reading(self.settings) as store:
            if store is None:
                self.trouble = NONE_YET
            yield store

    def address(self, path: str, **query: Any) -> str:
        """An address of the dashboard's."""
        return address(self.mount, path, list(query.items()))

    def render(self, template: str, **values: Any) -> Response:
        """The page, made from its template."""
        self.response.text = self.site.renderer.render(template, view=self, site=self.site, **values)
        return self.response

    def go(self, path: str, **query: Any) -> Response:
        """A redirect, after something was done, to the page that shows it."""
        self.response.status = 303
        self.response.location = self.address(path, **query)
        self.response.content_type = "text/plain"
        return self.response

    def download(self, name: str, text: bytes) -> Response:
        """A text as a file."""
        self.response.content_type = "text/plain"
        self.response.charset = "utf-8"
        self.response.body = text
        self.response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return self.response

    def log(self, did: str) -> None:
        """Log who did what: whoever has changed something is to be found."""
        _log.warning("dashboard: %s %s", clean(self.who), clean(did))


Show: TypeAlias = Callable[[View], Response]

"""The parts that all answers of the dashboard have, and the addresses of its pages."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from webob import Request, Response

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SAFE = "/:@!$&'()*+,;=~"


class Refused(Exception):
    """Raised to answer with an error page that says why.

    Args:
        status: the status of the answer.
        title: in a few words.
        text: what to do about it.
    """

    def __init__(self, status: int, title: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.title = title
        self.text = text


def secured(response: Response) -> Response:
    """The response, with the headers that all have; those that it has set itself stay."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def quoted_mount(environ: Mapping[str, Any]) -> str:
    """Where the dashboard is mounted, as it stands in an address; empty at the root."""
    return quote(str(environ.get("SCRIPT_NAME", "")).encode("latin-1", "replace"), safe=_SAFE).rstrip("/")


def address(mount: str, path: str, query: Sequence[tuple[str, Any]] = ()) -> str:
    """An address of the dashboard's; what is empty or None in the query is left out."""
    shown = [(name, str(value)) for name, value in query if value is not None and value != ""]
    return f"{mount}/{path}" + (f"?{urlencode(shown, errors='backslashreplace')}" if shown else "")


def own_address(request: Request, query: Sequence[tuple[str, Any]]) -> str:
    """This request's address with another query."""
    path = quote(request.environ.get("PATH_INFO", "").encode("latin-1", "replace").lstrip(b"/"), safe=_SAFE)
    return address(quoted_mount(request.environ), path, query)

"""Answers that the middleware gives itself, in JSON or as a small page: whichever the client prefers."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...message.response import read_response, response_class

if TYPE_CHECKING:
    from webob import Response

JSON, HTML, EVENTS = "application/json", "text/html", "text/event-stream"

_HOP_BY_HOP = frozenset(
    {
        "connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""Headers of a single connection (RFC 9110, section 7.6.1); and the length, which is counted anew."""

_PHRASES = {413: "Content Too Large"}
"""RFC 9110's reason phrases, where Python has older ones."""


class Sendable(Protocol):
    """An answer that can be sent as WSGI wants it."""

    def send(self, environ: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        """Give it as a WSGI application does."""
        ...


class Answer(NamedTuple):
    """A whole response.

    Attributes:
        status: its status line.
        headers: its headers but Content-Length.
        body: its body.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def send(self, environ: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        """Give it as a WSGI application does."""
        start_response(self.status, [*self.headers, *self._length()])
        return [b""] if environ.get("REQUEST_METHOD") == "HEAD" else [self.body]

    def response(self) -> "Response":
        """As WebOb's object."""
        return response_class()(status=self.status, headerlist=[*self.headers, *self._length()], app_iter=[self.body])

    def _length(self) -> list[tuple[str, str]]:
        return [("Content-Length", str(len(self.body)))] if self.status[:3] not in ("204", "304") else []


def make(status: int, kind: str, body: str, *headers: tuple[str, str]) -> Answer:
    """An answer of the middleware's own, which must not be cached: it is true only now."""
    own = [("Content-Type", f"{kind}; charset=utf-8" if kind == HTML else kind), ("Cache-Control", "no-store")]
    return Answer(line(status), [*own, ("Vary", "Accept"), *headers], body.encode())


def make_json(status: int, values: Mapping[str, Any], *headers: tuple[str, str]) -> Answer:
    """An answer in JSON."""
    return make(status, JSON, json.dumps(values, ensure_ascii=False) + "\n", *headers)


def problem(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An answer that says why something can't be done, as RFC 9457 has it."""
    values = {"title": line(status)[4:], "status": status, "detail": text}
    return make(status, "application/problem+json", json.dumps(values, ensure_ascii=False) + "\n", *headers)


def as_given(response: bytes) -> Answer:
    """The response of a handler, from its message, without the headers of a single connection.

    Raises:
        BadMessage: it is none.
    """
    status, headers, body = read_response(response)
    return Answer(status, [pair for pair in headers if pair[0].lower() not in _HOP_BY_HOP], body)


def line(status: int) -> str:
    """The status line with this number."""
    return f"{status} {_PHRASES.get(status) or HTTPStatus(status).phrase}"


def choose(environ: Mapping[str, Any], *offers: str) -> str:
    """Which of these kinds of content the client prefers; the first where it has no preference, or accepts none."""
    accept = environ.get("HTTP_ACCEPT")
    if not accept:
        return offers[0]
    from webob.acceptparse import create_accept_header

    found = create_accept_header(str(accept)).acceptable_offers(list(offers))
    return str(found[0][0]) if found else offers[0]

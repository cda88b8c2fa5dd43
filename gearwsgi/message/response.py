"""A whole HTTP response, as a `call()` gets it: in bytes, and as an object of WebOb's. Pure."""

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BadMessage

if TYPE_CHECKING:
    from webob import Response


@functools.cache
def response_class() -> "type[Response]":
    """WebOb's class Response. It is imported only where one is needed, because that takes 40 ms.

    On Python 3.11 and 3.12 its import warns of `cgi`, which would be an error in a test run with `-W error`.
    """
    warnings.filterwarnings("ignore", "'cgi' is deprecated", DeprecationWarning, r"webob\.")
    from webob import Response

    found: type[Response] = Response
    return found


def write_response(status: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """A response as an HTTP message, with status and headers as the application gave them."""
    head = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers], "\r\n"]
    return "\r\n".join(head).encode("latin-1", "replace") + body


def read_response(data: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
    """Status, headers and body of what `write_response` wrote.

    Raises:
        BadMessage: it is no HTTP response.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not end or version != "HTTP/1.1" or not status[:3].isdigit():
        raise BadMessage(f"the worker's answer is no HTTP response: {data[:200]!r}")
    pairs = [line.partition(":") for line in lines]
    return status, [(name, value.strip()) for name, _, value in pairs], body

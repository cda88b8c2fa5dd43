"""The request in hand, as what a replay of it needs: its target as the client wrote it, its headers, its body."""

import io
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from ..errors import InvalidTask

PATH_SAFE = "/!$&'()*+,:;=@~"
_QUERY_SAFE = "!$%&'()*+,/:;=?@[]^_`{|}~\"<>\\-."
_RAW_TARGET = re.compile(r"(?:https?://[^/?#]*)?(/[!-~]*)", re.IGNORECASE)
_NOT_REPLAYED = frozenset(
    {
        "HTTP_HOST", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_COOKIE", "HTTP_AUTHORIZATION",
        "HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "HTTP_IDEMPOTENCY_KEY", "HTTP_PROXY_AUTHORIZATION",
        "HTTP_UPGRADE", "HTTP_TE", "HTTP_KEEP_ALIVE",
    }
)  # fmt: skip
"""What belongs to a connection, or is said by inherit= only."""


def quote_path(path: str) -> str:
    """A path as PEP 3333 decodes it (each byte a character), percent-encoded."""
    return quote(path.encode("latin-1"), safe=PATH_SAFE)


def target(environ: Mapping[str, Any], mount: str, path_info: str, query: str) -> str:
    """The path below the mount and the query, percent-encoded as the client did it where the server says.

    Args:
        environ: the request's, for what the server says.
        mount: SCRIPT_NAME when the request came in.
        path_info: PATH_INFO then.
        query: QUERY_STRING then.

    Raises:
        InvalidTask: the request's target is no path, as in `OPTIONS *`.
    """
    path, prefix = quote_path(path_info), quote_path(mount).rstrip("/")
    if path and not path.startswith("/"):
        raise InvalidTask(f"a request to {path!r}, which is no path, can't be replayed")
    raw = _RAW_TARGET.fullmatch(str(environ.get("REQUEST_URI") or environ.get("RAW_URI") or ""))
    sent, mark, asked = raw[1].partition("?") if raw is not None else ("", "", "")
    # A server may have tidied it, and what is in front of us may have moved it: then what they made of it counts.
    if (
        sent.startswith(prefix)
        and unquote_to_bytes(sent).decode("latin-1") == mount + path_info
        and asked == query
        and "#" not in sent + query
    ):
        return sent[len(prefix) :] + mark + query
    return f"{path}?{quote(query.encode('latin-1'), safe=_QUERY_SAFE)}" if query else path


def headers(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The request's headers but Content-Type, what belongs to its connection, and who the user is."""
    return [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and key not in _NOT_REPLAYED and not key.startswith("HTTP_X_GEARMAN")
    ]


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """The request's body, put back for who reads it next.

    Raises:
        InvalidTask: it is over `limit` bytes, something has read it already, or nobody says where it ends.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    stream = environ["wsgi.input"]
    if length.isascii() and length.isdigit():
        if int(length) > limit:
            raise InvalidTask(f"a body of {length} bytes is over max_body={limit}")
        body = _read_whole(stream, int(length))
    elif environ.get("wsgi.input_terminated"):
        body = bytes(stream.read(limit + 1))
    elif "HTTP_TRANSFER_ENCODING" in environ:
        raise InvalidTask("the server does not say where the request's body ends: give replay(body=…)")
    else:
        return b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _read_whole(stream: Any, length: int) -> bytes:
    """`length` bytes, from the beginning where the server's stream can go back there."""
    try:
        stream.seek(0)
        rewinds = True
    except (AttributeError, OSError, ValueError):
        rewinds = False
    parts: list[bytes] = []
    left = length
    while left:
        part = stream.read(left)
        if not part:
            raise InvalidTask(
                f"the request's body has {length} bytes and only {length - left} of them are left: something has "
                "read it; call replay() before that, or give replay(body=…)"
            )
        parts.append(part)
        left -= len(part)
    if rewinds:
        stream.seek(0)  # for a framework that holds this very stream
    return b"".join(parts)


_FORWARDED = (
    ("HTTP_TRACEPARENT", "traceparent"),
    ("HTTP_TRACESTATE", "tracestate"),
    ("HTTP_X_REQUEST_ID", "X-Request-ID"),
    ("HTTP_ACCEPT_LANGUAGE", "Accept-Language"),
    # What a proxy said: who reads it behind us (ProxyFix, Django) reads it in the replay as it did here.
    ("HTTP_FORWARDED", "Forwarded"),
    ("HTTP_X_FORWARDED_FOR", "X-Forwarded-For"),
    ("HTTP_X_FORWARDED_HOST", "X-Forwarded-Host"),
    ("HTTP_X_FORWARDED_PORT", "X-Forwarded-Port"),
    ("HTTP_X_FORWARDED_PREFIX", "X-Forwarded-Prefix"),
    ("HTTP_X_FORWARDED_PROTO", "X-Forwarded-Proto"),
)


def _header_safe(value: Any) -> str:
    """A value of the request in hand as a header's: a server should have refused what is dropped here."""
    text = str(value or "")
    if not text.isprintable():
        text = "".join(char for char in text if char >= " " and char != "\x7f")
    if not text.isascii() and max(text) > "\xff":
        # A name that a framework's middleware has put there, which PEP 3333 would have as bytes of UTF-8.
        text = text.encode("utf-8", "replace").decode("latin-1")
    return text

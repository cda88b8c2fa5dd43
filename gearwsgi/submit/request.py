"""The request in hand, for its tasks and for a replay of it: its surroundings, target, headers and body."""

import io
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from .._version import __version__
from ..environ import JOB_KEY
from ..errors import InvalidTask
from ..kinds import BaseURL
from ..message.fields import PROTOCOL
from ..message.model import Message, check_headers, check_value, safe_host
from ..message.targets import TOKEN

USER_AGENT = f"gearwsgi/{__version__}"
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
"""Headers that belong to a connection, or that travel only if `inherit=` names them."""
_FORWARDED = {
    "HTTP_TRACEPARENT": "traceparent",
    "HTTP_TRACESTATE": "tracestate",
    "HTTP_X_REQUEST_ID": "X-Request-ID",
    "HTTP_ACCEPT_LANGUAGE": "Accept-Language",
    # What proxies say: whoever reads these (ProxyFix, Django) reads them in the replay as in the request.
    "HTTP_FORWARDED": "Forwarded",
    "HTTP_X_FORWARDED_FOR": "X-Forwarded-For",
    "HTTP_X_FORWARDED_HOST": "X-Forwarded-Host",
    "HTTP_X_FORWARDED_PORT": "X-Forwarded-Port",
    "HTTP_X_FORWARDED_PREFIX": "X-Forwarded-Prefix",
    "HTTP_X_FORWARDED_PROTO": "X-Forwarded-Proto",
}


class BodyError(InvalidTask):
    """The request's body can't be read, or not all of it.

    Attributes:
        status: the number of the response that says so.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


_FORWARDED_NAMES = frozenset(name.lower() for name in _FORWARDED.values())


def travels(name: str, inherit: tuple[str, ...]) -> bool:
    """Whether the request's header of this name travels with its tasks; `inherit` is the setting."""
    folded = name.lower()
    return folded in _FORWARDED_NAMES or folded in inherit


class InHand:
    """The request in hand.

    Args:
        environ: the request's.
        entered: the values of `ENTERED` in the environ, when the request entered the middleware.
    """

    ENTERED = ("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
    """The keys whose values `entered` has: frameworks that mount applications change these in the environ."""

    __slots__ = ("_environ", "_host", "_method", "_mount", "_path_info", "_query", "_scheme")

    def __init__(self, environ: dict[str, Any], entered: tuple[Any, ...]) -> None:
        self._environ = environ
        method, self._scheme, self._host, mount, path_info, query = entered
        self._method: str = str(method or "GET")
        self._mount, self._path_info, self._query = mount or "", path_info or "", query or ""

    @property
    def is_replay(self) -> bool:
        """Whether it is the request of a job."""
        return JOB_KEY in self._environ

    def base(self) -> BaseURL:
        """What the request's URL begins with; with the server's own name, if the client's Host can't be one."""
        scheme = "https" if self._scheme == "https" else "http"
        host = self._host
        if host is None or not safe_host(host):
            host = self._own_host()
        return BaseURL(scheme, host, quote_path(self._mount).rstrip("/") if self._mount else "")

    def _own_host(self) -> str:
        environ = self._environ
        port = str(environ.get("SERVER_PORT", ""))
        default = "443" if self._scheme == "https" else "80"
        host = str(environ.get("SERVER_NAME", "localhost")) + (f":{port}" if port not in ("", default) else "")
        return host if safe_host(host) else "localhost"

    def surroundings(self, inherit: tuple[str, ...]) -> list[tuple[str, str]]:
        """The headers that travel with its tasks: those for tracing and proxies, and those that `inherit=` names."""
        environ = self._environ
        pairs = [("User-Agent", USER_AGENT)]
        if not environ.keys().isdisjoint(_FORWARDED):
            for key, name in _FORWARDED.items():
                value = environ.get(key)
                if value is not None:
                    pairs.append((name, _header_safe(value)))
        for name in inherit:
            value = environ.get("HTTP_" + name.upper().replace("-", "_"))
            if value is not None and name != "remote-user":
                pairs = [pair for pair in pairs if pair[0].lower() != name]
                pairs.append((name.title(), _header_safe(value)))
        return pairs

    def remote_addr(self) -> str:
        """The client's address."""
        return _header_safe(self._environ.get("REMOTE_ADDR"))

    def remote_user(self) -> str | None:
        """Who the user is.

        Raises:
            InvalidTask: the name would be another one after its way.
        """
        value = self._environ.get("REMOTE_USER")
        if value is None:
            return None
        name = _header_safe(value)
        if len(name) < len(str(value)) or name != name.strip():
            raise InvalidTask("REMOTE_USER has a control character, or blanks around it: it can't travel as it is")
        return name

    def message(self, body: bytes | None, limit: int) -> Message:
        """The request itself as a message to be replayed, without what all tasks have.

        Args:
            body: the request's body; None: it is read here.
            limit: bytes that it may have.

        Raises:
            InvalidTask: the server has handed over something that no message can hold.
        """
        environ = self._environ
        content = read_body(environ, limit) if body is None else bytes(body)
        if not TOKEN.fullmatch(self._method):
            raise InvalidTask(f"a request with the method {self._method!r}, which is no HTTP token, can't be replayed")
        kind = environ.get("CONTENT_TYPE")
        headers = check_headers(_headers(environ))
        if kind:
            headers.append(("Content-Type", check_value(kind, "the request's Content-Type")))
        return Message(
            self._method, *self.base(), self._target(), headers, content,
            bool(content or environ.get("CONTENT_LENGTH")), from_request=True, protocol=_protocol(environ),
        )  # fmt: skip

    def _target(self) -> str:
        """The path below the mount, and the query; percent-encoded as the client did it, if the server says how.

        Raises:
            InvalidTask: the request's target is no path, as in `OPTIONS *`.
        """
        mount, path_info, query = self._mount, self._path_info, self._query
        path, prefix = quote_path(path_info), quote_path(mount).rstrip("/")
        if path and not path.startswith("/"):
            raise InvalidTask(f"a request to {path!r}, which is no path, can't be replayed")
        raw = _RAW_TARGET.fullmatch(str(self._environ.get("REQUEST_URI") or self._environ.get("RAW_URI") or ""))
        sent, mark, asked = raw[1].partition("?") if raw is not None else ("", "", "")
        # Server, proxy or framework may have changed the path since: then what they made of it counts.
        if (
            sent.startswith(prefix)
            and unquote_to_bytes(sent).decode("latin-1") == mount + path_info
            and asked == query
            and "#" not in sent + query
        ):
            return sent[len(prefix) :] + mark + query
        return f"{path}?{quote(_bytes_of(query), safe=_QUERY_SAFE)}" if query else path


def quote_path(path: str) -> str:
    """Percent-encode a path of an environ, where, as PEP 3333 says, each character is a byte.

    Raises:
        InvalidTask: a character is no byte.
    """
    return quote(_bytes_of(path), safe=PATH_SAFE)


def _bytes_of(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidTask("the server did not hand over path and query as PEP 3333 has them, in latin-1") from None


def _headers(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The request's headers, except Content-Type, those of its connection, and those that say who the user is."""
    return [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and key not in _NOT_REPLAYED and not key.startswith("HTTP_X_GEARMAN")
    ]


def _protocol(environ: Mapping[str, Any]) -> str:
    text = str(environ.get("SERVER_PROTOCOL", ""))
    return text if PROTOCOL.fullmatch(text) else "HTTP/1.1"


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """Read the request's body, and put it back for whoever reads it next.

    Raises:
        InvalidTask: it is over `limit` bytes, something has read it already, or it is not known where it ends.
    """
    length = str(environ.get("CONTENT_LENGTH") or "").strip()
    if length and not (length.isascii() and length.isdigit()):
        raise BodyError(400, f"the request's Content-Length {length[:40]!r} is no number")
    stream = environ.get("wsgi.input", io.BytesIO())  # a test client may leave it out if there is no body
    # RFC 9112, section 6.3: where both headers are there, the body is as long as the chunks, whatever the length says.
    chunked = "HTTP_TRANSFER_ENCODING" in environ
    if length and not chunked:
        if int(length) > limit:
            raise BodyError(413, f"a body of {length} bytes is over max_body={limit}")
        body = _read_whole(stream, int(length))
    elif environ.get("wsgi.input_terminated"):
        body = bytes(stream.read(limit + 1))
        if len(body) > limit:
            raise BodyError(413, f"a body of over max_body={limit} bytes")
    elif chunked:
        raise BodyError(411, "the server does not say where the request's body ends: give replay(body=…)")
    else:
        return b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _read_whole(stream: Any, length: int) -> bytes:
    """`length` bytes; from the beginning of the body, if the server's stream can go back there."""
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
            raise BodyError(
                400,
                f"the request's body has {length} bytes and only {length - left} of them are left: something has "
                "read it; call replay() before that, or give replay(body=…)",
            )
        parts.append(part)
        left -= len(part)
    if rewinds:
        stream.seek(0)  # for a framework that has this stream already
    return b"".join(parts)


def _header_safe(value: Any) -> str:
    """A value of the request as a header's value, without characters that a server should have refused."""
    text = str(value or "")
    if not text.isprintable():
        text = "".join(char for char in text if char >= " " and char != "\x7f")
    if not text.isascii() and max(text) > "\xff":
        # A framework's middleware has put a name there as text, where PEP 3333 would have it as UTF-8's bytes.
        text = text.encode("utf-8", "replace").decode("latin-1")
    return text

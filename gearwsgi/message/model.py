"""The message: an HTTP/1.1 request in bytes, which is a job's payload. Its fields, and how it is written. Pure.

`reading` reads it, strictly (RFC 9112 without its leniences), for the bytes come from whoever reaches the job server's
port. A payload that begins with `{` is no message but a plain call: `plain` reads that as the request it stands for.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote_to_bytes

from ..errors import InvalidTask
from . import fields, followups, targets
from .followups import FollowUp
from .values import for_json

MAX_HEAD = 64 * 1024
"""Bytes that request line and headers may take together."""
MAX_OWN = 16 * 1024
"""Bytes that our own fields may take beside them: a retry adds to these, and must still fit."""
MAX_HEADERS = 200
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body, unless `max_body` says otherwise."""
MAX_FAILURES = 10
"""Failed attempts that a message tells of; older ones are dropped from it, but not from the log."""

MAX_UNIQUE = 63
"""Bytes of a unique that Gearman takes into account."""

PRIORITIES = followups.PRIORITIES

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::\d{0,5})?")
LATIN1_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# A value that contains itself ends in a RecursionError: cheaper than looking at each value beforehand.
dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False, default=for_json).encode


@dataclass(slots=True)
class Message:
    """A request, and what the queue needs to know about it.

    Attributes:
        method: any HTTP token, in the case given.
        scheme: `http` or `https`, the original request's.
        host: the original request's Host, port included where it had one.
        script_name: where the application was mounted, percent-encoded, without a slash at the end.
        path: the target relative to the application, percent-encoded, with its query.
        headers: pairs in their order, values as latin-1; none of gearwsgi's own fields.
        body: the body's bytes.
        has_length: whether Content-Length is sent although the body is empty.
        id: the task's id, the same in all attempts; empty where a foreign message has none.
        service: what the caller called.
        attempt: 1-based.
        max_attempts: how often it is tried; None: what the worker's settings say.
        timeout: seconds that the job may take; None: what the worker's settings say.
        backoff: the caller's own (backoff_min, backoff_max) in seconds.
        priority: `high`, `normal` or `low`, kept for when a job has to be queued again.
        wants_reply: whether a `call()` waits for the whole response.
        remote_addr: the original client's address.
        remote_user: who the user was, where inherited.
        protocol: the request's SERVER_PROTOCOL.
        from_request: whether it is a public request, queued as it came in.
        succeeds: statuses beside 2xx that mean that the work is done.
        failures: one line for each failed attempt, oldest first.
        queued: when the task was queued, in Unix time; 0 where a foreign message does not say.
        due: when this attempt is due, in Unix time; 0: at once.
        keep_result: seconds that its response is kept; None: what the worker's settings say.
        awaited: the mailbox (a Gearman function) where somebody waits for the response of its first attempt, and until
            when, in Unix time; None: nobody does.
        cursor: how far its handler said that it is, in JSON; empty: it begins.
        continued: how often it has gone on as another job.
        progress: (done, total) as it was reported before that.
        then: what is queued when it has gone well.
        on_dead: what is queued when it is dead.
        identity: as whom it runs: `django:` or `flask-login:`, and the user's key; empty: as nobody.
        verified: whether it is a webhook whose sender was found genuine.
        scheduled: the tick of the schedule that it is for, in its entry's zone; None: it is for none.
        entry: the name of that entry.
    """

    method: str
    scheme: str = "http"
    host: str = "localhost"
    script_name: str = ""
    path: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    has_length: bool = False
    id: str = ""
    service: str = ""
    attempt: int = 1
    max_attempts: int | None = None
    timeout: float | None = None
    backoff: tuple[float, float] | None = None
    priority: str = "normal"
    wants_reply: bool = False
    remote_addr: str = ""
    remote_user: str | None = None
    protocol: str = "HTTP/1.1"
    from_request: bool = False
    succeeds: tuple[int, ...] = ()
    failures: tuple[str, ...] = ()
    queued: float = 0.0
    due: float = 0.0
    keep_result: float | None = None
    awaited: tuple[str, float] | None = None
    cursor: str = ""
    continued: int = 0
    progress: tuple[int, int] | None = None
    then: FollowUp | None = None
    on_dead: FollowUp | None = None
    identity: str = ""
    verified: bool = False
    scheduled: datetime | None = None
    entry: str = ""
    plain: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def url(self) -> str:
        """The absolute URL of the request."""
        return f"{self.scheme}://{self.host}{self.script_name}{self.path}"

    @property
    def target(self) -> str:
        """Method and path, as the log shows it."""
        return f"{self.method} {self.path}"

    def header(self, name: str) -> str | None:
        """The header's value, folded with commas where it is repeated, or None."""
        found = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(found) if found else None

    def json(self) -> Any:
        """What the body says in JSON; None where it is none."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if self.plain is not None or not (kind == "application/json" or kind.endswith("+json")):
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def data(self) -> Any:
        """The data that the caller gave, decoded: JSON, form fields, query, or the body's bytes.

        A form's or query's value is a string, or a list where the key is repeated.
        """
        if self.plain is not None:
            return dict(self.plain)
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            try:
                return json.loads(self.body)
            except (ValueError, RecursionError):
                return self.body
        if kind == "application/x-www-form-urlencoded":
            return _pairs(self.body.decode("latin-1"))
        if self.body:
            return self.body
        query = self.path.partition("?")[2]
        return _pairs(query) if query and targets.takes_query(self.method) else None

    def to_bytes(self) -> bytes:
        """The message as it travels, without a signature."""
        return write(self, self.headers)


def _pairs(query: str) -> dict[str, Any]:
    fields = parse_qs(query, keep_blank_values=True, max_num_fields=10_000)
    return {key: values[0] if len(values) == 1 else values for key, values in fields.items()}


_USUAL_LINES = "\r\n".join(field.line for field in fields.USUAL)
_ADDRESS = fields.ADDRESS.full_name
_NOTHING_RARE = tuple(field.unwritten for field in fields.RARE)
_get_usual = attrgetter(*(field.attribute for field in fields.USUAL))
_get_rare = attrgetter(*(field.attribute for field in fields.RARE))


def write(message: Message, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of `message` with `headers`, which were checked by the caller, or were read from a message.

    Short on purpose: most of the microseconds of a `task()` are spent here.
    """
    host = message.host
    lines = [
        f"{message.method} {message.scheme}://{host}{message.script_name}{message.path} HTTP/1.1\r\nHost: {host}",
        *[f"{name}: {value}" for name, value in headers],
    ]
    if message.body or message.has_length:
        lines.append(f"Content-Length: {len(message.body)}")
    usual = _get_usual(message)
    own = _USUAL_LINES % usual if all(usual) else ""
    if own and own.isascii():
        lines.append(own)
    else:
        lines += _lines_of(fields.USUAL, usual)
    if message.remote_addr:
        lines.append(f"{_ADDRESS}: {message.remote_addr}")
    rare = _get_rare(message)
    if rare != _NOTHING_RARE:
        lines += _lines_of(fields.RARE, rare)
    if message.failures:
        lines += [f"{fields.FAILED}: {fields.to_utf8(failure)}" for failure in message.failures[-MAX_FAILURES:]]
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1") + message.body


def _lines_of(declared: Iterable[fields.Field], values: Iterable[Any]) -> list[str]:
    """The lines of these fields; a field with nothing to say has none."""
    pairs = zip(declared, values, strict=True)
    return [field.line % field.write(value) for field, value in pairs if value != field.unwritten]


def one_line(text: str, limit: int = 200) -> str:
    """`text` on one line: cut to `limit` characters, and without anything that would end the line."""
    return "".join(char if char.isprintable() else " " for char in text[:limit]).strip()


def check_headers(headers: Any) -> list[tuple[str, str]]:
    """The caller's `headers` (a dict or pairs) as pairs that are safe to write.

    Raises:
        InvalidTask: a name is no token, a value has CR, LF, NUL or no latin-1, or the field isn't the caller's to set.
    """
    pairs: list[tuple[str, str]] = []
    for item in headers.items() if isinstance(headers, Mapping) else headers:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidTask(f"headers holds {type(item).__name__}: give a dict or pairs of strings")
        name, value = item
        if not isinstance(name, str) or not targets.TOKEN.fullmatch(name):
            raise InvalidTask(f"header name {name!r} is not an HTTP token, such as X-Request-ID")
        folded = name.lower().replace("_", "-")
        if folded in ("content-length", "transfer-encoding"):
            raise InvalidTask(f"header {name!r} is set by the message itself; leave it out")
        if folded.startswith(fields.OWN):
            raise InvalidTask(f"header {name!r} is reserved: X-Gearman-* are the queue's own fields")
        pairs.append((name, check_value(value, f"header {name!r}")))
    return pairs


def check_value(value: Any, what: str) -> str:
    """`value` as a header's value.

    Raises:
        InvalidTask: it is no string, holds a control character, or a character that latin-1 has not.
    """
    text = value if isinstance(value, str) else str(value)
    # The error does not show the value: it may be a password.
    if found := LATIN1_CONTROL.search(text):
        raise InvalidTask(f"{what} has a control character (CR, LF or NUL): {found[0]!r} at place {found.start() + 1}")
    if not text.isascii():
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidTask(f"{what} has a character that no header can hold (it has latin-1): encode it") from None
    return text.strip(" \t")


def safe_host(host: str) -> bool:
    """Whether `host`, which a client has chosen, can stand in a request line."""
    return len(host) <= 300 and _HOST.fullmatch(host) is not None


def check_head(data: bytes) -> None:
    """Check that a message which was just written has a head that `read` accepts.

    Raises:
        InvalidTask: it is too long, or has too many headers.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
    if end < 0:
        raise InvalidTask(f"target and headers are over the limit of {MAX_HEAD} bytes; send what is long as data")
    if data.count(b"\r\n", 0, end) > MAX_HEADERS:
        raise InvalidTask(f"over {MAX_HEADERS} headers, the message's own included")


Encoder: TypeAlias = type[json.JSONEncoder] | Callable[[Any], str | bytes]
"""What writes data as JSON in an application's own way: a class of `json.JSONEncoder`, or a callable."""


def encode_json(data: Any, encoder: Encoder | None = None) -> bytes:
    """`data` as JSON: in ASCII, or as `encoder` writes it.

    Raises:
        InvalidTask: JSON can't hold it.
    """
    try:
        if encoder is None:
            return dumps(data).encode()
        if isinstance(encoder, type):
            written: Any = encoder(separators=(",", ":"), allow_nan=False).encode(data)
        else:
            written = encoder(data)
        if not isinstance(written, str | bytes):
            raise TypeError(f"its encoder answered {type(written).__name__}, not str or bytes")
        return written.encode() if isinstance(written, str) else written
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTask(f"data can't be written as JSON: {error}; send what JSON has, or body=") from error


def path_info(path: str) -> tuple[str, str]:
    """PATH_INFO (decoded, each byte a latin-1 character: PEP 3333) and QUERY_STRING of a percent-encoded path."""
    raw, _, query = path.partition("?")
    return (unquote_to_bytes(raw).decode("latin-1") if "%" in raw else raw), query

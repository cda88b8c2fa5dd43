"""The message: an HTTP/1.1 request in bytes, which is a job's payload. Written, read, changed; pure.

Reading is strict (RFC 9112 without its leniences), for the bytes come from whoever reaches the job server's port.
What begins with `{` is no message but a plain call: `plain` reads that as the request it stands for.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

from . import services
from .errors import BadMessage, InvalidTask

MAX_HEAD = 64 * 1024
"""Bytes that request line and headers may take together."""
MAX_OWN = 16 * 1024
"""Bytes that gearwsgi's own fields may take beside them: a retry adds to these, and must not be too long for it."""
MAX_HEADERS = 200
MAX_BODY = 64 * 1024 * 1024
"""Bytes of a body, unless `max_body` says otherwise."""
MAX_SECONDS = 10**9
"""More than a timer can be set to is no time-out."""
MAX_FAILURES = 10
"""Failed attempts that a message tells of; older ones are dropped from it, not from the log."""

PRIORITIES = ("high", "normal", "low")

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.[01]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,100}")
# The head of a first attempt as `write` makes it, in one go: nearly every message. Any other is read line by line.
_USUAL_HEAD = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]++) (https?)://([A-Za-z0-9._~%!$&'()*+,;=-]{1,255}+(?::\d{0,5}+)?)(/[!\"$-~]*+)"
    r" HTTP/1\.1\r\n"
    r"Host: [!-~]++\r\n"
    r"((?:(?!Content-Length: |X-Gearman-)[!#$%&'*+.^_`|~0-9A-Za-z-]++: [ -~]++\r\n)*+)"
    r"(?:Content-Length: (\d++)\r\n)?"
    r"X-Gearman-Task: ([!-~]++)\r\n"
    r"X-Gearman-Service: ([!-~]++)\r\n"
    r"X-Gearman-Attempt: 1\r\n"
    r"X-Gearman-Max-Attempts: ([1-9]\d{0,8}+)\r\n"
    r"(?:X-Gearman-Remote-Addr: ([!-~]++)\r\n)?"
    r"(?:X-Gearman-Signature: [ -~]++\r\n)?"
)
_ORDINARY = re.compile(r"([^:]++): ([^\r]++)\r\n")
_NOT_ORDINARY = frozenset({"host", "content-length", "transfer-encoding"})
_ABSOLUTE = re.compile(r"(https?)://([^/?#@\\]+)(?:([/?].*))?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::\d{0,5})?")
_SCRIPT_NAME = re.compile(r"(?:/[!-\"$->@-~]{0,4095})?")
_LATIN1_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN = "x-gearman-"
_NUMBER = re.compile(r"\d{1,9}")
_SECONDS = re.compile(r"\d{1,10}(?:\.\d{1,9})?")

# What holds itself ends as a RecursionError, without a look at each value beforehand.
dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


@dataclass(slots=True)
class Message:
    """A request, and what the queue needs to know of it.

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
        failures: one line for each failed attempt, oldest first.
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
    failures: tuple[str, ...] = ()
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
        return _pairs(query) if query and services.takes_query(self.method) else None

    def to_bytes(self) -> bytes:
        """The message as it travels, without a signature."""
        return write(self, self.headers)


def _pairs(query: str) -> dict[str, Any]:
    fields = parse_qs(query, keep_blank_values=True, max_num_fields=10_000)
    return {key: values[0] if len(values) == 1 else values for key, values in fields.items()}


def write(message: Message, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of `message` with `headers`: the caller has checked them, or they were read.

    The way out is short on purpose: a `task()` spends its microseconds here.
    """
    lines = [
        f"{message.method} {message.scheme}://{message.host}{message.script_name}{message.path} HTTP/1.1",
        f"Host: {message.host}",
    ]
    lines.extend([f"{name}: {value}" for name, value in headers])
    if message.body or message.has_length:
        lines.append(f"Content-Length: {len(message.body)}")
    own = lines.append
    if message.id:
        own(f"X-Gearman-Task: {_utf8(message.id)}")
    if message.service:
        own(f"X-Gearman-Service: {_utf8(message.service)}")
    own(f"X-Gearman-Attempt: {message.attempt}")
    if message.max_attempts is not None:
        own(f"X-Gearman-Max-Attempts: {message.max_attempts}")
    if message.script_name:
        own(f"X-Gearman-Script-Name: {message.script_name}")
    if message.remote_addr:
        own(f"X-Gearman-Remote-Addr: {message.remote_addr}")
    if message.remote_user is not None:
        own(f"X-Gearman-Remote-User: {message.remote_user}")
    if message.timeout is not None:
        own(f"X-Gearman-Timeout: {_decimal(message.timeout)}")
    if message.backoff is not None:
        own(f"X-Gearman-Backoff: {_decimal(message.backoff[0])} {_decimal(message.backoff[1])}")
    if message.priority != "normal":
        own(f"X-Gearman-Priority: {message.priority}")
    if message.wants_reply:
        own("X-Gearman-Reply: message")
    for failure in message.failures[-MAX_FAILURES:]:
        own(f"X-Gearman-Failed: {_utf8(failure)}")
    own("\r\n")
    return "\r\n".join(lines).encode("latin-1") + message.body


def _decimal(seconds: float) -> str:
    """The number without an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


def _utf8(text: str) -> str:
    """The text as a header's value: UTF-8 bytes, each shown as one latin-1 character."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("latin-1")


def _from_utf8(value: str) -> str:
    return value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")


def one_line(text: str, limit: int = 200) -> str:
    """`text` cut to `limit` characters and without anything that would end a line."""
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
        if not isinstance(name, str) or not services.TOKEN.fullmatch(name):
            raise InvalidTask(f"header name {name!r} is not an HTTP token, such as X-Request-ID")
        folded = name.lower().replace("_", "-")
        if folded in ("content-length", "transfer-encoding"):
            raise InvalidTask(f"header {name!r} is set by the message itself; leave it out")
        if folded.startswith(_OWN):
            raise InvalidTask(f"header {name!r} is reserved: X-Gearman-* are the queue's own fields")
        pairs.append((name, check_value(value, f"header {name!r}")))
    return pairs


def check_value(value: Any, what: str) -> str:
    """`value` as a header's value.

    Raises:
        InvalidTask: it is no string, holds a control character, or a character that latin-1 has not.
    """
    text = value if isinstance(value, str) else str(value)
    # The value itself is not shown: it may be a password.
    if found := _LATIN1_CONTROL.search(text):
        raise InvalidTask(f"{what} has a control character (CR, LF or NUL): {found[0]!r} at place {found.start() + 1}")
    if not text.isascii():
        try:
            text.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidTask(f"{what} has a character that no header can hold (it has latin-1): encode it") from None
    return text.strip(" \t")


def safe_host(host: str) -> bool:
    """Whether `host` (which a client chose) can stand in a request line."""
    return len(host) <= 300 and _HOST.fullmatch(host) is not None


def check_head(data: bytes) -> None:
    """That a message which was just written has a head which `read` takes.

    Raises:
        InvalidTask: it is too long, or has too many headers.
    """
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
    if end < 0:
        raise InvalidTask(f"target and headers are over the limit of {MAX_HEAD} bytes; send what is long as data")
    if data.count(b"\r\n", 0, end) > MAX_HEADERS:
        raise InvalidTask(f"over {MAX_HEADERS} headers, the message's own included")


def read(payload: bytes, *, max_body: int = MAX_BODY) -> Message:
    """The HTTP message in `payload`; a plain call is `plain.read_plain`'s.

    Raises:
        BadMessage: it is none, or one that servers could read in two ways.
    """
    head, end, body = payload.partition(b"\r\n\r\n")
    if not end:
        raise BadMessage("neither an HTTP message (no empty line ends its head) nor a JSON object")
    if len(head) > MAX_HEAD + MAX_OWN:
        raise BadMessage(f"head of {len(head)} bytes is over the limit of {MAX_HEAD}")
    text = head.decode("latin-1") + "\r\n"
    if len(body) <= max_body and len(head) <= MAX_OWN:
        usual = _read_usual(text, body)
        if usual is not None:
            return usual
    first, _, lines = text.partition("\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        # No more than its beginning: what stands where a request line should may be a header with a password.
        raise BadMessage(f"request line can't be read: it begins {first.partition(': ')[0][:100]!r}")
    fields = _read_fields(lines.split("\r\n")[:-1], len(head))
    _check_length(fields.length, body, max_body)
    scheme, host, path = _read_target(request[2], fields.host or "")
    script_name = fields.own.get("x-gearman-script-name")
    if script_name:
        script_name = script_name.rstrip("/")
        if not _SCRIPT_NAME.fullmatch(script_name):
            raise BadMessage(f"X-Gearman-Script-Name {script_name[:200]!r} is no path")
        if path == script_name or path.startswith((script_name + "/", script_name + "?")):
            path = path[len(script_name) :]
    message = Message(request[1], scheme, host, script_name or "", path, fields.headers, body)
    message.has_length = fields.length is not None
    if fields.own:
        _read_own(message, fields.own)
    if fields.failures:
        message.failures = tuple(fields.failures[-MAX_FAILURES:])
    message.service = message.service or message.target.strip()
    return message


def _read_usual(text: str, body: bytes) -> Message | None:
    """The message with this head, exactly as reading it line by line would have it; None where it is not the usual."""
    found = _USUAL_HEAD.fullmatch(text)
    if found is None:
        return None
    method, scheme, host, path, ordinary, length, task_id, service, max_attempts, address = found.groups()
    if length != str(len(body)) if length is not None else body:
        return None
    if " \r\n" in ordinary or ":  " in ordinary:
        return None  # blanks that have to be stripped
    headers = tuple(_ORDINARY.findall(ordinary))
    for name, _ in headers:
        folded = _fold(name)
        if folded in _NOT_ORDINARY or folded[:10] == _OWN:
            return None
    if len(headers) > MAX_HEADERS:
        return None
    message = Message(method, scheme, host, "", path, headers, body, length is not None, task_id, service)
    message.max_attempts = int(max_attempts)
    message.remote_addr = address or ""
    return message


class _Fields(NamedTuple):
    """A head's lines, sorted by whose they are."""

    headers: tuple[tuple[str, str], ...]
    own: dict[str, str]
    failures: list[str]
    length: str | None
    host: str | None


def _read_fields(lines: list[str], size: int) -> _Fields:
    headers: list[tuple[str, str]] = []
    own: dict[str, str] = {}
    failures: list[str] = []
    length = host = None
    every = "".join(lines)
    if not every.isprintable() and _LATIN1_CONTROL.search(every):
        raise BadMessage(f"header line can't be read: it begins {_beginning(filter(_LATIN1_CONTROL.search, lines))!r}")
    for line in lines:
        name, colon, value = line.partition(":")
        folded = _fold(name)
        if not (folded and colon):
            raise BadMessage(f"header line can't be read: it begins {_beginning([line])!r}")
        value = value.strip(" \t")
        if folded[:10] == _OWN:
            if folded == "x-gearman-failed":
                failures.append(one_line(_from_utf8(value)))
            elif folded in own:
                raise BadMessage(f"{name} given twice")
            else:
                own[folded] = value
        elif folded == "content-length":
            if length is not None:
                raise BadMessage("Content-Length given twice")
            length = value
        elif folded == "transfer-encoding":
            raise BadMessage("Transfer-Encoding has no place in a message")
        elif folded == "host":
            if host is not None:
                raise BadMessage("Host given twice")
            host = value
        else:
            headers.append((name, value))
    if len(headers) > MAX_HEADERS:
        raise BadMessage(f"{len(headers)} headers are over the limit of {MAX_HEADERS}")
    if size > MAX_OWN:
        own_size = sum(len(line) + 2 for line in lines if line[:10].lower().replace("_", "-") == _OWN)
        if size - own_size > MAX_HEAD or own_size > MAX_OWN:
            raise BadMessage(f"head of {size} bytes is over the limit of {MAX_HEAD}")
    return _Fields(tuple(headers), own, failures, length, host)


@functools.lru_cache(maxsize=64)
def _fold(name: str) -> str:
    """A header's name as it is compared; empty where it is no token."""
    return name.lower().replace("_", "-") if services.TOKEN.fullmatch(name) else ""


def _beginning(lines: Iterable[str]) -> str:
    """The name at most of the first of these: its value may be a password."""
    shown = _NAME.match(next(iter(lines)))
    return shown[0] if shown else ""


def _check_length(length: str | None, body: bytes, max_body: int) -> None:
    if len(body) > max_body:
        raise BadMessage(f"body of {len(body)} bytes is over max_body={max_body}")
    if length is None:
        if body:
            raise BadMessage(f"a body of {len(body)} bytes without a Content-Length")
    elif not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) != len(body):
        raise BadMessage(f"Content-Length {length[:40]!r} does not fit the body of {len(body)} bytes")


def _read_target(target: str, host: str) -> tuple[str, str, str]:
    """Scheme, host and path of a request line's target, in absolute form or in origin form."""
    scheme = "http"
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        # RFC 9112, section 3.2.2: the target's host counts, whatever Host says.
        scheme, host, target = absolute[1].lower(), absolute[2], absolute[3] or ""
    elif not target.startswith("/"):
        raise BadMessage(f"target {target[:200]!r} is neither a URL nor a path")
    if "#" in target:
        raise BadMessage("target has a fragment")
    host = host or "localhost"
    if not safe_host(host):
        raise BadMessage(f"host {host[:200]!r} can't be one")
    return scheme, host, target


def _read_own(message: Message, own: Mapping[str, str]) -> None:
    get = own.get
    message.id = get("x-gearman-task", "")
    message.service = get("x-gearman-service", "")
    if not (message.id.isascii() and message.service.isascii()):
        message.id, message.service = _from_utf8(message.id), _from_utf8(message.service)
    message.remote_addr = get("x-gearman-remote-addr", "")
    message.remote_user = get("x-gearman-remote-user")
    attempt = get("x-gearman-attempt", "1")
    if attempt != "1":
        message.attempt = _read_number(attempt, "Attempt")
    if "x-gearman-max-attempts" in own:
        message.max_attempts = _read_number(own["x-gearman-max-attempts"], "Max-Attempts")
    if "x-gearman-timeout" in own:
        (message.timeout,) = _read_seconds(own["x-gearman-timeout"], "Timeout", 1)
        if not message.timeout:
            raise BadMessage("X-Gearman-Timeout is 0: no time to run at all")
    if "x-gearman-backoff" in own:
        low, high = _read_seconds(own["x-gearman-backoff"], "Backoff", 2)
        message.backoff = low, high
    if "x-gearman-priority" in own:
        message.priority = own["x-gearman-priority"]
        if message.priority not in PRIORITIES:
            raise BadMessage(f"X-Gearman-Priority {message.priority[:40]!r} is none of {', '.join(PRIORITIES)}")
    if "x-gearman-reply" in own:
        if own["x-gearman-reply"] != "message":
            raise BadMessage(f"X-Gearman-Reply {own['x-gearman-reply'][:40]!r} is not known; 'message' is")
        message.wants_reply = True


def _read_number(value: str, name: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) < 1:
        raise BadMessage(f"X-Gearman-{name} {value[:40]!r} is no number from 1 on")
    return int(value)


def _read_seconds(value: str, name: str, count: int) -> tuple[float, ...]:
    parts = value.split(" ")
    if len(parts) != count or not all(_SECONDS.fullmatch(part) and float(part) <= MAX_SECONDS for part in parts):
        raise BadMessage(f"X-Gearman-{name} {value[:40]!r} is not {count} number{'s' * (count > 1)} of seconds")
    return tuple(float(part) for part in parts)


def encode_json(data: Any) -> bytes:
    """`data` as JSON in ASCII.

    Raises:
        InvalidTask: JSON can't hold it.
    """
    try:
        return dumps(data).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidTask(f"data can't be written as JSON: {error}; send what JSON has, or body=") from error


def path_info(path: str) -> tuple[str, str]:
    """PATH_INFO (decoded, each byte a latin-1 character: PEP 3333) and QUERY_STRING of a percent-encoded path."""
    raw, _, query = path.partition("?")
    return (unquote_to_bytes(raw).decode("latin-1") if "%" in raw else raw), query


def write_response(status: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """A response as an HTTP message, its status and headers as the application gave them."""
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

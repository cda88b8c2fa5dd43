"""Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import BadMessage
from . import targets
from .model import (
    _LATIN1_CONTROL,
    _OWN,
    MAX_BODY,
    MAX_FAILURES,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_OWN,
    MAX_SECONDS,
    PRIORITIES,
    Message,
    _from_utf8,
    one_line,
    safe_host,
)

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
    r"(?:X-Gearman-Queued: (\d{1,10}+\.\d{3})\r\n)?"
    r"(?:X-Gearman-Remote-Addr: ([!-~]++)\r\n)?"
    r"(?:X-Gearman-Signature: [ -~]++\r\n)?"
)

_ORDINARY = re.compile(r"([^:]++): ([^\r]++)\r\n")

_NOT_ORDINARY = frozenset({"host", "content-length", "transfer-encoding"})

_ABSOLUTE = re.compile(r"(https?)://([^/?#@\\]+)(?:([/?].*))?", re.IGNORECASE)

_SCRIPT_NAME = re.compile(r"(?:/[!-\"$->@-~]{0,4095})?")

_NUMBER = re.compile(r"\d{1,9}")

_SECONDS = re.compile(r"\d{1,10}(?:\.\d{1,9})?")


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
    """Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""
    found = _USUAL_HEAD.fullmatch(text)
    if found is None:
        return None
    method, scheme, host, path, ordinary, length, task_id, service, max_attempts, queued, address = found.groups()
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
    if queued is not None:
        message.queued = float(queued)
    message.remote_addr = address or ""
    return message


class _Fields(NamedTuple):
    """Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""

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
    """Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""
    return name.lower().replace("_", "-") if targets.TOKEN.fullmatch(name) else ""


def _beginning(lines: Iterable[str]) -> str:
    """Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""
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
    """Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure."""
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
    for name, field in (("Queued", "queued"), ("Due", "due"), ("Keep-Result", "keep_result")):
        key = f"x-gearman-{name.lower()}"
        if key in own:
            setattr(message, field, _read_time(own[key], name))
    if "x-gearman-reply" in own:
        if own["x-gearman-reply"] != "message":
            raise BadMessage(f"X-Gearman-Reply {own['x-gearman-reply'][:40]!r} is not known; 'message' is")
        message.wants_reply = True


def _read_number(value: str, name: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) < 1:
        raise BadMessage(f"X-Gearman-{name} {value[:40]!r} is no number from 1 on")
    return int(value)


def _read_time(value: str, name: str) -> float:
    if not _SECONDS.fullmatch(value):
        raise BadMessage(f"X-Gearman-{name} {value[:40]!r} is no number of seconds")
    return float(value)


def _read_seconds(value: str, name: str, count: int) -> tuple[float, ...]:
    parts = value.split(" ")
    if len(parts) != count or not all(_SECONDS.fullmatch(part) and float(part) <= MAX_SECONDS for part in parts):
        raise BadMessage(f"X-Gearman-{name} {value[:40]!r} is not {count} number{'s' * (count > 1)} of seconds")
    return tuple(float(part) for part in parts)

"""Reads a message, strictly (RFC 9112 without its leniences), for anybody may have written its bytes. Pure.

Written by hand: a library such as h11 reads a connection with all its states. Here one whole message is read, and what
must be refused in it (whatever two servers could read in two ways, and our own fields) would still be ours to check.
"""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import BadMessage
from . import fields, targets
from .model import (
    LATIN1_CONTROL,
    MAX_BODY,
    MAX_FAILURES,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_OWN,
    Message,
    one_line,
    safe_host,
)

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.[01]")

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{0,100}")


def _own(attribute: str, pattern: str) -> str:
    """The line of one of our own fields, as a pattern."""
    return f"{fields.NAMES[attribute]}: {pattern}\\r\\n"


# A head as `write` makes it for a first attempt, read by one pattern: nearly every message has it. Other heads are read
# line by line.
_USUAL_HEAD = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]++) (https?)://([A-Za-z0-9._~%!$&'()*+,;=-]{1,255}+(?::\d{0,5}+)?)(/[!\"$-~]*+)"
    r" HTTP/1\.1\r\n"
    r"Host: [!-~]++\r\n"
    r"((?:(?!Content-Length: |X-Gearman-)[!#$%&'*+.^_`|~0-9A-Za-z-]++: [ -~]++\r\n)*+)"
    r"(?:Content-Length: (\d++)\r\n)?"
    + _own("id", r"([!-~]++)")
    + _own("service", r"([!-~]++)")
    + _own("attempt", "1")
    + _own("max_attempts", r"([1-9]\d{0,8}+)")
    + f"(?:{_own('queued', '([0-9]{1,10}[.][0-9]{3})')})?"
    + f"(?:{_own('remote_addr', '([!-~]++)')})?"
    rf"(?:{fields.SIGNATURE}: [ -~]++\r\n)?"
)

_ORDINARY = re.compile(r"([^:]++): ([^\r]++)\r\n")

_NOT_ORDINARY = frozenset({"host", "content-length", "transfer-encoding"})

_FAILED = fields.FAILED.lower()

_ABSOLUTE = re.compile(r"(https?)://([^/?#@\\]+)(?:([/?].*))?", re.IGNORECASE)


def read(payload: bytes, *, max_body: int = MAX_BODY) -> Message:
    """The HTTP message in `payload`; a plain call is `plain.read_plain`'s.

    Raises:
        BadMessage: it is no message, or one that two servers could read differently.
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
        # Only its beginning: in place of a request line there may be a header with a password.
        raise BadMessage(f"request line can't be read: it begins {first.partition(': ')[0][:100]!r}")
    lines_read = _read_lines(lines.split("\r\n")[:-1], len(head))
    _check_length(lines_read.length, body, max_body)
    scheme, host, path = _read_target(request[2], lines_read.host or "")
    message = Message(request[1], scheme, host, "", path, lines_read.headers, body)
    message.has_length = lines_read.length is not None
    for name, value in lines_read.own.items():
        field = fields.BY_NAME.get(name)
        if field is not None:
            setattr(message, field.attribute, field.read(value))
    mount = message.script_name
    if mount and (path == mount or path.startswith((mount + "/", mount + "?"))):
        message.path = path[len(mount) :]
    if lines_read.failures:
        message.failures = tuple(lines_read.failures[-MAX_FAILURES:])
    message.service = message.service or message.target.strip()
    return message


def _read_usual(text: str, body: bytes) -> Message | None:
    """The message with this head, read as line by line it would be; None where the head is not the usual one."""
    found = _USUAL_HEAD.fullmatch(text)
    if found is None:
        return None
    method, scheme, host, path, ordinary, length, task_id, service, max_attempts, queued, address = found.groups()
    if length != str(len(body)) if length is not None else body:
        return None
    if " \r\n" in ordinary or ":  " in ordinary:
        return None  # there are blanks that have to be stripped
    headers = tuple(_ORDINARY.findall(ordinary))
    for name, _ in headers:
        folded = _fold(name)
        if folded in _NOT_ORDINARY or folded[:10] == fields.OWN:
            return None
    if len(headers) > MAX_HEADERS:
        return None
    message = Message(method, scheme, host, "", path, headers, body, length is not None, task_id, service)
    message.max_attempts, message.queued = int(max_attempts), float(queued or 0.0)
    message.remote_addr = address or ""
    return message


class _Lines(NamedTuple):
    """The lines of a head, sorted by whether they are ours or the request's."""

    headers: tuple[tuple[str, str], ...]
    own: dict[str, str]
    failures: list[str]
    length: str | None
    host: str | None


def _read_lines(lines: list[str], size: int) -> _Lines:
    headers: list[tuple[str, str]] = []
    own: dict[str, str] = {}
    failures: list[str] = []
    length = host = None
    every = "".join(lines)
    if not every.isprintable() and LATIN1_CONTROL.search(every):
        raise BadMessage(f"header line can't be read: it begins {_beginning(filter(LATIN1_CONTROL.search, lines))!r}")
    for line in lines:
        name, colon, value = line.partition(":")
        folded = _fold(name)
        if not (folded and colon):
            raise BadMessage(f"header line can't be read: it begins {_beginning([line])!r}")
        value = value.strip(" \t")
        if folded[:10] == fields.OWN:
            if folded == _FAILED:
                failures.append(one_line(fields.from_utf8(value)))
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
        own_size = sum(len(line) + 2 for line in lines if line[:10].lower().replace("_", "-") == fields.OWN)
        if size - own_size > MAX_HEAD or own_size > MAX_OWN:
            raise BadMessage(f"head of {size} bytes is over the limit of {MAX_HEAD}")
    return _Lines(tuple(headers), own, failures, length, host)


@functools.lru_cache(maxsize=64)
def _fold(name: str) -> str:
    """A header's name in the form in which names are compared; empty where it is no token."""
    return name.lower().replace("_", "-") if targets.TOKEN.fullmatch(name) else ""


def _beginning(lines: Iterable[str]) -> str:
    """The first of these lines, cut before its value, which may be a password."""
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
        # RFC 9112, section 3.2.2: the host in the target counts, whatever the header Host says.
        scheme, host, target = absolute[1].lower(), absolute[2], absolute[3] or ""
    elif not target.startswith("/"):
        raise BadMessage(f"target {target[:200]!r} is neither a URL nor a path")
    if "#" in target:
        raise BadMessage("target has a fragment")
    host = host or "localhost"
    if not safe_host(host):
        raise BadMessage(f"host {host[:200]!r} can't be one")
    return scheme, host, target

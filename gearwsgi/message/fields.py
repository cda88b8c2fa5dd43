"""The message's own fields, `X-Gearman-…`: each declared once, with its name and how it is written and read. Pure.

A new one is a line of `RARE` and the attribute of `Message` that it names. One that nearly every message has is a line
of `USUAL` and of `reading`'s pattern of the usual head: other heads are read line by line, which takes three times as
long.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from ..errors import BadMessage
from .followups import PRIORITIES, FollowUp, read_follow_up

PREFIX = "X-Gearman-"
OWN = PREFIX.lower()
"""What the names of our own fields begin with, in lower case."""
MAX_SECONDS = 10**9
"""More seconds than any timer takes: a longer time-out is refused."""

_SCRIPT_NAME = re.compile(r"(?:/[!-\"$->@-~]{0,4095})?")
_NUMBER = re.compile(r"\d{1,9}")
_SECONDS = re.compile(r"\d{1,10}(?:\.\d{1,9})?")
MAX_CURSOR = 4096
"""Characters that a cursor may have, in JSON."""
_CURSOR = re.compile(rf"[ -~]{{1,{MAX_CURSOR}}}")
DJANGO, FLASK_LOGIN = "django", "flask-login"
"""The frameworks whose users an identity may name."""
_IDENTITY = re.compile(rf"({DJANGO}|{FLASK_LOGIN}):(.{{1,200}})")
_PROGRESS = re.compile(r"(\d{1,20}) (\d{1,20})")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")
_STATUSES = re.compile(r"[1-9]\d\d(?: [1-9]\d\d){0,9}")
MAILBOX = "gearwsgi-wait-"
"""What the names of mailboxes begin with: Gearman functions that are no queues, where somebody waits for a response."""
_AWAITED = re.compile(MAILBOX + r"([0-9a-z-]{1,80}) (\d{1,10}(?:\.\d{1,9})?)")
"""The only functions that a response may be sent to: no message can have one put into a queue."""
PROTOCOL = re.compile(r"HTTP/[0-9](?:\.[0-9])?")


class Field(NamedTuple):
    """One field of the message.

    Attributes:
        name: what follows `X-Gearman-`.
        attribute: the attribute of `Message` that holds its value.
        unwritten: the value for which no field is written.
        read: from the field's text to the value; raises `BadMessage`.
        write: from the value to what is put into `template`.
        template: the field's text as a template for `%`, in latin-1.
    """

    name: str
    attribute: str
    unwritten: Any
    read: Callable[[str], Any]
    write: Callable[[Any], Any] = str
    template: str = "%s"

    @property
    def full_name(self) -> str:
        """The name of the header."""
        return PREFIX + self.name

    @property
    def line(self) -> str:
        """The field's line, as a template."""
        return f"{self.full_name}: {self.template}"


def to_utf8(text: str) -> str:
    """The text as a header's value: UTF-8 bytes, each shown as one latin-1 character."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("latin-1")


def from_utf8(value: str) -> str:
    """The text from which `to_utf8` has made a header's value."""
    return value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")


def _decimal(seconds: float) -> str:
    """The number in decimal, without an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".")


def _read_number(name: str) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not _NUMBER.fullmatch(value) or int(value) < 1:
            raise BadMessage(f"{PREFIX}{name} {value[:40]!r} is no number from 1 on")
        return int(value)

    return read


def _seconds(value: str, name: str, count: int) -> tuple[float, ...]:
    parts = value.split(" ")
    if len(parts) != count or not all(_SECONDS.fullmatch(part) and float(part) <= MAX_SECONDS for part in parts):
        raise BadMessage(f"{PREFIX}{name} {value[:40]!r} is not {count} number{'s' * (count > 1)} of seconds")
    return tuple(float(part) for part in parts)


def _read_timeout(value: str) -> float:
    (seconds,) = _seconds(value, "Timeout", 1)
    if not seconds:
        raise BadMessage(f"{PREFIX}Timeout is 0: no time to run at all")
    return seconds


def _read_time(name: str) -> Callable[[str], float]:
    def read(value: str) -> float:
        if not _SECONDS.fullmatch(value):
            raise BadMessage(f"{PREFIX}{name} {value[:40]!r} is no number of seconds")
        return float(value)

    return read


def _read_moment(value: str) -> datetime:
    try:
        if _MOMENT.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise BadMessage(f"{PREFIX}Scheduled {value[:40]!r} is no time, such as 2027-01-31T06:00:00+01:00")


def _read_script_name(value: str) -> str:
    value = value.rstrip("/")
    if not _SCRIPT_NAME.fullmatch(value):
        raise BadMessage(f"{PREFIX}Script-Name {value[:200]!r} is no path")
    return value


def _read_statuses(value: str) -> tuple[int, ...]:
    if not _STATUSES.fullmatch(value):
        raise BadMessage(f"{PREFIX}Succeeds {value[:40]!r} is no list of statuses, such as 302 303")
    return tuple(map(int, value.split(" ")))


def _read_awaited(value: str) -> tuple[str, float]:
    found = _AWAITED.fullmatch(value)
    if found is None:
        raise BadMessage(f"{PREFIX}Awaited {value[:40]!r} is no mailbox and no time")
    return MAILBOX + found[1], float(found[2])


def is_cursor(text: str) -> bool:
    """Whether a text can be a cursor in a header: it is ASCII, JSON, and not too long."""
    return _CURSOR.fullmatch(text) is not None


def is_identity(text: str) -> bool:
    """Whether a text names a user: a framework, a colon, and the user's key."""
    return _IDENTITY.fullmatch(text) is not None and text.isprintable()


def _read_identity(value: str) -> str:
    text = from_utf8(value)
    if not is_identity(text):
        raise BadMessage(f"{PREFIX}Identity {value[:40]!r} names no user of {DJANGO} or {FLASK_LOGIN}")
    return text


def _read_cursor(value: str) -> str:
    if not is_cursor(value):
        raise BadMessage(f"{PREFIX}Cursor {value[:40]!r} is no JSON in ASCII of at most {MAX_CURSOR} characters")
    return value


def _read_progress(value: str) -> tuple[int, int]:
    found = _PROGRESS.fullmatch(value)
    if found is None:
        raise BadMessage(f"{PREFIX}Progress {value[:40]!r} is not two numbers, such as 3 10")
    return int(found[1]), int(found[2])


def _read_protocol(value: str) -> str:
    if not PROTOCOL.fullmatch(value):
        raise BadMessage(f"{PREFIX}Protocol {value[:40]!r} is none, such as HTTP/1.0")
    return value


def _read_word(name: str, *known: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in known:
            raise BadMessage(f"{PREFIX}{name} {value[:40]!r} is none of {', '.join(known)}")
        return value

    return read


def _read_flag(name: str, word: str) -> Callable[[str], bool]:
    def read(value: str) -> bool:
        if value != word:
            raise BadMessage(f"{PREFIX}{name} {value[:40]!r} is not known; {word!r} is")
        return True

    return read


USUAL = (
    Field("Task", "id", "", from_utf8, to_utf8),
    Field("Service", "service", "", from_utf8, to_utf8),
    Field("Attempt", "attempt", None, _read_number("Attempt")),
    Field("Max-Attempts", "max_attempts", None, _read_number("Max-Attempts")),
    Field("Queued", "queued", 0.0, _read_time("Queued"), float, "%.3f"),
)
"""The fields that every task has."""
ADDRESS = Field("Remote-Addr", "remote_addr", "", str)
"""The field of a task that was queued in a request."""
RARE = (
    Field("Due", "due", 0.0, _read_time("Due"), float, "%.3f"),
    Field("Keep-Result", "keep_result", None, _read_time("Keep-Result"), _decimal),
    Field("Script-Name", "script_name", "", _read_script_name),
    Field("Remote-User", "remote_user", None, str),
    Field("Timeout", "timeout", None, _read_timeout, _decimal),
    Field(
        "Backoff",
        "backoff",
        None,
        lambda text: _seconds(text, "Backoff", 2),
        lambda both: " ".join(map(_decimal, both)),
    ),
    Field("Priority", "priority", "normal", _read_word("Priority", *PRIORITIES)),
    Field("Reply", "wants_reply", False, _read_flag("Reply", "message"), lambda _: "message"),
    Field("Protocol", "protocol", "HTTP/1.1", _read_protocol),
    Field("Awaited", "awaited", None, _read_awaited, lambda value: f"{value[0]} {_decimal(value[1])}"),
    Field("Origin", "from_request", False, _read_flag("Origin", "request"), lambda _: "request"),
    Field("Succeeds", "succeeds", (), _read_statuses, lambda codes: " ".join(map(str, codes))),
    Field("Identity", "identity", "", _read_identity, to_utf8),
    Field("Verified", "verified", False, _read_flag("Verified", "yes"), lambda _: "yes"),
    Field("Cursor", "cursor", "", _read_cursor),
    Field("Continued", "continued", 0, _read_number("Continued")),
    Field("Progress", "progress", None, _read_progress, lambda both: f"{both[0]} {both[1]}"),
    Field("Then", "then", None, read_follow_up, FollowUp.to_text),
    Field("On-Dead", "on_dead", None, read_follow_up, FollowUp.to_text),
    Field("Scheduled", "scheduled", None, _read_moment, lambda tick: tick.isoformat()),
    Field("Entry", "entry", "", from_utf8, to_utf8),
)
FIELDS = (*USUAL, ADDRESS, *RARE)
"""All fields, in the order in which they are written."""

BY_NAME = {field.full_name.lower(): field for field in FIELDS}
"""The fields by their names in lower case."""
NAMES = {field.attribute: field.full_name for field in FIELDS}
"""The headers' names by the attributes of `Message`."""

FAILED = PREFIX + "Failed"
"""The field that may be repeated: a line for each failed attempt."""
SIGNATURE = PREFIX + "Signature"
"""The field that the signature does not cover."""


def find_line(name: str) -> re.Pattern[bytes]:
    """A pattern for a field's line in a head, however it is spelled: `-` is as good as `_`, in any case."""
    spelled = name.replace("-", "[-_]")
    return re.compile(rf"\r\n{spelled}[ \t]*:([^\r\n]*)".encode(), re.IGNORECASE)

"""Removes secrets from what people look at: the values of headers that prove who someone is. Pure."""

import json
import re
from collections.abc import Sequence
from typing import Any

from . import fields

_SECRET = ("authorization", "proxy-authorization", "cookie", "set-cookie", fields.SIGNATURE.lower())
_SECRET_PREFIXES = ("x-csrf", "x-xsrf", "x-api-key")

_FOLLOW_UPS = frozenset({fields.NAMES["then"].lower(), fields.NAMES["on_dead"].lower()})

_HEAD_END = re.compile(rb"\r?\n\r?\n")
# Wider than the message's own grammar, because what is shown may be no message at all, with any line ends. A line that
# begins with a blank continues the one before.
_FIELD = re.compile(rb"(?:(?<=[\r\n])|\A)([^\r\n:]{1,200}):[^\r\n]*(?:(?:\r\n|\r|\n)[ \t][^\r\n]*)*")


def is_secret(name: str, further: Sequence[str] = ()) -> bool:
    """Whether a header of this name must never be shown; `further` are those of the setting, in lower case."""
    folded = name.strip().lower().replace("_", "-")
    return folded in _SECRET or folded.startswith(_SECRET_PREFIXES) or folded in further


def redact_payload(payload: bytes, further: Sequence[str] = ()) -> bytes:
    """A message, with the values of secret headers replaced."""
    end = _HEAD_END.search(payload)
    if end is None:
        return redact_head(payload, further)
    return redact_head(payload[: end.start()], further) + payload[end.start() :]


def redact_head(head: bytes, further: Sequence[str] = ()) -> bytes:
    """The head of a message, with the values of secret headers replaced."""

    def blot(match: "re.Match[bytes]") -> bytes:
        name = match[1].decode("latin-1")
        if is_secret(name, further):
            return match[1] + b": [redacted]"
        if name.strip().lower().replace("_", "-") in _FOLLOW_UPS:
            return match[1] + b": " + _redact_follow_up(match[0][len(match[1]) + 1 :], further)
        return match[0]

    return _FIELD.sub(blot, head)


def _redact_follow_up(text: bytes, further: Sequence[str]) -> bytes:
    """A follow-up in JSON, with the values of the secret headers in it replaced."""

    def blot(values: dict[str, Any]) -> dict[str, Any]:
        if isinstance(values.get("headers"), list):
            values["headers"] = [
                [name, "[redacted]" if is_secret(str(name), further) else value] for name, value in values["headers"]
            ]
        return values

    try:
        return json.dumps(json.loads(text, object_hook=blot), separators=(",", ":")).encode()
    except (ValueError, TypeError, RecursionError):
        return b"[redacted]"


def redact_lines(lines: Sequence[str], further: Sequence[str] = ()) -> list[str]:
    """Lines of text, such as a response's, with the values of secret headers replaced."""
    return [
        redact_head(line.encode("utf-8", "surrogateescape"), further).decode("utf-8", "surrogateescape")
        for line in lines
    ]

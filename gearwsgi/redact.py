"""Secrets out of what people look at: the values of headers that say who someone is. Pure."""

import re
from collections.abc import Sequence

_SECRET = ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-gearman-signature")
_SECRET_PREFIXES = ("x-csrf", "x-xsrf", "x-api-key")


def is_secret(name: str, further: Sequence[str] = ()) -> bool:
    """Whether a header of this name is never shown; `further` are the configured ones, in lower case."""
    folded = name.lower().replace("_", "-")
    return folded in _SECRET or folded.startswith(_SECRET_PREFIXES) or folded in further


def redact_payload(payload: bytes, further: Sequence[str] = ()) -> bytes:
    """A message with the values of secret headers blotted out."""
    head, end, body = payload.partition(b"\r\n\r\n")
    if not end:
        return payload
    return redact_head(head, further) + end + body


def redact_head(head: bytes, further: Sequence[str] = ()) -> bytes:
    """A message's head with the values of secret headers blotted out."""

    def blot(match: "re.Match[bytes]") -> bytes:
        return match[1] + b": [redacted]" if is_secret(match[1].decode("latin-1"), further) else match[0]

    return re.sub(rb"(?m)^([^\r\n:]+):[^\r\n]*", blot, head)

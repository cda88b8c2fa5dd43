"""Reads the header Prefer (RFC 7240). Pure."""

import re

from .targets import TOKEN

_TOKEN = TOKEN.pattern
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = rf"({_TOKEN})(?:[ \t]*=[ \t]*({_TOKEN}|{_QUOTED}))?"
_PREFERENCE = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*(?:{_PAIR})?)*[ \t]*")
_ELEMENT = re.compile(rf"(?:[^,\"]|{_QUOTED}|\")+")
_SECONDS = re.compile(r"[0-9]{1,9}")

RESPOND_ASYNC = "respond-async"


def read_prefer(text: str) -> dict[str, str]:
    """The preferences in a Prefer header, by their names in lower case; the first of a name counts (section 2).

    One that can't be read is left out. Parameters of preferences are ignored.
    """
    found: dict[str, str] = {}
    for element in _ELEMENT.findall(text):
        preference = _PREFERENCE.fullmatch(element.strip(" \t"))
        if preference is not None:
            found.setdefault(preference[1].lower(), _unquote(preference[2] or ""))
    return found


def _unquote(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def seconds_to_wait(preferences: dict[str, str]) -> int | None:
    """Seconds of the preference `wait`; None where there is none that can be read."""
    value = preferences.get("wait", "")
    return int(value) if _SECONDS.fullmatch(value) else None

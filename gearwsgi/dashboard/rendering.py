"""Fills templates, and says what times, spans and numbers look like. All that a template prints is escaped."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..log import clean
from .answers import address

NOTHING = "-"
"""Shown where there is nothing to say."""
_FOLDER = Path(__file__).with_name("templates")
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class Renderer:
    """The dashboard's templates."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_printable,
        )
        self._environment.filters.update(
            when=show_time, span=show_span, number=show_number, lines=show_lines, words=show_words
        )
        self._environment.globals.update(address_of=address)

    def render(self, template: str, **values: Any) -> str:
        """A template's text."""
        return self._environment.get_template(template).render(now=time.time(), **values)


def _printable(value: Any) -> Any:
    """What a template prints, with escapes in place of control characters and of characters that reverse text."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def show_time(moment: datetime | float | None, otherwise: str = NOTHING) -> str:
    """A time as it is shown: how long ago, and exactly on hover; a script changes that to the reader's zone."""
    if moment is None:
        return otherwise
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    ago = time.time() - moment.timestamp()
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), exact, show_ago(ago)
    )


def show_ago(seconds: float) -> str:
    """How long ago it was, in one unit: `12 s ago`; `in 3 min` where it is still to come."""
    size = abs(seconds)
    text = "now" if size < 1 else _in_one_unit(size)
    return text if text == "now" else f"in {text}" if seconds < 0 else f"{text} ago"


def _in_one_unit(seconds: float) -> str:
    unit, size = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    return f"{int(seconds // size)} {unit}"


def show_span(seconds: float | None) -> str:
    """A span of time, with two digits or three: `8 ms`, `1.25 s`, `3.5 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    unit, size = next((each for each in _UNITS if seconds >= each[1]), _UNITS[-1])
    number = seconds / size
    return f"{number:.2f} {unit}" if number < 10 else f"{number:.1f} {unit}" if number < 100 else f"{number:.0f} {unit}"


def show_number(number: int | None, otherwise: str = NOTHING) -> str:
    """A number with its thousands apart."""
    return otherwise if number is None else f"{number:,}"


def show_lines(text: str) -> str:
    """A text of several lines, each of them printable."""
    return Markup("\n").join("\t".join(map(clean, line.split("\t"))) for line in text.replace("\r\n", "\n").split("\n"))


def show_words(text: str) -> str:
    """A text in which what stands between backquotes is something to type."""
    parts = text.split("`")
    shown = [
        Markup("<code>{}</code>").format(clean(part)) if place % 2 else clean(part) for place, part in enumerate(parts)
    ]
    return Markup("").join(shown)

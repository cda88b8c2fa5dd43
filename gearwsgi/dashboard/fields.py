"""Reads and checks the fields of an address or a form, which may come from anywhere."""

import math
from collections.abc import Mapping, Sequence

from ..state.records.model import STATES
from ..state.records.queries import Filter, Key
from .answers import Refused

SPANS = {"15m": 900.0, "1h": 3600.0, "6h": 21600.0, "1d": 86400.0, "7d": 604800.0}
"""The spans of time that can be chosen, in seconds."""
_LONGEST = 500
"""Characters that a field may have."""


class Fields:
    """The fields of a request.

    Args:
        given: WebOb's GET or POST of the request.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str) -> str:
        """A field's text, without blanks around it; empty where there is none.

        Raises:
            Refused: it is too long.
        """
        value = str(self._given.get(name, "")).strip()
        if len(value) > _LONGEST:
            raise Refused(400, "That is too long", f"{name} has {len(value)} characters; {_LONGEST} are enough.")
        return value

    def needed(self, name: str) -> str:
        """A field's text, which there must be.

        Raises:
            Refused: there is none.
        """
        value = self.text(name)
        if not value:
            raise Refused(400, "That can't be read", f"{name} is not given: use the buttons of the dashboard's pages.")
        return value

    def number(self, name: str) -> float | None:
        """A field's number; None where there is none.

        Raises:
            Refused: it is none.
        """
        value = self.text(name)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise Refused(400, "That can't be read", f"{name} is {value!r}, which is no number.")
        return number

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """A field that is one of these; empty where there is none.

        Raises:
            Refused: it is another one.
        """
        value = self.text(name)
        if value and value not in choices:
            raise Refused(400, "That can't be read", f"{name} is {value!r}; it can be {', '.join(choices)}.")
        return value

    def span(self, name: str) -> float | None:
        """A span of time in seconds; None where there is none.

        Raises:
            Refused: it is none of those that can be chosen.
        """
        return SPANS.get(self.choice(name, tuple(SPANS)))

    def filter(self, now: float, state: str | None = None) -> Filter:
        """Which records are meant.

        Args:
            now: the records' time.
            state: the state that is meant; None: the field says it.
        """
        span = self.span("since")
        return Filter(
            state=self.choice("state", STATES) if state is None else state,
            service=self.text("service"),
            queue=self.text("queue"),
            id=self.text("id"),
            text=self.text("reason"),
            since=None if span is None else now - span,
            settled=self.number("settled"),
        )

    def chosen(self, *names: str) -> dict[str, str]:
        """Those of these fields that are not empty: for an address that means the same."""
        return {name: value for name in names if (value := self.text(name))}

    def key(self) -> Key | None:
        """The place of the record after which the page begins."""
        queued = self.number("after")
        return None if queued is None else Key(queued, self.text("after_id"))

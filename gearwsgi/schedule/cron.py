"""Cron expressions and their ticks. Pure.

cronsim reads the expressions as Debian's cron does, also at both changes of summer time. It and `zoneinfo` are only
imported where there is an expression.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any

from ..message.targets import nearest

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""The names that some expressions have."""


@dataclass(frozen=True, slots=True)
class Cron:
    """When an entry of the schedule is due.

    Attributes:
        expression: five fields, as crontab has them, or a name such as `@hourly`.
        timezone: the zone's name.

    Raises:
        ValueError: it can't be read, or is never due.
    """

    expression: str
    timezone: str = "UTC"
    _zone: tzinfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", read_zone(self.timezone))
        _check_fields(self.expression)
        if next(_walk(self.expression, datetime.now(self._zone)), None) is None:
            raise ValueError("never comes: no date has that day and month")

    def after(self, moment: float) -> datetime:
        """The first tick after a Unix time, in the entry's zone."""
        return next(self.ticks(moment))

    def ticks(self, since: float) -> Iterator[datetime]:
        """Its ticks after a Unix time, in order."""
        # In the hour that comes twice, in autumn, cronsim leads from the second time back into the first.
        return (tick for tick in _walk(self.expression, self.local(since)) if tick.timestamp() > since)

    def between(self, since: float, until: float) -> Iterator[datetime]:
        """Its ticks after `since` and up to `until`, in order."""
        for tick in self.ticks(since):
            if tick.timestamp() > until:
                return
            yield tick

    def last(self, since: float, until: float) -> datetime | None:
        """Its last tick after `since` and up to `until`, found without walking through all; None: there is none."""
        span = 120.0
        while True:
            begin = max(since, until - span)
            found = list(self.between(begin, until))
            if found or begin == since:
                return found[-1] if found else None
            span *= 8

    def local(self, moment: float) -> datetime:
        """A Unix time in the entry's zone."""
        return datetime.fromtimestamp(moment, self._zone)


def _walk(expression: str, start: datetime) -> Iterator[datetime]:
    from cronsim import CronSim

    return iter(CronSim(NAMED.get(expression.lower(), expression), start))


def _check_fields(expression: Any) -> None:
    from cronsim import CronSim, CronSimError

    if not isinstance(expression, str):
        raise ValueError("give an expression such as '0 6 * * *'")
    if expression.startswith("@"):
        if expression.lower() not in NAMED:
            raise ValueError(f"is no name of one{nearest(expression, NAMED)}; known are {', '.join(NAMED)}")
        return
    fields = expression.split()
    if len(fields) == 6:
        raise ValueError("has six fields, and seconds are not offered: give five, such as '0 6 * * *'")
    if len(fields) != 5:
        raise ValueError(
            f"has {len(fields)} fields: give five (minute, hour, day, month, weekday), such as '0 6 * * *'"
        )
    try:
        CronSim(expression, datetime.now(UTC))
    except CronSimError as error:
        if str(error) == "Bad day-of-month" and _can_be_a_day(fields[2]):
            raise ValueError("never comes: no month of these has that day") from error
        raise ValueError(f"can't be read: {str(error)[:1].lower()}{str(error)[1:]}") from error


def _can_be_a_day(text: str) -> bool:
    """Whether cronsim can read this as a day of some month."""
    from cronsim import CronSim, CronSimError

    try:
        CronSim(f"0 0 {text} 1 *", datetime.now(UTC))
    except CronSimError:
        return False
    return True


def read_zone(name: Any) -> tzinfo:
    if name == "UTC":
        return UTC  # known even where the system has no zones
    from zoneinfo import ZoneInfo, available_timezones

    if not isinstance(name, str):
        raise ValueError("give a zone's name, such as 'Europe/Berlin'")
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        known = available_timezones()
        if not known:
            raise ValueError("this system has no time zones: `pip install tzdata` brings them") from error
        raise ValueError(f"no time zone has this name{nearest(name, known)}") from error

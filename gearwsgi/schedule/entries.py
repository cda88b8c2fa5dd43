"""The entries of the setting `schedule`, read and checked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigError
from ..message.targets import nearest
from .cron import Cron, read_zone

OPTIONS = (
    "data", "form", "body", "content_type", "params", "headers", "method", "queue", "priority", "max_attempts",
    "backoff_min", "backoff_max", "timeout", "keep_result", "succeeds", "then", "on_dead", "limit", "json",
    "plain",
)  # fmt: skip
"""The arguments of `task()` that an entry may have."""
_KEYS = ("service", "cron", "timezone", "missed", "overlap", *OPTIONS)
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the setting `schedule`.

    Attributes:
        name: the entry's name.
        service: the service that is called.
        cron: when it is due.
        missed: for ticks that no supervisor was there for: `once`: one tick runs for all of them; `skip`: none does.
        overlap: whether a tick runs even while the task of the last one runs or is tried again.
        options: further arguments of `task()`.
    """

    name: str
    service: str
    cron: Cron
    missed: Literal["skip", "once"] = "skip"
    overlap: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


def read_schedule(name: str, value: Any) -> dict[str, Entry]:
    """The setting's entries by their names.

    Raises:
        ConfigError: one of them can't work.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}: give a dict of names and cron expressions, or dicts with a 'cron'")
    return {key: _read_entry(f"{name}[{key!r}]", key, given) for key, given in value.items()}


def _read_entry(what: str, name: Any, given: Any) -> Entry:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.encode()) <= _MAX_NAME:
        raise ConfigError(f"{what}: a name is up to {_MAX_NAME} bytes without control characters")
    if isinstance(given, str):
        given = {"cron": given}
    if not isinstance(given, Mapping) or "cron" not in given:
        raise ConfigError(f"{what} is {given!r}: give a cron expression such as '0 6 * * *', or a dict with a 'cron'")
    for key in given:
        if key not in _KEYS:
            raise ConfigError(f"{what} has an unknown key {key!r}{nearest(str(key), _KEYS)}; known: {', '.join(_KEYS)}")
    missed, overlap, zone = given.get("missed", "skip"), given.get("overlap", True), given.get("timezone", "UTC")
    if missed not in ("skip", "once"):
        raise ConfigError(f"{what}['missed'] is {missed!r}: give 'skip' or 'once'")
    if not isinstance(overlap, bool):
        raise ConfigError(f"{what}['overlap'] is {overlap!r}: give True or False")
    try:
        read_zone(zone)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}['timezone'] is {zone!r}: {error}") from error
    try:
        cron = Cron(given["cron"], zone)
    except ValueError as error:
        raise ConfigError(f"{what}: cron {given['cron']!r} {error}") from error
    options = {key: each for key, each in given.items() if key in OPTIONS}
    return Entry(name, given.get("service", name), cron, missed, overlap, options)

"""The entries of the setting `inbox`: which webhooks are taken in, and how. Read and checked at the start."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import kinds
from ..errors import ConfigError
from ..message import targets
from ..message.followups import PRIORITIES
from ..message.routes import Route, read_route
from ..rules import read_keys
from . import header_of

Asked = Callable[[Mapping[str, Any], bytes], Any]
"""A callable that is given a request's environ and its raw body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbox:
    """One entry of the setting `inbox`.

    Attributes:
        route: the requests that it is for.
        verify: answers whether a delivery is genuine, or raises `BadDelivery`.
        id: answers a delivery's id; empty or None where it has none.
        queue: the queue; None: the middleware's.
        priority: `high`, `normal` or `low`.
        max_attempts: how often it is tried; None: as the setting says.
        timeout: seconds that an attempt may take; None: as the setting says.
    """

    route: Route
    verify: Asked
    id: Asked
    queue: str | None = None
    priority: str = "normal"
    max_attempts: int | None = None
    timeout: float | None = None


def _read_id(name: str, value: Any) -> Asked:
    if callable(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, str) or not targets.TOKEN.fullmatch(value):
        raise ConfigError(f"{name} is {value!r}: give a header's name, or a callable from environ and body to the id")
    return lambda environ, body: header_of(environ, value)


def _read_verifier(name: str, value: Any) -> Asked:
    if not callable(value):
        # The value is not shown: it may be the secret itself.
        raise ConfigError(f"{name} is {type(value).__name__}: give github('the secret') of gearwsgi.webhooks, say")
    return value  # type: ignore[no-any-return]


_KEYS: dict[str, kinds.Kind] = {
    "route": kinds.Kind(read_route),
    "verify": kinds.Kind(_read_verifier),
    "id": kinds.Kind(_read_id),
    "queue": kinds.QUEUE,
    "priority": kinds.choice(*PRIORITIES),
    "max_attempts": kinds.number(1, int),
    "timeout": kinds.number(0.01),
}


def _read_entry(where: str, value: Any) -> Inbox:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} is {type(value).__name__}: give a dict with a 'route' and how to 'verify'")
    found = read_keys(value, _KEYS, where)
    for name in ("route", "verify"):
        if name not in found:
            raise ConfigError(f"{where} has no {name!r}: give one")
    if "id" not in found:
        found["id"] = getattr(found["verify"], "id", None)
        if not callable(found["id"]):
            raise ConfigError(f"{where} has no 'id': name the header that has a delivery's id, or give a callable")
    return Inbox(**found)


def _read_entries(name: str, value: Any) -> tuple[Inbox, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {type(value).__name__}: give a list of dicts with a 'route' and how to 'verify'")
    return tuple(_read_entry(f"{name}[{place}]", each) for place, each in enumerate(value))


# Verifiers are code and hold secrets. Only web processes need them, so they are not passed on to a supervisor.
INBOX = kinds.Kind(_read_entries, dump=lambda entries: [], load=lambda entries: ())

"""The entries of `defer=`: which public requests are queued instead of answered, and how. Read and checked at start."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypedDict

from . import kinds
from .errors import ConfigError
from .message import targets
from .message.followups import PRIORITIES
from .message.routes import Route, read_route
from .policy import MAX_DELAY

Owner = Callable[[dict[str, Any]], Any]
"""From an environ to who asks, as a string or a number; None: nobody in particular."""

KEEP = 3600.0
"""Seconds that the response of a deferred request is kept, unless it is said otherwise."""


class Given(TypedDict, total=False):
    """What `defer()` takes, and a rule beside its route and owner. Times are in seconds.

    Attributes:
        prefer: only where the client says `Prefer: respond-async`.
        wait: seconds to wait for the true response, which is given where it comes in time.
        queue: the queue; the middleware's `queue` where it is not given.
        priority: `high`, `normal` or `low`.
        delay: seconds to wait before it runs, or a timedelta.
        max_attempts: how often it is tried.
        backoff_min: as the setting.
        backoff_max: as the setting.
        timeout: seconds that one attempt may take.
        keep_result: seconds that its response is kept: an hour where it is not given.
        succeeds: statuses beside 2xx that mean that the work is done.
        inherit: names of headers that travel, instead of the setting `inherit`.
        max_waiting: jobs that may wait in its queue; at so many the answer is 503.
        identity: `user`: it runs as the user who asks; of a rule: and who is nobody, is answered by the application.
            Empty: as nobody, although the setting says so.
        limit: its key, as `task()` has it.
    """

    prefer: bool
    wait: float
    queue: str
    priority: str
    delay: float | timedelta
    max_attempts: int
    backoff_min: float
    backoff_max: float
    timeout: float
    keep_result: float
    succeeds: Iterable[int]
    inherit: Iterable[str]
    max_waiting: int
    identity: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a request is deferred: `Given`, read and checked."""

    prefer: bool = False
    wait: float = 0.0
    queue: str | None = None
    priority: str = "normal"
    delay: float = 0.0
    max_attempts: int | None = None
    backoff_min: float | None = None
    backoff_max: float | None = None
    timeout: float | None = None
    keep_result: float = KEEP
    succeeds: tuple[int, ...] = ()
    inherit: tuple[str, ...] | None = None
    max_waiting: int | None = None
    identity: str | None = None
    limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of the setting `defer`.

    Attributes:
        route: the requests that it is for.
        options: how they are deferred.
        owner: says who asks; only those for whom it says the same as for the sender may see what became of a request.
            None: as the setting says.
    """

    route: Route
    options: Options = field(default_factory=Options)
    owner: Owner | None = None


def _read_delay(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise ConfigError(f"{name} is {value!r}: give seconds or a timedelta, from 0 to ten years")
    return float(seconds)


def _read_statuses(name: str, value: Any) -> tuple[int, ...]:
    try:
        return targets.read_statuses(value)
    except ValueError as error:
        raise ConfigError(f"{name} is {value!r}: {error}") from None


OPTIONS: dict[str, kinds.Kind] = {
    "prefer": kinds.SWITCH,
    "wait": kinds.number(0),
    "queue": kinds.QUEUE,
    "priority": kinds.choice(*PRIORITIES),
    "delay": kinds.Kind(_read_delay),
    "max_attempts": kinds.number(1, int),
    "backoff_min": kinds.number(0.001),
    "backoff_max": kinds.number(0.001),
    "timeout": kinds.number(0.01),
    "keep_result": kinds.number(0),
    "succeeds": kinds.Kind(_read_statuses),
    "inherit": kinds.HEADERS,
    "max_waiting": kinds.number(1, int),
    "identity": kinds.choice("user", ""),
    "limit": kinds.KEY,
}
"""The options, and the kind of value of each."""

OWNER = kinds.function("a callable from an environ to who asks")


def read_options(given: Mapping[str, Any]) -> Options:
    """Read the arguments of a call; one that is None counts as not given.

    Args:
        given: names and values.

    Raises:
        ConfigError: one is unknown (the error names the nearest), or its value can't work.
    """
    return Options(**read_keys(given, OPTIONS, ""))


def read_rule(where: str, value: Any) -> Rule:
    """A rule: a route, or a dict with one and options.

    Raises:
        ConfigError: it is neither, or can't work.
    """
    if isinstance(value, str):
        value = {"route": value}
    if not isinstance(value, Mapping) or "route" not in value:
        raise ConfigError(f"{where} is {value!r}: give a route such as 'POST /reports/*', or a dict with a 'route'")
    found = read_keys(value, {"route": kinds.Kind(read_route), **OPTIONS, "owner": OWNER}, where)
    route, owner = found.pop("route"), found.pop("owner", None)
    return Rule(route=route, options=Options(**found), owner=owner)


def read_keys(given: Mapping[str, Any], known: Mapping[str, kinds.Kind], where: str) -> dict[str, Any]:
    """Read the values of a dict that the application gave; one that is None counts as not given.

    Raises:
        ConfigError: a key is unknown (the error names the nearest), or its value can't work.
    """
    for name in given:
        if name not in known:
            at = f"{where} has an unknown key" if where else "unknown option"
            raise ConfigError(f"{at} {name!r}{targets.nearest(str(name), known)}; known are {', '.join(known)}")
    return {
        name: known[name].read(f"{where}[{name!r}]" if where else name, value)
        for name, value in given.items()
        if value is not None
    }


def _read_rules(name: str, value: Any) -> tuple[Rule, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {value!r}: give a list, such as ['POST /reports/*']")
    return tuple(read_rule(f"{name}[{place}]", each) for place, each in enumerate(value))


# Rules hold code of the application's, and only the web processes need them: they don't travel to a supervisor.
DEFER = kinds.Kind(_read_rules, dump=lambda rules: [], load=lambda rules: ())

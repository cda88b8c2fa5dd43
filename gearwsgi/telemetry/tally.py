"""Counts attempts for the metrics: how each ended, how long it ran, how long it had waited. Cheap, for each job pays.

Counting needs no library: `collector` shows the numbers to Prometheus's when that asks. One thread counts; others may
read at any time, and see numbers that are at most one attempt behind.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from ..errors import BadMessage
from ..message import reading
from ..message.glance import glance
from ..message.routes import Route, Routes
from ..policy import OUTCOMES
from ..settings import Settings

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    1800.0, 3600.0,
)  # fmt: skip
"""Upper ends of the buckets in seconds, from a millisecond to an hour; one more without an end follows."""
MAX_SERVICES = 200
"""Names of services that are counted apart."""
OTHER = "other"
"""The name under which all other services are counted, and those without a usable name."""
_MAX_KNOWN = 1000
_MAX_LABEL = 200


class Tally:
    """The counted attempts of one queue and service.

    Attributes:
        outcomes: how many attempts have ended in each way.
        ran: how many ran for how long, by bucket; `ran_for`: the sum of their seconds.
        waited: how many had waited for how long when they began, by bucket; `waited_for`: the sum of their seconds.
    """

    __slots__ = ("outcomes", "ran", "ran_for", "waited", "waited_for")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.ran = [0] * (len(BUCKETS) + 1)
        self.ran_for = 0.0
        self.waited = [0] * (len(BUCKETS) + 1)
        self.waited_for = 0.0


class Tallies:
    """The counted attempts of a supervisor, over all loads of the application."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Tally] = {}
        self._known: dict[tuple[bytes, bytes], Tally] = {}
        self._services = Services()

    def use(self, settings: Settings) -> None:
        """Name services by these settings from now on."""
        self._services.use(settings)
        self._known.clear()

    def count(
        self, queue: bytes, payload: bytes, outcome: str, seconds: float | None, began: float, route: bytes = b""
    ) -> None:
        """Count one attempt, which has ended.

        Args:
            queue: the Gearman function.
            payload: the message, if it was verified; else empty.
            outcome: one of `OUTCOMES`.
            seconds: how long the attempt ran; None: it never began.
            began: when it began, in Unix time.
            route: the pattern of the route that its path matches, where the application was asked for it.
        """
        service, since = glance(payload) or _read(payload)
        tally = self._known.get((queue, service)) or self._find(queue, service, route)
        tally.outcomes[outcome] += 1
        if seconds is None:
            return
        tally.ran[bisect_left(BUCKETS, seconds)] += 1
        tally.ran_for += seconds
        waited = began - since if 0.0 < since < began else 0.0  # two machines' clocks may differ
        tally.waited[bisect_left(BUCKETS, waited)] += 1
        tally.waited_for += waited

    def items(self) -> list[tuple[tuple[str, str], Tally]]:
        """All that was counted, by queue and service."""
        return list(self._found.items())

    def _find(self, queue: bytes, service: bytes, route: bytes) -> Tally:
        key = as_label(queue.partition(b"#")[0]), self._services.label(as_label(service), as_label(route))
        tally = self._found.get(key)
        if tally is None:
            tally = self._found[key] = Tally()
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[queue, service] = tally
        return tally


def look(payload: bytes) -> tuple[bytes, float]:
    """The service of a message, and since when it waits; an empty service and 0 where the payload is no message."""
    return glance(payload) or _read(payload)


def _read(payload: bytes) -> tuple[bytes, float]:
    """What `glance` answers, for a message that another program has written; an empty service and 0 for any other."""
    if not payload:
        return b"", 0.0
    try:
        task = reading.read(payload, max_body=len(payload))
    except BadMessage:
        return b"", 0.0
    return task.service.encode("utf-8", "surrogateescape"), task.due or task.queued


def as_label(name: bytes) -> str:
    """A name as a label's value: UTF-8 that is not too long."""
    return name[:_MAX_LABEL].decode("utf-8", "replace")


class Services:
    """The names under which services are counted: aliases, dotted names, patterns of routes; never a raw path."""

    def __init__(self) -> None:
        self._aliases: Mapping[str, Any] = {}
        self._routes = Routes(())
        self._patterns: list[str] = []
        self._labels: set[str] = set()

    def use(self, settings: Settings) -> None:
        """Go by these settings from now on; the names that were given so far stay."""
        self._aliases = settings.tasks
        deferred = [rule.route for rule in settings.defer]
        routes = [*deferred, *(Route("", pattern) for pattern in settings.tasks_only)]
        self._routes = Routes(routes)
        self._patterns = list(map(str, routes))

    def label(self, service: str, route: str = "") -> str:
        """The name under which a service is counted; `other` where it has no usable one, or there are too many.

        Args:
            service: what was called.
            route: the pattern of the route that it matches, if it is a path.
        """
        name = service
        if "/" in service and service not in self._aliases:
            method, _, path = service.rpartition(" ")
            found = self._routes.find(method or "POST", unquote(path.partition("?")[0]))
            name = self._patterns[found] if found is not None else route
        if not name:
            return OTHER
        if name not in self._labels:
            if len(self._labels) >= MAX_SERVICES:
                return OTHER
            self._labels.add(name)
        return name


def cumulated(buckets: list[int]) -> Iterator[tuple[str, int]]:
    """The buckets as Prometheus wants them: each upper end as text, with how many attempts are not above it."""
    total = 0
    for end, number in zip((*map(repr, BUCKETS), "+Inf"), buckets, strict=True):
        total += number
        yield end, total

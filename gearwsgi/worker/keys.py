"""What a supervisor knows of the keys of limits that something waits for or runs of, or has begun of lately."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from limits import RateLimitItem, parse

from ..address import Address
from ..message.limits import Limit, find_limit, split_queue
from .watch import Count

GRACE = 5.0
"""Seconds within which the processes of a supervisor that has died are gone, at most."""
NONE = Limit("")
"""What holds for a key that no pattern matches any more."""
PROBE = 0.25
PROBE_MAX = 2.0
"""Seconds until a job is asked for again where none came, although the job server counts some: gearmand counts those
that are delayed. Doubled from time to time, up to the second."""


_parse = lru_cache(parse)


class Key:
    """A key, in whatever queues. There may be a million.

    Attributes:
        name: its own.
        limit: what holds for it.
        rate: its rate; None: any number may start.
        starts: when those began that count for the rate, and in which queue, the oldest first.
        unsaved: the queues of which the records do not know exactly when those began.
        out: permits that are out.
        later: until when its rate lets none start, of `time.monotonic`.
        lines: its queues.
    """

    __slots__ = ("later", "limit", "lines", "name", "out", "rate", "starts", "unsaved")

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = NONE
        self.rate: RateLimitItem | None = None
        self.out = 0
        self.starts: list[tuple[float, str]] = []
        self.unsaved: frozenset[str] = frozenset()
        self.later = 0.0
        self.lines: list[Line] = []

    def use(self, limit: Limit | None) -> None:
        """Go by this limit from now on; None: no pattern matches any more, and nothing holds it back."""
        self.limit = limit or NONE
        self.rate = _parse(self.limit.rate) if self.limit.rate else None
        self.later = 0.0

    @property
    def asked(self) -> int:
        """Permits that are out and have no job yet."""
        return sum(line.asked for line in self.lines)

    def learn(self, queue: str, times: Iterable[float]) -> None:
        """When those of a queue began, as the records know it: in place of what is known here."""
        known = [start for start in self.starts if start[1] != queue]
        self.starts = sorted([*known, *((at, queue) for at in times)])
        self.unsaved -= {queue}

    def wait(self, now: float) -> float:
        """Seconds until its rate lets one more start; those that are asked for may be about to.

        The library's own counters keep every key for ever, and look at all of them at each start.
        """
        if self.rate is None:
            self.starts.clear()
            return 0.0
        window = self.rate.get_expiry()
        del self.starts[: bisect_right(self.starts, now - window, key=_at)]
        over = len(self.starts) + self.asked - self.rate.amount
        if over < 0:
            return 0.0
        return self.starts[over][0] + window - now if over < len(self.starts) else PROBE

    def free(self, now: float) -> int:
        """How many more its rate lets begin, beside those that may already."""
        if self.rate is None:
            return 0
        return self.rate.amount - len(self.starts) - sum(line.asked + line.booked(now) for line in self.lines)

    def is_full(self) -> bool:
        """Whether as many run as may."""
        most = self.limit.concurrency
        return bool(most) and self.out + sum(line.foreign for line in self.lines) >= most


def _at(start: tuple[float, str]) -> float:
    return start[0]


class Before:
    """What may run yet of those who owned a key's queue before this supervisor.

    Attributes:
        since: since when it is this supervisor's, of `time.monotonic`.
        running: how many run of which it knows nothing.
        until: until when those count, although the job servers say nothing of them any more.
        looked_at: when that was last compared.
    """

    __slots__ = ("looked_at", "running", "since", "until")

    def __init__(self, since: float, running: int, now: float) -> None:
        self.since = since
        self.running = running
        self.until = now + GRACE
        self.looked_at = now


class Line:
    """A key's tasks in one queue.

    Attributes:
        function: the Gearman function.
        queue: its queue, without the key.
        key: its key.
        where: the job servers that may have one.
        counted: what each said when it was last asked; nothing where there is none.
        out: permits that are out.
        asked: those of them that have no job yet.
        may_start: starts that are written ahead.
        may_start_until: until when those may be used.
        is_booking: whether more of those are asked for.
        changed_at: when `out` changed, of `time.monotonic`, as are all times here.
        again: when to ask again, where none came.
        pause: how long that was put off.
        before: what ran of it when it became ours; None: that is not known yet.
    """

    __slots__ = (
        "again", "asked", "before", "changed_at", "counted", "function", "is_booking", "key", "may_start",
        "may_start_until", "out", "pause", "queue", "where",
    )  # fmt: skip

    def __init__(self, function: str, key: Key) -> None:
        self.function = function
        self.queue = split_queue(function)[0]
        self.key = key
        self.where: tuple[Address, ...] = ()
        self.counted: dict[Address, Count] = {}
        self.out = self.asked = self.may_start = 0
        self.may_start_until = 0.0
        self.is_booking = False
        self.changed_at = self.again = self.pause = 0.0
        self.before: Before | None = None
        key.lines.append(self)

    def booked(self, now: float) -> int:
        """Starts that are written ahead, and may be used yet."""
        if now >= self.may_start_until:
            self.may_start = 0
        return self.may_start

    def change(self, number: int, now: float) -> None:
        """So many more permits are out."""
        self.out += number
        self.key.out += number
        self.changed_at = now

    @property
    def foreign(self) -> int:
        """How many run that who owned it before had begun."""
        return self.before.running if self.before is not None else 0

    def take(self, since: float, now: float) -> Before:
        """It is ours since then, and all job servers have said since what runs."""
        self.before = Before(since, self._unknown(), now)
        return self.before

    def count_foreign(self, now: float) -> None:
        """The job servers have said what runs since a change of ours reached them: what is not ours, of the old."""
        before, seen = self.before, self._unknown()
        assert before is not None
        before.looked_at = now
        if seen >= before.running:
            before.until = now + GRACE
        elif now > before.until:
            before.running = seen

    def _unknown(self) -> int:
        return max(0, sum(count.running for count in self.counted.values()) - self.out)

    def may_ask(self, address: Address) -> None:
        """This job server may have one of it."""
        if address not in self.where:
            self.where = (*self.where, address)

    def forget(self, address: Address) -> None:
        """This one has none, as far as we know."""
        self.where = tuple(each for each in self.where if each != address)


class Permit:
    """Leave to ask a job server for one job of a key.

    Attributes:
        line: the key's queue.
        address: the job server.
        is_booked: whether it is one of those that were written ahead.
        has_job: whether the job has come.
    """

    __slots__ = ("address", "has_job", "is_booked", "line")

    def __init__(self, line: Line, address: Address, *, is_booked: bool = False) -> None:
        self.line = line
        self.address = address
        self.is_booked = is_booked
        self.has_job = False


class Keys:
    """Those that are known, by their names."""

    def __init__(self) -> None:
        self._limits: Sequence[Limit] = ()
        self._keys: dict[str, Key] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def use(self, limits: Sequence[Limit]) -> None:
        """Go by these limits from now on."""
        self._limits = limits
        for key in self:
            key.use(find_limit(limits, key.name))

    def find(self, name: str) -> Key:
        """That key, which is known from now on."""
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = Key(name)
            key.use(find_limit(self._limits, name))
        return key

    def shrink(self, now: float) -> None:
        """Forget those of which nothing waits, runs or counts."""
        for key in [each for each in self if not each.lines]:
            key.wait(now)
            if not key.starts:
                del self._keys[key.name]

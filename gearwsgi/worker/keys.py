"""The keys of limits that a supervisor knows: those with tasks that wait, run, or began lately enough to count."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from limits import RateLimitItem, parse

from ..address import Address
from ..message.limits import Limit, find_limit, split_queue
from .watch import Count

GRACE = 5.0
"""Seconds after which the processes of a supervisor that has died are surely gone."""
NONE = Limit("")
"""The limit of a key that no pattern matches any more: none at all."""
PROBE = 0.25
PROBE_MAX = 2.0
"""Seconds until a job server is asked again, at most, where it counts waiting jobs and gave none: gearmand counts
delayed ones among them. The pause is doubled from time to time, up to this."""


_parse = lru_cache(parse)


class Key:
    """A key, in whichever queues it is used. There may be a million keys.

    Attributes:
        name: the key itself.
        limit: the limit that holds for it.
        rate: how many may start in a time; None: any number.
        starts: the starts that count for the rate, the oldest first: when, and in which queue.
        unsaved: the queues whose starts the records do not know exactly.
        out: how many permits are given out.
        later: when its rate lets the next one start, by `time.monotonic`.
        lines: its tasks, a `Line` for each queue.
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
        """Go by this limit from now on; None: no pattern matches the key any more, and nothing holds it back."""
        self.limit = limit or NONE
        self.rate = _parse(self.limit.rate) if self.limit.rate else None
        self.later = 0.0

    @property
    def asked(self) -> int:
        """How many permits are given out that have no job yet."""
        return sum(line.asked for line in self.lines)

    def learn(self, queue: str, times: Iterable[float]) -> None:
        """Take the starts in a queue from the records, in place of those that are known here."""
        known = [start for start in self.starts if start[1] != queue]
        self.starts = sorted([*known, *((at, queue) for at in times)])
        self.unsaved -= {queue}

    def wait(self, now: float) -> float:
        """Seconds until the rate lets one more start, where the permits without a job are about to start one each.

        The library `limits` has counters too. They keep every key for ever, and go through all of them at each start.
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
        """How many more the rate lets start, beside those that have leave to already."""
        if self.rate is None:
            return 0
        return self.rate.amount - len(self.starts) - sum(line.asked + line.booked(now) for line in self.lines)

    def is_full(self) -> bool:
        """Whether as many run as may run at once."""
        most = self.limit.concurrency
        return bool(most) and self.out + sum(line.foreign for line in self.lines) >= most


def _at(start: tuple[float, str]) -> float:
    return start[0]


class Before:
    """What may still run of a key's queue for the supervisor that owned it before this one.

    Attributes:
        since: when this supervisor began to own it, by `time.monotonic`.
        running: how many jobs run that this supervisor has not begun.
        until: how long these count, even if the job servers do not report them any more.
        looked_at: when this was last compared with what the job servers report.
    """

    __slots__ = ("looked_at", "running", "since", "until")

    def __init__(self, since: float, running: int, now: float) -> None:
        self.since = since
        self.running = running
        self.until = now + GRACE
        self.looked_at = now


class Line:
    """The tasks of one key in one queue.

    Attributes:
        function: the Gearman function: the queue's name with the key.
        queue: the queue's name, without the key.
        key: the key.
        where: the job servers that may have tasks of it.
        counted: how many each job server counted when it was last asked; without those that have none.
        out: how many permits are given out.
        asked: how many of those have no job yet.
        may_start: how many starts are written ahead in the records, and not used yet.
        may_start_until: until when those may be used.
        is_booking: whether more of them are being written.
        changed_at: when `out` changed; by `time.monotonic`, as are all times here.
        again: when to ask a job server again, where none had a job.
        pause: seconds that were waited for that.
        before: what ran of it when this supervisor began to own it; None: that is not known yet.
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
        """How many starts are written ahead and may still be used."""
        if now >= self.may_start_until:
            self.may_start = 0
        return self.may_start

    def change(self, number: int, now: float) -> None:
        """Give out so many more permits; a negative number takes them back."""
        self.out += number
        self.key.out += number
        self.changed_at = now

    @property
    def foreign(self) -> int:
        """How many run that the supervisor which owned it before had begun."""
        return self.before.running if self.before is not None else 0

    def take(self, since: float, now: float) -> Before:
        """Begin to own it, as of `since`: all job servers have reported since then what runs."""
        self.before = Before(since, self._unknown(), now)
        return self.before

    def count_foreign(self, now: float) -> None:
        """Count anew what runs of the earlier owner's, now that all job servers have reported since our last change."""
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
        """Note that this job server may have tasks of it."""
        if address not in self.where:
            self.where = (*self.where, address)

    def forget(self, address: Address) -> None:
        """Note that this job server has no tasks of it, as far as is known."""
        self.where = tuple(each for each in self.where if each != address)


class Permit:
    """Leave for a slot to ask a job server for one job of a key.

    Attributes:
        line: the key's tasks in the queue.
        address: the job server to ask.
        is_booked: whether it uses one of the starts that were written ahead.
        has_job: whether the job has come.
    """

    __slots__ = ("address", "has_job", "is_booked", "line")

    def __init__(self, line: Line, address: Address, *, is_booked: bool = False) -> None:
        self.line = line
        self.address = address
        self.is_booked = is_booked
        self.has_job = False


class Keys:
    """All keys that are known, by their names."""

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
        """The key of this name; it is known from now on."""
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = Key(name)
            key.use(find_limit(self._limits, name))
        return key

    def shrink(self, now: float) -> None:
        """Forget the keys of which nothing waits, runs or counts for a rate."""
        for key in [each for each in self if not each.lines]:
            key.wait(now)
            if not key.starts:
                del self._keys[key.name]

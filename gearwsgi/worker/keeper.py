"""Keeps the next tick of each entry of the schedule queued. How a tick comes to run once, and only once:

There is no leader. Each supervisor queues the next tick of each entry ahead of time, as a delayed job whose unique
follows from entry and tick. While a job of that unique waits or runs, the job server takes a second one for the same:
however many supervisors there are, there is one job. Once it has run, the unique is free again, and only these rules
keep a tick from being queued a second time. They hold as long as no two clocks, those of the job servers included,
are more than `SKEW` apart:

1. More than `MARGIN` before the tick by our clock, no clock has come to the tick, so it can't have run: queue it.
2. Less than that before it, a tick that we have queued stays as it is. One that we have not queued (this supervisor is
   new, or the job server came back and has forgotten it) may have run already, by a clock that is ahead of ours. If so,
   the tick after it is queued by now: by whoever took the job, or by whoever's clock has passed the tick. So the job
   server is asked for that next tick. Where it has it, our tick has come and is left alone. It is asked `SETTLED`
   seconds after the connection stands, when others have had the time to queue again what it may have lost.
3. Less than `AHEAD` before the tick, and after it, the tick is not queued any more.

Each entry has a job server of its own. Where that one is away for longer than `GRACE`, the entry goes to the next one.
A tick that is queued stays where it is: less than `MARGIN` before it, it goes nowhere else, and only the tick after it
goes back to the entry's own job server. A job server that comes back may bring a tick that is queued elsewhere by now.
That job is a copy: a supervisor that takes it, and has itself queued the tick elsewhere, does not run it.

So a tick is lost only where nobody was there to queue it in time, or where its job server dies within `MARGIN` and
`GRACE` of it and keeps nothing. And a second job of one tick can be queued only where more comes together than clocks
that differ:

- Within seconds of a tick that ran before its time by our clock, its job server is started again and has kept nothing,
  and a new supervisor asks before any older one has queued the next tick again.
- Of several job servers one dies so shortly before `MARGIN` that some supervisors still move the tick and others don't
  any more, or all supervisors that have moved it are gone; and then that job server comes back with what it had.

Where there are records, `rivals` sees to it that even then only one of the two jobs runs; where there are none, it does
so if the same supervisor takes both.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from .. import log
from ..errors import GearwsgiError, ServerUnavailable
from ..settings import Settings
from ..submit.ticks import Plan
from ..wire.payload import Submission, make_unique

AHEAD = 5.0
"""Seconds before a tick, up to which it may be queued."""
SKEW = 30.0
"""Seconds that two clocks may differ."""
MARGIN = SKEW + AHEAD
"""Seconds before a tick up to which it can't have run, whatever the clocks say: see the module."""
SETTLED = 2.0
"""Seconds after which a job server that came back has again what it had lost: as long as supervisors need to
reconnect."""
GRACE = 10.0
"""Seconds that a job server may be away before its entries go to another one."""
_REMEMBERED = 100
"""How many ticks of an entry it is remembered for where they were queued."""


class Servers(Protocol):
    """The job servers, as far as the keeper needs them."""

    def order(self, name: str) -> Sequence[str]:
        """All of them, in the order in which this entry is to go to them."""
        ...

    def is_up(self, server: str) -> bool:
        """Whether this one is there."""
        ...

    def lost(self) -> set[str]:
        """The job servers to which a connection was lost, or was not to be had, since the last call."""
        ...

    def submit(self, server: str, submission: Submission) -> None:
        """Queue a job on this one.

        Raises:
            GearwsgiError: it could not be.
        """
        ...

    def knows(self, server: str, unique: str) -> bool:
        """Whether a job of this unique waits or runs there.

        Raises:
            ServerUnavailable: it does not answer.
        """
        ...


class _Kept:
    """An entry of the schedule, and what is known of its ticks.

    Attributes:
        plan: the entry.
        tick: the next one, by our clock and by what we have seen.
        is_queued: whether its job is on a job server, as far as we know.
        passed: Unix time of the last tick that is known to have come, by whatever clock.
        places: which job server each of the last ticks was queued on, by the tick's Unix time.
        begun: whether it was found out if another supervisor was there before; asked where missed ticks matter.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tick: datetime | None = None
        self.is_queued = False
        self.passed = 0.0
        self.places: dict[float, str] = {}
        self.begun = plan.missed == "skip"


class Missed(NamedTuple):
    """Ticks that no supervisor was there for: the first and the last of them."""

    name: str
    first: datetime
    last: datetime


class Keeper:
    """Keeps the next tick of each entry queued: see the module. For one thread, but for `came` and `missed`.

    Args:
        settings: the middleware's.
        plans: the entries.
        servers: the job servers.
        clock: answers the time; in a test, the test's time.
        look_back: asked for the ticks that an entry has missed, where no supervisor was there before and the entry's
            `missed` is "once"; it answers through `missed`, some time later.
    """

    def __init__(
        self,
        settings: Settings,
        plans: Mapping[str, Plan],
        servers: Servers,
        clock: Callable[[], float],
        look_back: Callable[[Plan, float], None] = lambda plan, now: None,
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._clock = clock
        self._look_back = look_back
        self._missed: deque[Missed] = deque()
        self._entries = {name: _Kept(plan) for name, plan in plans.items()}
        self._began = clock()
        self._remembering = threading.Lock()
        self._lost_at: dict[str, float] = {}
        self._down_since: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def adopt(self, before: "Keeper") -> None:
        """Take over from an earlier keeper what it knows of entries that have not changed."""
        self._began, self._lost_at, self._down_since = before._began, before._lost_at, before._down_since
        for name, kept in before._entries.items():
            if name in self._entries and self._entries[name].plan == kept.plan:
                self._entries[name] = kept
                here = self._servers.order(name)  # there may be other job servers now
                kept.places = {tick: place for tick, place in kept.places.items() if place in here}
                kept.is_queued = kept.is_queued and bool(self._place(kept))

    def came(self, name: str, tick: float, server: str) -> str:
        """Note that this supervisor has taken the job of a tick, so that it is due by some clock.

        Returns:
            The job server that the tick was queued on. Where that is another one than `server`, this job is a copy.
        """
        kept = self._entries[name]
        with self._remembering:
            place = kept.places.setdefault(tick, server)
        if place == server and tick <= self._clock() + SKEW:
            kept.passed = max(kept.passed, tick)
        return place

    def missed(self, found: Missed) -> None:
        """Note ticks that an entry has missed: one runs for all of them, unless one of them is queued and only late."""
        self._missed.append(found)

    def step(self) -> None:
        """Queue all that is to be queued by now."""
        now = self._clock()
        for server in self._servers.lost():
            self._lost_at[server] = now
            self._down_since.setdefault(server, now)
            for kept in self._entries.values():
                if kept.tick is not None and kept.places.get(kept.tick.timestamp()) == server:
                    kept.is_queued = False
        self._down_since = {each: at for each, at in self._down_since.items() if not self._servers.is_up(each)}
        for kept in self._entries.values():
            self._try(kept.plan.name, partial(self._keep, kept, now))
        for _ in range(len(self._missed)):
            found = self._missed.popleft()
            if found.name in self._entries and not self._try(found.name, partial(self._catch_up, found, now)):
                self._missed.append(found)

    def _try(self, name: str, do: Callable[[], None]) -> bool:
        """Call `do`; whether it went well. A failure that repeats is logged once."""
        try:
            do()
        except GearwsgiError as error:
            text = f"schedule: {name} can't be queued, trying again: {error}"
            if self._said.get(name) != text:
                self._said[name] = text
                log.note(text)
            return False
        self._said.pop(name, None)
        return True

    def _keep(self, kept: _Kept, now: float) -> None:
        plan, base = kept.plan, max(now, kept.passed)
        if kept.tick is None or kept.tick.timestamp() <= base:
            self._pass(kept)
            kept.tick, kept.is_queued = plan.cron.after(base), False
        if kept.is_queued:
            return
        tick, up = kept.tick, [each for each in self._servers.order(plan.name) if self._servers.is_up(each)]
        if up and not kept.begun:
            kept.begun = True
            if not self._where(plan, tick, up) and not self._has_come(plan, tick, up):
                self._look_back(plan, now)
        left = tick.timestamp() - now
        if left <= AHEAD or not up:
            return
        known = self._where(plan, tick, up) if len(up) > 1 else ""
        server = known or (self._near(kept, now, up) if left <= MARGIN else self._far(kept, now, up))
        if not server:
            return
        if left <= MARGIN and not known and self._has_come(plan, tick, up):
            kept.passed = tick.timestamp()
            self._keep(kept, now)
            return
        if not known:
            self._servers.submit(server, plan.submission(tick, self._settings, now))
        kept.is_queued = True
        with self._remembering:
            kept.places[tick.timestamp()] = server
            while len(kept.places) > _REMEMBERED:
                del kept.places[min(kept.places)]

    def _place(self, kept: _Kept) -> str:
        """The job server that the next tick was queued on by this supervisor; empty: on none."""
        assert kept.tick is not None
        return kept.places.get(kept.tick.timestamp(), "")

    def _far(self, kept: _Kept, now: float, up: Sequence[str]) -> str:
        """The job server for a tick that can't have come yet: the one that has it, or the one that its entry goes to.

        One that is away may soon be back, with all that it had: for a while it is waited for.
        """
        first = self._place(kept) or self._servers.order(kept.plan.name)[0]
        if first in up:
            return first
        return up[0] if now - self._down_since.get(first, now) >= GRACE else ""

    def _near(self, kept: _Kept, now: float, up: Sequence[str]) -> str:
        """The job server for a tick that may have come: the one that may have it, where that is there and settled."""
        first = self._place(kept) or self._servers.order(kept.plan.name)[0]
        settled = max(self._began, self._lost_at.get(first, self._began)) + SETTLED
        return first if first in up and now >= settled else ""

    def _pass(self, kept: _Kept) -> None:
        """Log it if the next tick, which is past, was not queued."""
        tick = kept.tick
        if tick is not None and not self._place(kept) and tick.timestamp() > kept.passed:
            log.note(f"schedule: the tick {tick.isoformat()} of {kept.plan.name} was not queued in time")

    def _has_come(self, plan: Plan, tick: datetime, up: Sequence[str]) -> bool:
        """Whether the tick after this one is queued, which means that by some clock this one has come."""
        return bool(self._where(plan, plan.cron.after(tick.timestamp()), up))

    def _where(self, plan: Plan, tick: datetime, up: Sequence[str]) -> str:
        """The first job server where a tick's job waits or runs; empty: none has it."""
        unique = make_unique(plan.id(tick, self._settings), 1)
        return next((server for server in up if self._servers.knows(server, unique)), "")

    def _catch_up(self, found: Missed, now: float) -> None:
        """Queue the last one of the ticks that were missed."""
        kept = self._entries[found.name]
        up = [each for each in self._servers.order(found.name) if self._servers.is_up(each)]
        if not up:
            raise ServerUnavailable("no job server is there")
        late = any(self._where(kept.plan, tick, up) for tick in (found.first, found.last))
        if late or kept.passed >= found.first.timestamp():
            return
        self._servers.submit(up[0], kept.plan.submission(found.last, self._settings, now, is_due=True))
        kept.places[found.last.timestamp()] = up[0]
        log.note(f"schedule: {found.name} was missed, and is queued for {found.last.isoformat()}")

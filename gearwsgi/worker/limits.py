"""The gate: decides which slot of a supervisor may ask a job server for a job of a limited key, and when.

The tasks of a key wait in a queue of their own, `job#stripe:42`. A slot asks the gate before it grabs. Where some key
has tasks that wait, and room for one, the slot gets a permit for it: it tells the job server that it serves the key's
queue alone, asks for one job, and for nothing else until that job has ended or there was none. So no more jobs of a key
are taken than may run, and none lies ahead in a process. While tasks without a key wait too, a slot that has had a
permit takes one of those first.

What is counted are the permits that are given out. Only one supervisor owns a key at a time (see `Ownership`). Before a
task of a key with a rate begins, its owner has written to the records that it is about to.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Protocol

from ..address import Address
from ..message.limits import Limit, change, split_queue
from ..settings import Settings
from .keys import GRACE, PROBE, PROBE_MAX, Keys, Line, Permit
from .steering import Steering
from .turns import Turns
from .watch import Answer, Watch

SETTLED = 1.0
"""Seconds after which a job server surely knows what a slot has told it."""
MOST_AHEAD = 100
"""How many starts of a key are written ahead, at most."""


Booked = Callable[[Line, int, float], None]
"""Called with the key's tasks in a queue, how many of them may start, and until when."""


class Ownership(Protocol):
    """Says which keys are this supervisor's."""

    @property
    def is_settled(self) -> bool:
        """Whether it is known by now which keys are."""
        ...

    def since(self, queue: str, key: str) -> float | None:
        """Since when a key's queue is ours, by `time.monotonic`; None: it is not ours now."""
        ...

    def tend(self, queues: Collection[str], keys: Keys) -> None:
        """Do what is due by now.

        Args:
            queues: the queues that are served here.
            keys: what is known of the keys.
        """
        ...

    def book(self, line: Line, number: int, then: Booked) -> None:
        """Write to where other supervisors see it that so many tasks of a key are about to start; then they may.

        Args:
            line: the key's queue.
            number: how many.
            then: called in the loop, now or later.
        """
        ...

    def close(self, keys: Keys) -> None:
        """Own nothing any more; nothing that this supervisor has begun still runs."""
        ...


class Alone:
    """Records are off: all keys are ours, once nothing of an earlier supervisor can run any more."""

    def __init__(self) -> None:
        self._since = time.monotonic() + GRACE

    @property
    def is_settled(self) -> bool:
        """See `Ownership`."""
        return time.monotonic() >= self._since

    def since(self, queue: str, key: str) -> float | None:
        """See `Ownership`."""
        return self._since if self.is_settled else None

    def tend(self, queues: Collection[str], keys: Keys) -> None:
        """See `Ownership`."""

    def book(self, line: Line, number: int, then: Booked) -> None:
        """See `Ownership`: there is nobody who would have to know."""
        then(line, number, math.inf)

    def close(self, keys: Keys) -> None:
        """See `Ownership`."""


class Gate:
    """Gives out permits: see the module. Only to be called in the loop.

    Args:
        steering: says which queues are paused.
        ownership: says which keys are this supervisor's.
        tell: has a function called in the loop; may be called from any thread.
        stir: has the slots look whether they may have a permit.
    """

    def __init__(
        self,
        steering: Steering,
        ownership: Ownership,
        tell: Callable[[Callable[[], None]], None],
        stir: Callable[[], None],
    ) -> None:
        self._stir = stir
        self._steering = steering
        self._ownership = ownership
        self._tell = tell
        self._given: Sequence[Limit] = ()
        self._changed: Mapping[str, Limit] = {}
        self._watches: dict[Address, Watch] = {}
        self._heard: dict[Address, float] = {}
        self._keys = Keys()
        self._lines: dict[str, Line] = {}
        self._turns = Turns()
        self._later: list[tuple[float, str]] = []
        self._queues: Collection[str] = ()
        self._settled_at = time.monotonic()

    def use(self, settings: Settings) -> None:
        """Go by these settings from now on."""
        self._given = settings.limits
        for address in set(self._watches) - set(settings.servers):
            self._watches.pop(address).stop()
            self._heard.pop(address, None)
        for address in settings.servers:
            if address not in self._watches:
                self._watches[address] = Watch(address, self._tell, self._hear)
        self._go_by_limits()

    def _go_by_limits(self) -> None:
        """Go by the limits of the settings, with what was changed of them at run time."""
        self._changed = self._steering.limits
        self._keys.use(change(self._given, self._changed))
        for line in self._lines.values():
            self._offer(line)

    def close(self) -> None:
        """Stop asking job servers what waits."""
        for watch in self._watches.values():
            watch.stop()
        self._ownership.close(self._keys)

    def tick(self, now: float, queues: Collection[str]) -> None:
        """Do what is due by now; `queues` are the queues that are served here."""
        if self._steering.limits is not self._changed:
            self._go_by_limits()
        for watch in self._watches.values():
            watch.tend()
        self._queues = queues
        self._ownership.tend(queues, self._keys)
        if not self._ownership.is_settled:
            self._settled_at = now
        while self._later and self._later[0][0] <= now:
            _, function = heappop(self._later)
            line = self._lines.get(function)
            if line is not None:
                self._offer(line)
        self.look()

    def look(self) -> None:
        """Have the slots look for permits, where some may be had."""
        if self._turns.has_any():
            self._stir()

    def is_idle(self) -> bool:
        """Whether every job server that answers has reported that no key of ours has anything to run."""
        is_known = self._ownership.is_settled and len(self._heard) == len(self._watches)
        is_known = is_known and min(self._heard.values()) > self._settled_at
        return is_known and not any(line.where or line.out for line in self._lines.values())

    # -- slots -------------------------------------------------------------------------------------------------------

    def has_place(self, queues: Iterable[str]) -> bool:
        """Whether a slot that serves these queues might get a permit."""
        return any(map(self._turns.has_any, queues))

    def take_permit(self, queues: Iterable[str], servers: Collection[Address]) -> Permit | None:
        """A permit for a slot that serves these queues and is connected to these job servers; keys take turns."""
        now = time.monotonic()
        for queue in queues:
            self._write_ahead(queue, servers, now)
            passed: list[Line] = []
            permit = None
            while permit is None and (line := self._turns.take(queue)) is not None:
                address = next((each for each in line.where if each in servers), None)
                if address is None:
                    passed.append(line)
                elif line.key.rate is not None and not line.booked(now):
                    self._offer(line)
                elif self._has_room(line, now):
                    permit = Permit(line, address, is_booked=line.key.rate is not None)
            for line in passed:
                self._turns.add(line, now)
            if permit is not None:
                permit.line.change(1, now)
                permit.line.asked += 1
                permit.line.may_start -= permit.is_booked
                self._offer(permit.line)
                return permit
        return None

    def _write_ahead(self, queue: str, servers: Collection[Address], now: float) -> None:
        """Write ahead, of the next keys with a rate, that tasks are about to start: as many as may."""
        passed: list[Line] = []
        while (line := self._turns.take_unwritten(queue)) is not None:
            if not any(each in servers for each in line.where):
                passed.append(line)
            elif not line.is_booking and self._has_room(line, now):
                waiting = sum(count.waiting for count in line.counted.values())
                number = min(line.key.free(now), MOST_AHEAD, max(1, waiting))
                if number > 0:
                    line.is_booking = True
                    self._turns.writing += 1
                    self._ownership.book(line, number, self._booked)
                else:
                    self._put_off(line, now + PROBE)  # those that may start in another queue come first
        for line in passed:
            self._turns.add(line, now)

    def came(self, permit: Permit) -> bool:
        """Note that the job of a permit has come; whether it may run: the key may be another supervisor's by now."""
        key = permit.line.key
        permit.line.asked -= 1
        permit.has_job = True
        permit.line.again = permit.line.pause = 0.0
        if self._ownership.since(permit.line.queue, key.name) is None:
            return False
        if key.rate is not None:
            key.starts.append((time.monotonic(), permit.line.queue))
        return True

    def release(self, permit: Permit) -> None:
        """Take back a permit: its job has ended, or none came."""
        line, now = permit.line, time.monotonic()
        line.change(-1, now)
        if not permit.has_job:
            line.asked -= 1
            line.may_start += permit.is_booked
            line.forget(permit.address)
            line.pause = min(PROBE_MAX, 2 * line.pause or PROBE)
            line.again = now + line.pause
        for each in line.key.lines:
            self._offer(each)

    def _has_room(self, line: Line, now: float) -> bool:
        """Whether one more may start. Where only time will help, set when to look again."""
        key = line.key
        since = self._ownership.since(line.queue, key.name)
        paused = self._steering.paused
        if since is None or line.queue.encode() in paused or line.function.encode() in paused:
            return False
        before = line.before
        if before is None or before.since != since:
            if not all(heard > since for heard in self._heard.values()) or len(self._heard) < len(self._watches):
                return False
            before = line.take(since, now)
        if key.is_full() or (before.running and now - before.looked_at > GRACE):
            return False
        wait = key.wait(now)
        if wait > 0:
            self._put_off(line, now + wait)
        return wait <= 0

    def _put_off(self, line: Line, until: float) -> None:
        """Look at these tasks, and at their key, again at that time."""
        line.key.later = until
        heappush(self._later, (until, line.function))

    def _booked(self, line: Line, number: int, until: float) -> None:
        """Note that so many starts are written ahead."""
        line.is_booking = False
        self._turns.writing -= 1
        if number:
            line.may_start, line.may_start_until = number, until
            self._offer(line)
            self._tell(self.look)

    def _offer(self, line: Line) -> None:
        """Have the slots ask for a job of it, where that may be of use."""
        now = time.monotonic()
        if line.where and not line.key.is_full() and now >= line.key.later:
            self._turns.add(line, now)

    # -- job servers -------------------------------------------------------------------------------------------------

    def _hear(self, address: Address, asked_at: float, answer: Answer) -> None:
        """Take in what a job server has reported."""
        if address not in self._watches:
            return
        now = time.monotonic()
        self._heard[address] = asked_at
        said = answer or {}
        for function, count in said.items():
            line = self._lines.get(function) or self._find(function)
            if line is not None:
                before = line.counted.get(address)
                line.counted[address] = count
                if count.waiting and (now >= line.again or before is None or count.waiting > before.waiting):
                    line.may_ask(address)
                    self._offer(line)
        settled = min(self._heard.values()) - SETTLED
        for function, line in list(self._lines.items()):
            if function not in said:
                line.counted.pop(address, None)
                line.forget(address)
            if line.changed_at < settled:
                if line.foreign:
                    line.count_foreign(now)
                if not (line.counted or line.out or line.foreign):
                    self._forget(line)
        self._keys.shrink(now)
        self.look()

    def _find(self, function: str) -> Line | None:
        """The line of a key that is not known just now, where it is ours."""
        queue, name = split_queue(function)
        if queue not in self._queues or self._ownership.since(queue, name) is None:
            return None
        line = self._lines[function] = Line(function, self._keys.find(name))
        return line

    def _forget(self, line: Line) -> None:
        """Note that nothing of it waits or runs."""
        del self._lines[line.function]
        self._turns.remove(line)
        line.key.lines.remove(line)

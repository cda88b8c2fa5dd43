"""The schedule in the test kit: its ticks come when the test moves the clock."""

import time
from datetime import datetime
from functools import cached_property

from ..errors import UnknownEntry
from ..message.targets import nearest
from ..submit.ticks import Plan, plan_all
from .memory import Memory


class Schedule:
    """An application's schedule inside `capture`. `Tasks.advance` runs its ticks.

    Args:
        memory: the queue, whose clock counts.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    @cached_property
    def _plans(self) -> dict[str, Plan]:
        return plan_all(self._memory.settings) if self._memory.settings.schedule else {}

    def next(self, name: str) -> datetime:
        """The next tick of an entry after the queue's time, in the entry's time zone.

        Raises:
            UnknownEntry: there is none of that name.
        """
        if name not in self._plans:
            known = ", ".join(self._plans) or "none"
            raise UnknownEntry(f"no entry {name!r} in the schedule{nearest(name, self._plans)}; it has: {known}")
        return self._plans[name].cron.after(self._memory.clock.now())

    def first(self, until: float) -> float | None:
        """Unix time of the first tick of any entry up to a time; None: there is none."""
        ticks = [self.next(name).timestamp() for name in self._plans]
        return min((tick for tick in ticks if tick <= until), default=None)

    def move_to(self, at: float) -> None:
        """Move the clock to the first of all ticks up to `at`, and queue the tasks that are due then."""
        due = [plan for name, plan in self._plans.items() if self.next(name).timestamp() == at]
        self._memory.clock.advance(at - self._memory.clock.now())
        settings = self._memory.settings
        for plan in due:
            tick = plan.cron.local(at)
            if plan.overlap or not plan.earlier(self._memory.queue.find_uniques(""), tick, settings):
                self._memory.submit((plan.submission(tick, settings, time.time(), is_due=True),))

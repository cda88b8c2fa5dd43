"""The schedule for people: an entry's next ticks and its last one; run one now, pause, resume. For command and
dashboard."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from ..errors import UnknownEntry, UnknownTask
from ..message.targets import nearest
from ..state.records.opening import reading
from ..state.records.steering import PAUSE_ENTRY
from ..state.records.store import Store
from ..state.records.ticks import LastTick, last_ticks
from .actions import Actions, Done
from .client import Client
from .ticks import Plan, plan_all

_NEXT = 3
"""Ticks of an entry that are shown."""


@dataclass(frozen=True, slots=True)
class Item:
    """An entry of the schedule, as it is shown.

    Attributes:
        name: its name.
        service: what it calls.
        cron: the expression.
        timezone: its zone's name.
        next: its next ticks, in its zone.
        last: its last tick that a supervisor has seen; None where there was none, or records are off.
        task: the id of that tick's task.
        state: the state of that task, as its record has it; None where there is none.
        reason: the reason of that state.
        paused: whether its ticks are not run.
    """

    name: str
    service: str
    cron: str
    timezone: str
    next: list[datetime]
    last: datetime | None
    task: str | None
    state: str | None
    reason: str | None
    paused: bool


class Agenda:
    """The schedule of an application.

    Args:
        client: its middleware's, where the application is.
        by: who asks, for what is told of a pause.
    """

    def __init__(self, client: Client, by: str = "") -> None:
        self._client = client
        self._plans: Mapping[str, Plan] = plan_all(client.settings)
        self._actions = Actions(client, by)

    def items(self) -> list[Item]:
        """All entries, in their order.

        Raises:
            RecordsUnavailable: their database is away.
        """
        now = time.time()
        if not self._client.settings.records:
            return [_item(plan, now, None, None, False) for plan in self._plans.values()]
        with reading(self._client.settings) as store:
            last = last_ticks(store.database) if store is not None else {}
            paused = {each.name: each for each in store.steering.pauses(PAUSE_ENTRY)} if store is not None else {}
            return [_item(plan, now, store, last.get(name), name in paused) for name, plan in self._plans.items()]

    def run(self, name: str) -> tuple[str, str]:
        """Queue an entry's task now, whether it is paused or not; the task's id, and its handle, empty in the outbox.

        Raises:
            UnknownEntry: there is none of that name.
            ServerUnavailable: no job server answers, and the outbox is off.
        """
        plan = self._named(name)
        now = time.time()
        submission = plan.submission(plan.cron.local(int(now)), self._client.settings, now, is_due=True)
        (receipt,) = self._client.submit((submission,))
        return submission.id, receipt.handle

    def pause(self, name: str) -> Done:
        """Have an entry's ticks not run.

        Raises:
            UnknownEntry: there is none of that name.
            RecordsUnavailable: records are off, or their database is away.
        """
        return self._actions.pause(self._named(name).name, kind=PAUSE_ENTRY)

    def resume(self, name: str) -> Done:
        """Have an entry's ticks run again.

        Raises:
            UnknownEntry, RecordsUnavailable: as `pause`.
        """
        return self._actions.resume(self._named(name).name, kind=PAUSE_ENTRY)

    def _named(self, name: str) -> Plan:
        if name not in self._plans:
            known = ", ".join(self._plans) or "none"
            raise UnknownEntry(f"no entry {name!r} in the schedule{nearest(name, self._plans)}; it has: {known}")
        return self._plans[name]


def _item(plan: Plan, now: float, store: Store | None, last: LastTick | None, paused: bool) -> Item:
    state = reason = None
    has_come = last is not None and last.task is not None
    if store is not None and last is not None and last.task is not None:
        try:
            record = store.find(last.task)
            state, reason = record.state, record.reason
        except UnknownTask:
            pass  # not written yet, or so old that it was removed
    return Item(
        plan.name, plan.service, plan.cron.expression, plan.cron.timezone, list(islice(plan.cron.ticks(now), _NEXT)),
        plan.cron.local(last.at) if last is not None and has_come else None, last.task if last is not None else None,
        state, reason, paused,
    )  # fmt: skip

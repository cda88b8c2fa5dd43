"""Which job of a tick is the one that runs, and which supervisor has the entry that a tick is of.

Two jobs of one tick are rare: see `keeper`. The first that comes to run has it, by the memory of the supervisor that
took it and, where there are records, by those, for all who share them. An attempt after the first is no second job,
nor is what a job server hands out again: it brings the same bytes.
"""

import hashlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import log
from ..message.model import MAX_HEAD, Message
from ..settings import Settings
from ..state.records import ticks
from ..state.status import FRESH, read_all
from ..submit.ticks import Plan, tick_id
from .recorder import Recorder

if TYPE_CHECKING:  # with its database
    from ..state.records.store import Store

_REMEMBERED = 10_000
"""Ticks that have come here, of which it is remembered which job was theirs."""


class Rivals:
    """See the module.

    Args:
        recorder: asks the records.
        has_records: whether there are any.
    """

    def __init__(self, recorder: Recorder, has_records: bool) -> None:
        self.has_records = has_records
        self._recorder = recorder
        self._came: dict[tuple[str, int], str] = {}
        self._is_blind = False

    def came(self, plan: Plan, tick: float, job: str) -> str:
        """A tick's job has come to this supervisor: the one that has the tick, as far as we know. The loop's."""
        first = self._came.setdefault((plan.name, int(tick)), job)
        if len(self._came) > _REMEMBERED:
            del self._came[next(iter(self._came))]
        return first

    def begin(self, plan: Plan, tick: float, task: str, job: str) -> str:
        """The same, as far as the records know: for a thread that may wait.

        Where they are away the job has it: a tick that does not run is worse, and two jobs of one are rare.
        """
        question = partial(_begin, name=plan.name, queue=plan.queue, at=tick, task=task, job=job)
        first = self._recorder.ask(question)
        if first is None and not self._is_blind:
            log.note("schedule: the records are away: ticks run, and nobody sees to it that none of them does twice")
        self._is_blind = first is None
        return job if first is None else first


def _begin(store: "Store", **values: Any) -> str:
    return ticks.begin(store.database, **values)


def name_job(task: Message, payload: bytes) -> str:
    """What tells a tick's job from another one of the same tick: the task's id, and a digest of its message."""
    # Who queues a tick writes into its head when that was.
    return f"{task.id}:{hashlib.blake2b(payload[:MAX_HEAD], digest_size=8).hexdigest()}"


def is_kept_elsewhere(task: Message, recorder: Recorder, settings: Settings) -> bool:
    """Whether another supervisor that works has the entry of this tick as it was queued: for a thread that may wait."""
    assert task.scheduled is not None
    for about in _others(recorder, settings):
        fingerprint = about.get("schedule", {}).get(task.entry, "")
        is_same = tick_id(task.entry, fingerprint, task.scheduled, settings) == task.id
        if is_same and not about["stopping"]:
            return True
    return False


def _others(recorder: Recorder, settings: Settings) -> Iterator[dict[str, Any]]:
    """What the other supervisors say of themselves: those of this state directory, and of the records."""
    ours = os.getpid()
    yield from (about for about in read_all(settings.state_dir) if about["fresh"] and about["pid"] != ours)
    here = socket.gethostname()
    for each in recorder.ask(lambda store: store.fleet()) or ():
        if each.silent < FRESH and (each.about.get("host"), each.about.get("pid")) != (here, ours):
            yield each.about

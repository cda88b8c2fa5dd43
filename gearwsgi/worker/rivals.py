"""Decides which of several jobs of the same tick runs; and looks which supervisor has the entry that a tick is of.

Two jobs of one tick are rare: `keeper` says when it happens. The first one that comes to run has the tick: this
supervisor remembers that and, where there are records, they do, for all supervisors that share them. A later attempt of
the same job is no rival, nor is a job that the job server hands out again: its bytes are the same.
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

if TYPE_CHECKING:  # not imported with records off: it brings the database
    from ..state.records.store import Store

_REMEMBERED = 10_000
"""How many ticks it is remembered for which of their jobs has run here."""


class Rivals:
    """Decides which job has a tick.

    Args:
        recorder: what asks the records.
        has_records: whether records are on.
    """

    def __init__(self, recorder: Recorder, has_records: bool) -> None:
        self.has_records = has_records
        self._recorder = recorder
        self._came: dict[tuple[str, int], str] = {}
        self._is_blind = False

    def came(self, plan: Plan, tick: float, job: str) -> str:
        """The job that has the tick as far as this supervisor knows: `job`, unless one came before. For the loop."""
        first = self._came.setdefault((plan.name, int(tick)), job)
        if len(self._came) > _REMEMBERED:
            del self._came[next(iter(self._came))]
        return first

    def begin(self, plan: Plan, tick: float, task: str, job: str) -> str:
        """The job that has the tick as far as the records know. For a thread that may wait.

        Where the records are away, `job` has it: a tick that does not run would be worse, and two of its jobs are rare.
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
    """A name for a job that no other job of the same tick has: the task's id, and a digest of its message."""
    # The digest differs because whoever queues a tick writes the time of that into its head.
    return f"{task.id}:{hashlib.blake2b(payload[:MAX_HEAD], digest_size=8).hexdigest()}"


def is_kept_elsewhere(task: Message, recorder: Recorder, settings: Settings) -> bool:
    """Whether another supervisor, that is alive, has this tick's entry unchanged. For a thread that may wait."""
    assert task.scheduled is not None
    for about in _others(recorder, settings):
        fingerprint = about.get("schedule", {}).get(task.entry, "")
        is_same = tick_id(task.entry, fingerprint, task.scheduled, settings) == task.id
        if is_same and not about["stopping"]:
            return True
    return False


def _others(recorder: Recorder, settings: Settings) -> Iterator[dict[str, Any]]:
    """What the other supervisors report of themselves: those of this state directory, and those in the records."""
    ours = os.getpid()
    yield from (about for about in read_all(settings.state_dir) if about["fresh"] and about["pid"] != ours)
    here = socket.gethostname()
    for each in recorder.ask(lambda store: store.fleet()) or ():
        if each.silent < FRESH and (each.about.get("host"), each.about.get("pid")) != (here, ours):
            yield each.about

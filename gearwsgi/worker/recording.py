"""Writes to the records what happens to a supervisor's jobs: noted in the loop, written by a thread of its own.

A job's fate never depends on any of this.
"""

import queue
import socket
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

from ..errors import BadMessage
from ..message import reading
from ..policy import Outcome
from ..settings import Settings
from ..state.records import model
from ..state.records.facts import Facts, read_about, read_facts, read_usual
from ..state.records.pending import Change, Finished
from ..state.records.rows import (
    ENDED,
    MAX_PATH,
    MAX_REASON,
    QUEUED,
    RUNNING,
    Row,
    clean,
    clean_id,
    place,
    whole,
)
from ..state.records.steering import Request
from ..state.records.store import Store
from ..state.records.writer import Writer
from ..wire.payload import Grabbed, own_id
from .held import Held, Notes
from .recorder import FIRST_LOOK, Recorder

T = TypeVar("T")
_ENDS_ATTEMPT = frozenset({model.RETRYING, model.DONE, model.DEAD, model.CANCELLED})
SMALL = 2000
"""Bytes up to which a message counts as small."""
PATIENCE = 3.0
"""Seconds that a question to the records waits for its answer."""

_one_of = lru_cache(maxsize=1000)(str)
"""The same text as one seen before, where it is equal, so that it is kept once. Not `sys.intern`: in Python 3.12.0 to
3.12.6 that keeps every text for ever, and each path may be a new one."""


class Clock:
    """Turns times of `time.monotonic` into Unix time. For one thread."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._until = 0.0

    def offset(self) -> float:
        """Seconds to add to a monotonic time; measured anew after a tenth of a second."""
        now = time.monotonic()
        if now >= self._until:
            self._until = now + 0.1
            self._offset = min(self._read() for _ in range(5))[1]
        return self._offset

    @staticmethod
    def _read() -> tuple[float, float]:
        """One look at both clocks; first, how long it took: one that was interrupted half-way is not to be used."""
        before = time.monotonic()
        wall = time.time()
        took = time.monotonic() - before
        return took, wall - before - took / 2


class Recording(Recorder):
    """The recorder that writes: records are on.

    Args:
        settings: the middleware's.
        name: the supervisor's name, as the job servers' `workers` shows it.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        super().__init__()
        self._settings = settings
        self._host = socket.gethostname()
        self._name = f"{name}:{time.time_ns():x}"
        self.writer = Writer(settings, self._name, self._done)
        self._clock = Clock()
        self._first_look_until = time.monotonic() + FIRST_LOOK
        self.writer.start()

    @property
    def dropped(self) -> int:
        """How many records were not written, and never will be."""
        return self.writer.dropped

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are paused."""
        return frozenset(each.name for each in self.writer.requests if each.kind == "pause")

    def running(self, held: Held) -> None:
        """A job has run for a while, or tells how far it is."""
        self._put(held, partial(self._row, state=model.RUNNING))

    def done(self, held: Held) -> None:
        """A job has gone well."""
        self._counts["done"] += 1
        if held.notes is None and len(held.job.payload) <= SMALL:
            self.writer.happened.put_small(held)
        else:
            self._put(held, partial(self._row, state=model.DONE))

    def answered(self, held: Held, status: int, reason: str) -> None:
        """A `call()` that failed got a response of the queue's own: nothing more will come of it."""
        self._counts["done"] += 1
        outcome = Outcome("response", status=status)
        self._put(held, partial(self._row, state=model.DONE, outcome=outcome, reason=reason))

    def retried(self, held: Held, outcome: Outcome, reason: str, due: float) -> None:
        """A job has failed, and its next attempt is queued."""
        self._counts["retried"] += 1
        self._put(held, partial(self._row, state=model.RETRYING, outcome=outcome, reason=reason, due=due))

    def continued(self, held: Held, due: float) -> None:
        """A job has done a part of its work, and the rest is queued: one attempt still."""
        state = model.SCHEDULED if due else model.QUEUED
        self._put(held, partial(self._row, state=state, due=due))

    def dead(self, held: Held, outcome: Outcome, reason: str, letter: tuple[str, str], *, trusted: bool) -> None:
        """A job has failed for good: see the base."""
        self._counts["dead"] += 1
        make = self._row if trusted else self._untrusted
        self._put(held, partial(make, state=model.DEAD, outcome=outcome, reason=reason, letter=letter))

    def cancelled(self, held: Held, reason: str) -> None:
        """A job was ended, or not even started, because its task is cancelled."""
        self._counts["cancelled"] += 1
        self._put(held, partial(self._row, state=model.CANCELLED, reason=reason))

    def requests(self) -> Sequence[Request] | None:
        """The requests to supervisors as of the last look; where the first takes long, those remembered from before."""
        is_known = self.writer.has_looked.is_set() or time.monotonic() > self._first_look_until
        return self.writer.requests if is_known else None

    def withdraw(self, request: Request) -> None:
        """Note that a request was fulfilled."""
        self.writer.withdraw(request)

    def do(self, work: Callable[[Store], None]) -> None:
        """Have this done with the records, in their writer's thread; it is repeated where they are away."""
        self.writer.do(work)

    def ask(self, question: Callable[[Store], T]) -> T | None:
        """Ask the records, from a thread that may wait: see the base."""
        answers: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.writer.do(lambda store: answers.put(question(store)))
        if self.writer.is_away:
            return None
        try:
            return answers.get(timeout=PATIENCE)
        except queue.Empty:
            return None

    def beat(self, about: dict[str, Any]) -> None:
        """Write what the supervisor says of itself."""
        self.writer.beat({"host": self._host, **about})

    def close(self) -> None:
        """Write what is left to write."""
        self.writer.stop()

    # -- in the writer's thread --------------------------------------------------------------------------------------

    def _put(self, held: Held, make: Callable[..., Change | None]) -> None:
        notes = held.notes
        size = len(held.job.payload) + (len(notes.response) if notes is not None else 0) + 500
        job, grabbed_at, pid = held.job, held.grabbed_at, held.pid
        started, at = held.started, held.ended or time.monotonic()
        self.writer.happened.put(lambda: make(job, grabbed_at, *self._when(started, at), pid, notes), size)

    def _when(self, started: float, at: float) -> tuple[float | None, float]:
        """When an attempt began, and when something happened, both in Unix time."""
        offset = self._clock.offset()
        return started + offset if started else None, at + offset

    def _done(self, held: Held) -> Change | Finished | None:
        """What to write of a job that went well and has nothing special about it."""
        job = held.job
        usual = read_usual(job.payload)
        if usual is None or usual[5] != "1":
            times = self._when(held.started, held.ended)
            return self._row(job, held.grabbed_at, *times, held.pid, None, state=model.DONE)
        method, path, headers, task_id, service, _, max_attempts, queued = usual
        offset = self._clock.offset()
        began, ended = held.started + offset, held.ended + offset
        # Thousands of these wait to be written at a time, and most of their texts are the same.
        return (
            task_id, _one_of(service), _one_of(method), _one_of(path), _one_of(job.base_queue), float(queued), began,
            began, ended, ended, int(max_attempts), self._host, held.pid, *read_about(headers),
        )  # fmt: skip

    def _row(
        self,
        job: Grabbed,
        grabbed_at: float,
        began: float | None,
        now: float,
        pid: int,
        notes: Notes | None,
        *,
        state: str,
        outcome: Outcome | None = None,
        reason: str | None = None,
        due: float | None = None,
        letter: tuple[str, str] = ("", ""),
    ) -> Change | None:
        try:
            facts = read_facts(job.payload, partial(own_id, job))
        except BadMessage:
            return None  # an unreadable plain call: its dead letter says so
        row = self._of(facts, job, grabbed_at, began, now)
        row.state, row.pid, row.due = state, pid or None, facts.due or None
        if due is not None:
            row.due = due
        if reason is not None:
            row.reason = clean(reason, MAX_REASON)
        if state == model.RUNNING:
            row.place, row.owner = place(facts.attempt, RUNNING), self._name
        elif state in (model.QUEUED, model.SCHEDULED):
            row.place, row.due = place(facts.attempt, RUNNING), due or None
        elif state != model.RETRYING:
            row.ended = now
        result = None
        if notes is not None:
            row.status = notes.status if state == model.DONE else None
            row.done, row.total = map(whole, notes.progress) if notes.progress is not None else (None, None)
            result = self._result(job, notes) if row.ended is not None else None
        elif state == model.DONE:
            row.status = 200
        if outcome is not None:
            row.status = outcome.status or None
        if began is not None and state in _ENDS_ATTEMPT and (state != model.DONE or facts.attempt > 1 or reason):
            row.history = self._line(row, began, now, outcome)
        return Change(row, result, letter[1])

    def _of(self, facts: Facts, job: Grabbed, grabbed_at: float, began: float | None, now: float) -> Row:
        has_begun = began is not None
        return Row(
            id=clean_id(facts.id), service=clean(facts.service), method=clean(facts.method),
            path=clean(facts.path, MAX_PATH), queue=clean(job.base_queue), priority=facts.priority, state="",
            queued=facts.queued or grabbed_at, due=None, started=began, ended=None,
            attempts=facts.attempt if has_begun else facts.attempt - 1,
            max_attempts=facts.max_attempts or self._settings.max_attempts, done=None, total=None, status=None,
            reason=None, host=self._host, pid=None, request_id=_clean(facts.request_id),
            traceparent=_clean(facts.traceparent), owner=None, place=place(facts.attempt, ENDED), changed=now,
            began=began, history="",
        )  # fmt: skip

    def _line(self, row: Row, began: float, ended: float, outcome: Outcome | None) -> str:
        """The attempt that has ended, for the history."""
        return model.write_attempt(
            row.attempts, began, ended, "retried" if row.state == model.RETRYING else row.state, host=row.host,
            pid=row.pid or 0, status=row.status, reason=row.reason,
            traceback=clean(outcome.traceback, len(outcome.traceback)) or None if outcome is not None else None,
            **({"raised": clean(outcome.raised)} if outcome is not None and outcome.raised else {}),
        )  # fmt: skip

    def _result(self, job: Grabbed, notes: Notes) -> tuple[float, bytes] | None:
        if not notes.response:
            return None
        task = reading.read(job.payload, max_body=len(job.payload))
        return self._settings.keeps_result(task), notes.response

    def _untrusted(
        self,
        job: Grabbed,
        grabbed_at: float,
        began: float | None,
        now: float,
        pid: int,
        notes: Notes | None,
        *,
        state: str,
        outcome: Outcome,
        reason: str,
        letter: tuple[str, str],
    ) -> Change:
        """What to write of a payload that can't be trusted: nothing of what it says is used."""
        row = Row(
            id=clean_id(letter[0]), service="-", method="-", path="-", queue=clean(job.base_queue), priority="normal",
            state=state, queued=grabbed_at, due=None, started=None, ended=now, attempts=0, max_attempts=None,
            done=None, total=None, status=None, reason=clean(reason, MAX_REASON), host=self._host, pid=None,
            request_id=None, traceparent=None, owner=None, place=place(1, QUEUED), changed=now, began=None, history="",
        )  # fmt: skip
        return Change(row, letter=letter[1])


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)

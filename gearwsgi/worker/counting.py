"""Counts what happens in a supervisor, for its metrics: attempts, and ends of worker processes."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..policy import Outcome
from ..state.records.steering import Request
from ..telemetry.collector import State
from .held import Held
from .recorder import Recorder

if TYPE_CHECKING:  # not imported with records off: it brings the database
    from ..state.records.store import Store

T = TypeVar("T")


class Counting(Recorder):
    """A recorder that counts each event and then passes it on to another recorder.

    Args:
        state: what the metrics are made of.
        then: the other recorder.
    """

    def __init__(self, state: State, then: Recorder) -> None:
        super().__init__()
        self._state = state
        self._add = state.tallies.count
        self._then = then

    @property
    def counts(self) -> dict[str, int]:
        """How many attempts have ended how."""
        return self._then.counts

    @property
    def dropped(self) -> int:
        """How many records were not written."""
        return self._then.dropped

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are paused."""
        return self._then.paused

    def running(self, held: Held) -> None:
        """A job has run for a while."""
        self._then.running(held)

    def done(self, held: Held) -> None:
        """A job has gone well."""
        # Runs once for every job, so `_count` is written out here.
        seconds = time.monotonic() - held.started
        job = held.job
        notes = held.notes
        self._add(job.queue, job.payload, "done", seconds, time.time() - seconds, b"" if notes is None else notes.route)
        if notes is not None and notes.entry:
            self._state.successes[notes.entry] = time.time()
        self._then.done(held)

    def answered(self, held: Held, status: int, reason: str) -> None:
        """A `call()` got a response of the queue's own."""
        self._count(held, "done")
        self._then.answered(held, status, reason)

    def retried(self, held: Held, outcome: Outcome, reason: str, due: float) -> None:
        """A job has failed, and its next attempt is queued."""
        self._count(held, "retried")
        self._then.retried(held, outcome, reason, due)

    def continued(self, held: Held, due: float) -> None:
        """A job has done a part of its work: its attempt is not over."""
        self._then.continued(held, due)

    def dead(self, held: Held, outcome: Outcome, reason: str, letter: tuple[str, str], *, trusted: bool) -> None:
        """A job has failed for good."""
        self._count(held, "dead", trusted=trusted)
        self._then.dead(held, outcome, reason, letter, trusted=trusted)

    def cancelled(self, held: Held, reason: str) -> None:
        """A job was ended, or not even started, because its task is cancelled."""
        self._count(held, "cancelled")
        self._then.cancelled(held, reason)

    def requests(self) -> Sequence[Request] | None:
        """The requests to supervisors."""
        return self._then.requests()

    def withdraw(self, request: Request) -> None:
        """Note that a request was fulfilled."""
        self._then.withdraw(request)

    def do(self, work: "Callable[[Store], None]") -> None:
        """Have this done with the records."""
        self._then.do(work)

    def ask(self, question: "Callable[[Store], T]") -> T | None:
        """Ask the records, from a thread that may wait."""
        return self._then.ask(question)

    def succeeded(self, entry: str, at: float) -> None:
        """A task of an entry of the schedule has gone well before this supervisor was there."""
        self._state.successes.setdefault(entry, at)
        self._then.succeeded(entry, at)

    def exited(self, reason: str) -> None:
        """A worker process has ended."""
        self._state.exits[reason] = self._state.exits.get(reason, 0) + 1
        self._then.exited(reason)

    def beat(self, about: dict[str, Any]) -> None:
        """What the supervisor says of itself."""
        self._then.beat(about)

    def close(self) -> None:
        """Write what is left."""
        self._then.close()

    def _count(self, held: Held, outcome: str, *, trusted: bool = True) -> None:
        payload = held.job.payload if trusted else b""
        if not held.started:
            self._add(held.job.queue, payload, outcome, None, 0.0, b"")
            return
        ended = held.ended or time.monotonic()
        began = time.time() - (time.monotonic() - held.started)
        route = held.notes.route if held.notes is not None and trusted else b""
        self._add(held.job.queue, payload, outcome, ended - held.started, began, route)

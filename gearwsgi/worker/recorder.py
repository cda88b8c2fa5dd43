"""The interface to the records for all that happens to jobs. `recording.py` has the one that writes; where records are
off, this one is used, and nothing of theirs is even imported."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..policy import OUTCOMES, Outcome
from ..state.records.steering import Request
from .held import Held

if TYPE_CHECKING:  # not imported with records off: it brings the database
    from ..state.records.store import Store

T = TypeVar("T")
FIRST_LOOK = 2.0
"""Seconds that a supervisor, when it starts, waits to learn of requests (a pause, a cancel) before it takes jobs."""


class Recorder:
    """Is told all that happens to jobs, and only counts it: records are off."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(OUTCOMES, 0)

    @property
    def counts(self) -> dict[str, int]:
        """How many attempts have ended in which way, over all loads of the application."""
        return self._counts

    @property
    def dropped(self) -> int:
        """How many records were not written, and never will be."""
        return 0

    @property
    def paused(self) -> frozenset[str]:
        """The queues that are paused."""
        return frozenset()

    def running(self, held: Held) -> None:
        """A job has run for a while, or reports its progress."""

    def done(self, held: Held) -> None:
        """A job has gone well."""
        self._counts["done"] += 1

    def answered(self, held: Held, status: int, reason: str) -> None:
        """A `call()` that failed got a response of the queue's own: nothing more will come of it."""
        self._counts["done"] += 1

    def retried(self, held: Held, outcome: Outcome, reason: str, due: float) -> None:
        """A job has failed, and its next attempt is queued."""
        self._counts["retried"] += 1

    def continued(self, held: Held, due: float) -> None:
        """A job has done a part of its work, and the rest is queued."""

    def dead(self, held: Held, outcome: Outcome, reason: str, letter: tuple[str, str], *, trusted: bool) -> None:
        """A job has failed for good.

        Args:
            held: the job.
            outcome: of its last attempt.
            reason: why.
            letter: the dead letter's id, and its file's name.
            trusted: whether its message may be believed.
        """
        self._counts["dead"] += 1

    def exited(self, reason: str) -> None:
        """A worker process has ended: see `EXITS` in `exits`."""

    def cancelled(self, held: Held, reason: str) -> None:
        """A job was ended, or not even started, because its task is cancelled."""
        self._counts["cancelled"] += 1

    def requests(self) -> Sequence[Request] | None:
        """The requests to supervisors, such as a pause: the same object until read anew. None: not known yet."""
        return ()

    def withdraw(self, request: Request) -> None:
        """Note that a request was fulfilled."""

    def succeeded(self, entry: str, at: float) -> None:
        """A task of an entry of the schedule has gone well, at this Unix time, before this supervisor was there."""

    def do(self, work: "Callable[[Store], None]") -> None:
        """Have this done with the records, in their writer's thread; it is repeated where they are away."""

    def ask(self, question: "Callable[[Store], T]") -> T | None:
        """Ask the records, from a thread that may wait; None: they are off or away, or don't answer in time.

        Where they are away, the question is repeated as in `do`, and its answer is dropped.
        """
        return None

    def beat(self, about: dict[str, Any]) -> None:
        """Write what the supervisor says of itself: that it is alive, and how it is."""

    def close(self) -> None:
        """Write what is left to write."""

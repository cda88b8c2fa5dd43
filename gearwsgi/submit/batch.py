"""What `batch()` collects: the tasks of a block, which go to the job servers together at its end, or not at all."""

import threading
from contextvars import ContextVar
from typing import TypeAlias

from ..wire.payload import Submission
from .task import Task

Pair: TypeAlias = tuple[Task, Submission]
"""A task, and what the job server is to be told of it."""


class Batch:
    """The tasks of one block. It belongs to the context that has opened it, and those that are copied from that.

    Args:
        owner: the object whose `task()` is collected.
        outer: the batch that is open around it, of whichever owner; None: there is none.

    Attributes:
        tasks: what the block queues, in order.
        now: what goes at the end.
        later: what then waits for the response.
        has_failed: whether the block has raised, so that nothing of it is ever queued.
    """

    def __init__(self, owner: object, outer: "Batch | None") -> None:
        self.owner = owner
        self.outer = outer
        self.tasks: list[Task] = []
        self.now: list[Pair] = []
        self.later: list[Pair] = []
        self.has_failed = False
        self._is_over = False
        self._lock = threading.Lock()

    def add(self, pair: Pair, *, after_response: bool = False) -> bool:
        """Collect a task; False: the block is over, and it goes by itself."""
        with self._lock:  # a thread with a copy of the context may come at the very end
            if self._is_over:
                return False
            (self.later if after_response else self.now).append(pair)
            return True

    def close(self, *, failed: bool) -> None:
        """The block is over."""
        with self._lock:
            self._is_over = True
            self.has_failed = failed

    def join(self, outer: "Batch") -> bool:
        """What was collected goes with another one's; False: that one is over."""
        with outer._lock:
            if outer._is_over:
                return False
            outer.tasks += self.tasks
            outer.now += self.now
            outer.later += self.later
            return True


OPEN: ContextVar[Batch | None] = ContextVar("gearwsgi.batch", default=None)
"""The innermost batch of this context."""


def batch_of(owner: object) -> Batch | None:
    """The innermost open batch of this object."""
    batch = OPEN.get()
    while batch is not None and (batch.owner is not owner or batch._is_over):
        batch = batch.outer
    return batch


def is_dropped(batch: Batch | None) -> bool:
    """Whether a task that was made in this batch is not to be queued: its block has raised, or one around it has."""
    owner = batch.owner if batch is not None else None
    while batch is not None:
        if batch.has_failed and batch.owner is owner:
            return True
        batch = batch.outer
    return False

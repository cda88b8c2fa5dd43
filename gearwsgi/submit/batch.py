"""What `batch()` collects: the tasks of a block. At its end they go to the job servers together, or none does."""

import threading
from contextvars import ContextVar
from typing import TypeAlias

from ..wire.payload import Submission
from .task import Task

Pair: TypeAlias = tuple[Task, Submission]
"""A task, and the job that is to be submitted for it."""


class Batch:
    """The tasks of one block. It belongs to the context that has opened it, and to copies of that context.

    Args:
        owner: the object whose `task()` is collected.
        outer: the batch that is open around it, of whichever owner; None: there is none.

    Attributes:
        tasks: what the block queues, in order.
        now: what is submitted at the block's end.
        later: what then still waits for the response's end.
        has_failed: whether the block has raised, so that none of its tasks is ever queued.
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
        """Collect a task; False: the block is over, so the task must be submitted by itself."""
        with self._lock:  # a thread with a copy of the context may add one while the block ends
            if self._is_over:
                return False
            (self.later if after_response else self.now).append(pair)
            return True

    def close(self, *, failed: bool) -> None:
        """End the block."""
        with self._lock:
            self._is_over = True
            self.has_failed = failed

    def join(self, outer: "Batch") -> bool:
        """Add what was collected to another batch; False: that one is over."""
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
    """Whether a task that was made in this batch must not be queued: its block, or one around it, has raised."""
    owner = batch.owner if batch is not None else None
    while batch is not None:
        if batch.has_failed and batch.owner is owner:
            return True
        batch = batch.outer
    return False

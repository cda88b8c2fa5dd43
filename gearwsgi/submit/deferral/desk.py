"""What deferral keeps of a client's: how full queues are, ids that are known, and where threads wait."""

import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from .mailbox import Mailboxes

if TYPE_CHECKING:
    from ...settings import Settings

_LASTS = 0.5
"""Seconds that what job servers said of a queue is believed."""
_REMEMBERED = 10_000


class Queues(Protocol):
    """A client, as far as it is needed here."""

    settings: "Settings"

    def count_waiting(self, queue: str) -> int:
        """Jobs that wait in a queue."""
        ...


class Mailbox(Protocol):
    """A mailbox, as who waits needs it."""

    @property
    def name(self) -> str:
        """What the task's message calls it."""
        ...

    def fetch(self, server: str, task_id: str, deadline: float) -> bytes:
        """The response of a task, as a message; empty where none comes in time.

        Args:
            server: the job server that has the task; empty: none has it yet.
            task_id: the task's id.
            deadline: until when it is waited for, of `time.monotonic`.
        """
        ...


class Desk:
    """That of one client. Any number of threads.

    Args:
        client: whose it is.
    """

    def __init__(self, client: Queues) -> None:
        self._client = client
        self._mailboxes = Mailboxes(client.settings)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._fill: dict[str, tuple[float, int]] = {}

    def is_full(self, queue: str, limit: int) -> bool:
        """Whether so many jobs wait in a queue; if not, one more is about to.

        What job servers said is believed for half a second while there is room for as many again.
        """
        until, count = self._fill.get(queue, (0.0, 0))
        if count * 2 >= limit or time.monotonic() >= until:
            count, until = self._client.count_waiting(queue), time.monotonic() + _LASTS
        if len(self._fill) >= _REMEMBERED:
            self._fill.clear()  # keys of limits may be many, and each has its own queue
        self._fill[queue] = until, count + 1
        return count >= limit

    def remember(self, task_id: str) -> None:
        """That this is the id of a task: of the last ten thousand."""
        self._known[task_id] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def knows(self, task_id: str) -> bool:
        """Whether it was remembered."""
        return task_id in self._known

    def mailbox(self) -> AbstractContextManager[Mailbox]:
        """Where this thread may wait, in the block, for the response of a task that names it.

        Raises:
            SpoolError: the state directory can't be used.
        """
        return self._mailboxes.lent()

    def close(self) -> None:
        """Give up what nobody uses."""
        self._mailboxes.close()

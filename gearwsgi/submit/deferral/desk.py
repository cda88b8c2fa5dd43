"""What deferral keeps for all threads of a client: how full queues are, which ids are known, and the mailboxes."""

import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from .mailbox import Mailboxes

if TYPE_CHECKING:
    from ...settings import Settings

_LASTS = 0.5
"""Seconds for which the job servers' count of a queue is used again."""
_REMEMBERED = 10_000


class Queues(Protocol):
    """The client, as far as the desk needs it."""

    settings: "Settings"

    def count_waiting(self, queue: str) -> int:
        """Jobs that wait in a queue."""
        ...


class Mailbox(Protocol):
    """A mailbox, as far as a thread that waits needs it."""

    @property
    def name(self) -> str:
        """Its name, for the task's message."""
        ...

    def fetch(self, server: str, task_id: str, deadline: float) -> bytes:
        """The response of a task, as a message; empty where none comes in time.

        Args:
            server: the job server that has the task; empty: none has it yet.
            task_id: the task's id.
            deadline: until when to wait, by `time.monotonic`.
        """
        ...


class Desk:
    """The desk of one client. For any number of threads.

    Args:
        client: the client.
    """

    def __init__(self, client: Queues) -> None:
        self._client = client
        self._mailboxes = Mailboxes(client.settings)
        self._known: OrderedDict[str, None] = OrderedDict()
        self._fill: dict[str, tuple[float, int]] = {}

    def is_full(self, queue: str, limit: int) -> bool:
        """Whether so many jobs wait in a queue; if not, one more is counted, because it is about to be queued.

        The job servers' count is used for half a second, as long as there is room for as many again.
        """
        until, count = self._fill.get(queue, (0.0, 0))
        if count * 2 >= limit or time.monotonic() >= until:
            count, until = self._client.count_waiting(queue), time.monotonic() + _LASTS
        if len(self._fill) >= _REMEMBERED:
            self._fill.clear()  # there may be many keys of limits, each with a queue of its own
        self._fill[queue] = until, count + 1
        return count >= limit

    def remember(self, task_id: str) -> None:
        """Remember that this is the id of a task; the last ten thousand are remembered."""
        self._known[task_id] = None
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def knows(self, task_id: str) -> bool:
        """Whether this id is remembered."""
        return task_id in self._known

    def mailbox(self) -> AbstractContextManager[Mailbox]:
        """A mailbox for the block, in which this thread can wait for the response of a task whose message names it.

        Raises:
            SpoolError: the state directory can't be used.
        """
        return self._mailboxes.lent()

    def close(self) -> None:
        """Close what nobody uses."""
        self._mailboxes.close()

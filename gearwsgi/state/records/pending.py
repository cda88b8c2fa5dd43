"""What is to be written of tasks, from the moment that something happens until it is in the database.

What happens is an event, which costs the loop next to nothing: `Happened`. The writer's thread makes a row of it, or
adds it to the row that waits already: `Pending`. Both hold so much at most, and count what they drop.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .rows import Row, finished_row, merge

_log = logging.getLogger("gearwsgi")

SOON = 300
"""Events from which on they are read without waiting: a row takes half of an event's memory."""
MAX_EVENTS = 10_000
MAX_ROWS = 10_000
MAX_BYTES = 16 * 1024 * 1024
"""What is held at most while the database is away."""


class Change(NamedTuple):
    """What is to be written of a task.

    Attributes:
        row: its row.
        result: seconds that a response is kept, and the response as a message.
        letter: its dead letter's name in the spool.
    """

    row: Row
    result: tuple[float, bytes] | None = None
    letter: str = ""


Finished = tuple[Any, ...]
"""A task that was done at its first attempt: its values of `rows.FINISHED`."""
Found = Change | Finished | None
"""What becomes of an event; None: there is nothing to be written."""


class Pending:
    """What waits to be written: a row a task, the oldest first.

    Attributes:
        finished: tasks that were done at their first attempt, and of which nothing else waits.
        rows: all others.
    """

    def __init__(self) -> None:
        self.finished: dict[str, Finished] = {}
        self.rows: dict[str, Row] = {}
        self.results: dict[str, tuple[float, bytes]] = {}
        self.letters: dict[str, list[str]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.finished)

    def add(self, found: Change | Finished) -> None:
        """Add what has happened to what waits."""
        if isinstance(found, Change):
            self._add(found)
            return
        key = found[0]
        if key in self.rows:
            self._add(Change(finished_row(found)))
        else:
            self.finished[key] = found

    def _add(self, change: Change) -> None:
        key = change.row.id
        finished = self.finished.pop(key, None)
        if finished is not None:
            self._add(Change(finished_row(finished)))
        old = self.rows.get(key)
        if old is not None:
            self._bytes -= old.size()
        row = self.rows[key] = merge(old, change.row)
        self._bytes += row.size()
        if change.result is not None:
            self._bytes += len(change.result[1]) - len(self.results.get(key, (0.0, b""))[1])
            self.results[key] = change.result
        if change.letter:
            self.letters.setdefault(key, []).append(change.letter)

    def remove(self, key: str) -> None:
        """It is written, or given up."""
        if self.finished.pop(key, None) is not None:
            return
        self._bytes -= self.rows.pop(key).size() + len(self.results.pop(key, (0.0, b""))[1])
        self.letters.pop(key, None)

    def shrink(self) -> int:
        """Give up the oldest, those that went well first, until it is no more than may be held; how many."""
        dropped = 0
        while len(self) > MAX_ROWS or (self._bytes > MAX_BYTES and self.rows):
            self.remove(next(iter(self.finished or self.rows)))
            dropped += 1
        return dropped


class Happened:
    """Events that no row is made of yet, the oldest first.

    Args:
        read: makes of what `put_small` was given what is to be written; called in the thread.
        wake: is set where they are to be read soon.
    """

    def __init__(self, read: Callable[[Any], Found], wake: threading.Event) -> None:
        self._read = read
        self._wake = wake
        self._events: deque[Any] = deque()
        self._bytes_in = self._bytes_out = 0
        self._refused = self._lost = 0

    def put(self, change: Callable[[], Found], size: int) -> None:
        """Something has happened: `change` is called in the thread and says what is to be written.

        Args:
            change: answers it.
            size: about how many bytes it holds on to.
        """
        if self._bytes_in - self._bytes_out + size > MAX_BYTES:
            self._refused += 1
            return
        self._bytes_in += size
        self.put_small((size, change))

    def put_small(self, event: Any) -> None:
        """Something has happened that holds on to a kilobyte or so: `read` says what is to be written."""
        waiting = len(self._events)
        if waiting >= MAX_EVENTS:
            self._refused += 1
            return
        self._events.append(event)
        if waiting == SOON:
            self._wake.set()

    def gather(self, pending: Pending) -> None:
        """Make rows of them, in the thread: `pending` is where those wait."""
        for _ in range(len(self._events)):
            event = self._events.popleft()
            try:
                if type(event) is tuple:
                    self._bytes_out += event[0]
                    found = event[1]()
                else:
                    found = self._read(event)
            except Exception as error:
                # None is known. Should one be found, it costs that record, and not all that come after it.
                _log.error("records: one can't be made: %s: %s", type(error).__name__, error)
                self._lost += 1
                continue
            if found is not None:
                pending.add(found)
        self._lost += pending.shrink()

    @property
    def dropped(self) -> int:
        """Records that were not written and never will be."""
        return self._refused + self._lost

    def drop(self, number: int) -> None:
        """So many rows could not be written, and are given up; called in the thread."""
        self._lost += number

"""What is to be written to the records about tasks, from when it happens until it is in the database.

First it is an event, which costs the loop next to nothing: `Happened`. Later the writer's thread makes a row of it, or
adds it to a row that waits already: `Pending`. Both hold only so much, and count what they drop.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .rows import Row, finished_row, merge

_log = logging.getLogger("gearwsgi")

SOON = 300
"""From so many events on they are read without waiting: as a row, each takes half the memory."""
MAX_EVENTS = 10_000
MAX_ROWS = 10_000
MAX_BYTES = 16 * 1024 * 1024
"""Bytes that are held at most while the database is away."""


class Change(NamedTuple):
    """What is to be written about a task.

    Attributes:
        row: the row with what has changed.
        result: for how many seconds a response is kept, and the response as a message; None: there is none.
        letter: the name of its dead letter in the spool.
    """

    row: Row
    result: tuple[float, bytes] | None = None
    letter: str = ""


Finished = tuple[Any, ...]
"""A task that was done at its first attempt: the values of the columns `rows.FINISHED`."""
Found = Change | Finished | None
"""What an event leads to; None: there is nothing to write."""


class Pending:
    """The rows that wait to be written, one for each task, the oldest first.

    Attributes:
        finished: tasks that were done at their first attempt, and about which nothing else waits.
        rows: all other tasks.
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
        """Add what has happened to the rows that wait."""
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
        """Take out a row: it is written, or given up."""
        if self.finished.pop(key, None) is not None:
            return
        self._bytes -= self.rows.pop(key).size() + len(self.results.pop(key, (0.0, b""))[1])
        self.letters.pop(key, None)

    def shrink(self) -> int:
        """Drop the oldest rows, of successful tasks first, until no more is held than may be; how many were dropped."""
        dropped = 0
        while len(self) > MAX_ROWS or (self._bytes > MAX_BYTES and self.rows):
            self.remove(next(iter(self.finished or self.rows)))
            dropped += 1
        return dropped


class Happened:
    """Events of which no rows are made yet, the oldest first.

    Args:
        read: says what is to be written for an event of `put_small`; called in the writer's thread.
        wake: is set when they are to be read soon.
    """

    def __init__(self, read: Callable[[Any], Found], wake: threading.Event) -> None:
        self._read = read
        self._wake = wake
        self._events: deque[Any] = deque()
        self._bytes_in = self._bytes_out = 0
        self._refused = self._lost = 0

    def put(self, change: Callable[[], Found], size: int) -> None:
        """Take an event: `change` is called in the writer's thread, and answers what is to be written.

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
        """Take an event that holds on to only a kilobyte or so: `read` says what is to be written for it."""
        waiting = len(self._events)
        if waiting >= MAX_EVENTS:
            self._refused += 1
            return
        self._events.append(event)
        if waiting == SOON:
            self._wake.set()

    def gather(self, pending: Pending) -> None:
        """Make rows of all events, and add them to `pending`. Called in the writer's thread."""
        for _ in range(len(self._events)):
            event = self._events.popleft()
            try:
                if type(event) is tuple:
                    self._bytes_out += event[0]
                    found = event[1]()
                else:
                    found = self._read(event)
            except Exception as error:
                # No such error is known. Should one occur, it costs that one record, and not all that follow.
                _log.error("records: one can't be made: %s: %s", type(error).__name__, error)
                self._lost += 1
                continue
            if found is not None:
                pending.add(found)
        self._lost += pending.shrink()

    @property
    def dropped(self) -> int:
        """How many records were not written and never will be."""
        return self._refused + self._lost

    def drop(self, number: int) -> None:
        """Count rows that could not be written and are given up. Called in the writer's thread."""
        self._lost += number

"""All connections together: who has answers, and how much memory their unfinished requests may take."""

import asyncio
import contextlib
from collections.abc import Iterator

from .connection import Connection

__all__ = ["Connections"]

CLOSE_PATIENCE = 2.0  # seconds that a stop waits for answers to be read


class Connections:
    """The connections of a server.

    Args:
        limit: bytes of unfinished requests of all of them; above it the one that came no further for longest is closed.
    """

    def __init__(self, limit: int) -> None:
        self._all: set[Connection] = set()
        self._with_answers: set[Connection] = set()
        self._limit = limit
        self._pending = 0
        self._none_left = asyncio.Event()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def add(self, connection: Connection) -> None:
        """It was accepted."""
        self._all.add(connection)
        self._none_left.clear()

    def remove(self, connection: Connection) -> None:
        """It is gone."""
        self._all.discard(connection)
        self._with_answers.discard(connection)
        self._pending -= connection.pending
        connection.pending = 0
        if not self._all:
            self._none_left.set()

    def has_answers(self, connection: Connection) -> None:
        """It is to be flushed."""
        self._with_answers.add(connection)

    def flush(self) -> None:
        """Send all answers."""
        while self._with_answers:
            self._with_answers.pop().flush()

    def count(self, connection: Connection) -> None:
        """Its requests were handled: count what of them is unfinished."""
        pending = connection.reader.pending
        self._pending += pending - connection.pending
        connection.pending = pending
        if not pending:
            return
        connection.heard = asyncio.get_running_loop().time()
        if self._pending > self._limit:
            idle = min((c for c in self._all if c.pending), key=lambda c: c.heard)
            idle.abort("too many unfinished packets, and its came no further for longest: closed")

    async def close(self) -> None:
        """Close all, those who do not read in time at once."""
        for connection in self:
            connection.close()
        if self._all:
            with contextlib.suppress(TimeoutError):  # who does not read in time gets no more
                await asyncio.wait_for(self._none_left.wait(), CLOSE_PATIENCE)
        for connection in self:
            connection.abort()

"""All connections of a server: those with answers to be sent, and the memory that unfinished requests may take."""

import asyncio
import contextlib
from collections.abc import Iterator

from .connection import Connection

__all__ = ["Connections"]

CLOSE_PATIENCE = 2.0  # seconds that a stop waits for answers to be read


class Connections:
    """The connections of a server.

    Args:
        limit: bytes that unfinished requests may take together; above it, the connection that has been silent for
            longest is closed.
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
        """Add a connection that was accepted."""
        self._all.add(connection)
        self._none_left.clear()

    def remove(self, connection: Connection) -> None:
        """Remove a connection that is gone."""
        self._all.discard(connection)
        self._with_answers.discard(connection)
        self._pending -= connection.pending
        connection.pending = 0
        if not self._all:
            self._none_left.set()

    def on_answers(self, connection: Connection) -> None:
        """Note that a connection has answers that are to be sent."""
        self._with_answers.add(connection)

    def flush(self) -> None:
        """Send all answers."""
        while self._with_answers:
            self._with_answers.pop().flush()

    def count(self, connection: Connection) -> None:
        """Count anew the unfinished bytes of a connection whose requests were handled."""
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
        """Close all; those whose peers do not read their answers in time are cut off."""
        for connection in self:
            connection.close()
        if self._all:
            with contextlib.suppress(TimeoutError):  # those that are still open then are cut off
                await asyncio.wait_for(self._none_left.wait(), CLOSE_PATIENCE)
        for connection in self:
            connection.abort()

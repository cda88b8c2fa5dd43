"""A job server as a web process sees it: its idle connections, and whether to ask it at all just now."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator

from ..address import Address
from ..errors import ServerUnavailable
from ..wire.connection import Connection

_MAX_IDLE = 32
_DOWN_SECONDS = 1.0
"""Seconds for which a job server that refused a connection is asked only after the others."""
_HUNG_SECONDS = 5.0
"""Seconds for which one that accepted a connection and did not answer is not asked at all."""
_LARGE = 1_000_000
"""Bytes from which on a time-out is not blamed on the job server: the network or the disk may be slow."""


class Server:
    """One job server. Any number of threads and forked processes.

    Args:
        address: where it is.
        connect_timeout: seconds to wait for a connection.
        max_answer: bytes that an answer with data may have.
    """

    def __init__(self, address: Address, connect_timeout: float, max_answer: int) -> None:
        self.address = address
        self.name = str(address)
        self.idle: deque[Connection] = deque()
        """Connections that nobody uses."""
        self.down_until = 0.0
        """Until when others are asked first, by `time.monotonic`."""
        self.hung_until = 0.0
        """Until when it is not asked at all, by `time.monotonic`."""
        self._connect_timeout = connect_timeout
        self._max_answer = max_answer

    def take(self) -> Connection | None:
        """A connection that nobody uses, and that is still open; None: there is none."""
        pid = os.getpid()
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return None
            if connection.pid == pid and not connection.is_stale():
                return connection
            connection.close()

    def connect(self) -> Connection:
        """A new connection.

        Raises:
            ServerUnavailable: it can't be had; this is noted.
        """
        try:
            return Connection(self.address, self._connect_timeout, self._max_answer)
        except ServerUnavailable as error:
            self.note_refusal()
            if isinstance(error.__cause__, TimeoutError):
                self.hung_until = time.monotonic() + _HUNG_SECONDS
            raise

    @contextlib.contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection for one exchange; it is kept for the next one, if the block ends well.

        Raises:
            ServerUnavailable: as `connect`.
        """
        idle = self.take()
        connection = idle or self.connect()
        try:
            yield connection
        except BaseException as error:
            connection.close()
            if idle is not None and isinstance(error, ServerUnavailable) and isinstance(error.__cause__, TimeoutError):
                self.note_silence(reused=True)
            raise
        self.keep(connection)

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next task, or close it where enough are kept."""
        if len(self.idle) < _MAX_IDLE:
            self.idle.append(connection)
        else:
            connection.close()

    def note_refusal(self) -> None:
        """Note that it has refused a connection, or hung up."""
        self.down_until = time.monotonic() + _DOWN_SECONDS

    def note_silence(self, *, reused: bool, size: int = 0) -> None:
        """Note that it did not answer a request of so many bytes in time.

        If the connection had been idle, a firewall may have forgotten it, and the other idle ones: a new connection
        will tell.
        """
        if reused:
            self.close_idle()
        elif size < _LARGE:
            self.hung_until = time.monotonic() + _HUNG_SECONDS

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        while True:
            try:
                self.idle.pop().close()
            except IndexError:
                return

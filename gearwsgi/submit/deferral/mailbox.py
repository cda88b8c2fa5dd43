"""A mailbox: where a thread of a web process waits for the response of a task that it has queued.

A mailbox is a Gearman function that only this thread serves, as a worker. The task's message names it. The supervisor
that has the response submits it there, as a job of this function, on the same job server; until then the thread sleeps
on its socket. The task is a background job like any other: it does not depend on who waits for it.

The names of mailboxes are numbers of the state directory. A number is ours as long as we hold the lock on its file;
then it is used again. So there are only few, whatever becomes of processes, and a response that came too late is found,
and dropped, by the next thread that waits there.
"""

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ...address import Address
from ...errors import GearwsgiError, ServerUnavailable, SpoolError
from ...message.fields import MAILBOX
from ...settings import Settings
from ...state.records.letters import spool_id
from ...state.spool import make_private_folder, open_private
from ...wire import packets
from ...wire.connection import Connection

_MOST = 1000
"""Mailboxes of one state directory, at most."""
_KEPT = 32
"""Mailboxes that a process keeps for the next threads."""
_MAX_RESPONSE = 2 << 20
"""Bytes of a response: the largest body that is kept, and its headers."""

_SLEEP = packets.pack(packets.PRE_SLEEP)
_GRAB = packets.pack(packets.GRAB_JOB_UNIQ)


class Mailbox:
    """A mailbox, for one thread at a time.

    Args:
        name: the Gearman function.
        lock: the descriptor of its locked file.
        settings: the middleware's.
    """

    def __init__(self, name: str, lock: int, settings: Settings) -> None:
        self.name = name
        self.pid = os.getpid()
        self._lock = lock
        self._servers = {str(address): address for address in settings.servers}
        self._connect_timeout = settings.connect_timeout
        self._connection: Connection | None = None

    def fetch(self, server: str, task_id: str, deadline: float) -> bytes:
        """The response of a task, as a message; empty where it is too long to be sent, or does not come in time.

        Args:
            server: the job server that has the task; empty: none has it yet.
            task_id: the task's id.
            deadline: until when to wait, by `time.monotonic`.
        """
        address = self._servers.get(server)
        if address is None:
            return b""
        try:
            connection = self._connect(address)
            while True:
                connection.send(_SLEEP, self._connect_timeout)
                self._expect(connection, (packets.NOOP,), deadline)
                connection.send(_GRAB, self._connect_timeout)
                kind, values = self._expect(connection, (packets.NO_JOB, packets.JOB_ASSIGN_UNIQ), deadline)
                if kind == packets.NO_JOB:
                    continue
                handle, _, unique, response = values
                connection.send(packets.pack(packets.WORK_COMPLETE, handle, b""), self._connect_timeout)
                if unique.startswith(task_id.encode()):
                    return response
        except GearwsgiError:
            # The task is queued, whatever happens to its waiting thread.
            self._disconnect()
            return b""
        except BaseException:
            self._disconnect()
            raise

    @staticmethod
    def _expect(connection: Connection, kinds: tuple[int, ...], deadline: float) -> tuple[int, list[bytes]]:
        while True:
            kind, values = connection.receive(max(0.0, deadline - time.monotonic()))
            if kind in kinds:
                return kind, values
            if kind != packets.NOOP:
                raise ServerUnavailable(f"packet {kind} has no place here")

    def _connect(self, address: Address) -> Connection:
        connection = self._connection
        if connection is not None and connection.address == address and not connection.is_stale():
            return connection
        self._disconnect()
        connection = self._connection = Connection(address, self._connect_timeout, _MAX_RESPONSE)
        connection.send(packets.pack(packets.CAN_DO, self.name.encode()), self._connect_timeout)
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Unlock it, so that others may use it."""
        self._disconnect()
        os.close(self._lock)


class Mailboxes:
    """The mailboxes of a process. For any number of threads; after a fork, each process has its own.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.state_dir / "waits"
        self._free: deque[Mailbox] = deque()
        self._locking = threading.Lock()

    @contextmanager
    def lent(self) -> Iterator[Mailbox]:
        """A mailbox, for the block.

        Raises:
            SpoolError: the state directory can't be used.
        """
        mailbox = self._take()
        try:
            yield mailbox
        finally:
            if len(self._free) < _KEPT:
                self._free.append(mailbox)
            else:
                mailbox.close()

    def _take(self) -> Mailbox:
        while True:
            try:
                mailbox = self._free.pop()
            except IndexError:
                break
            if mailbox.pid == os.getpid():
                return mailbox
            mailbox.close()  # a copy of one that the parent process has
        with self._locking:
            return self._lock_one()

    def _lock_one(self) -> Mailbox:
        try:
            make_private_folder(self._settings.state_dir)
            make_private_folder(self._folder)
            site = spool_id(self._settings.state_dir)[:16]
            for number in range(_MOST):
                lock = open_private(self._folder / str(number), os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    continue
                return Mailbox(f"{MAILBOX}{site}-{number}", lock, self._settings)
        except OSError as error:
            raise SpoolError(f"can't use {self._folder}: {error}") from error
        raise SpoolError(f"{_MOST} requests wait for their responses already")

    def close(self) -> None:
        """Unlock those that nobody here uses, so that others may use them."""
        while self._free:
            self._free.pop().close()

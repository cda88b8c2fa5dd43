"""The server: brings together connections, the queue, its file and the clock.

    loading -- the queue's file is read --> serving -- shutdown graceful --> leaving -- the last connection goes --.
       '------------------------------------- stop -------------------------------------> ending <--------------------'

While it loads it takes connections and answers ECHO_REQ; other requests wait.
"""

import asyncio
import ssl
import time
from collections.abc import Iterable
from enum import Enum, auto

from ..errors import SpoolError
from ..state.spool import Spool
from ..wire import packets
from . import requests, text
from .clock import Clock
from .connection import Connection
from .connections import Connections
from .jobs import Job, Peer
from .letters import write_letter
from .log import Log
from .protocol import MAX_PACKET, Packet, Request, TooLarge, answer, error
from .queues import Queue
from .store import Store
from .writer import Writer

__all__ = ["Server"]

LOAD_STEP = 0.05  # seconds of loading after which connections are looked at
NOOP = answer(packets.NOOP)


class State(Enum):
    """The states of the server: see the module."""

    LOADING = auto()
    SERVING = auto()
    LEAVING = auto()
    ENDING = auto()


LOADING, SERVING, LEAVING, ENDING = State


class Server:
    """The job server.

    Args:
        store: the queue's file, already open.
        dead: where jobs are kept that have used up their attempts.
        job_retries: how often a job is handed out, at most; 0: without end.
        max_packet: the largest packet that is read, in bytes.
    """

    def __init__(self, store: Store, dead: Spool, job_retries: int = 0, max_packet: int = MAX_PACKET) -> None:
        self.queue = Queue(store.first_id, job_retries, store.prefix)
        self.connections = Connections(4 * max_packet)
        self.log = Log()
        self.writer = Writer(self.queue, store, self.log, self.connections.flush)
        self.ended = asyncio.Event()
        self._state = LOADING
        self._store = store
        self._dead = dead
        self._max_packet = max_packet
        self._listeners: list[asyncio.Server] = []
        self._clock = Clock(self._tick)

    # Listening, loading and stopping

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Accept connections from now on; answers the port, which matters if `port` was 0.

        Raises:
            OSError: that address can't be listened on.
        """
        loop = asyncio.get_running_loop()
        make = lambda: Connection(self, self._max_packet)  # noqa: E731
        listener = await loop.create_server(make, host, port, backlog=1024, ssl=tls)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def load(self) -> None:
        """Take back the jobs on disk, then handle what was asked meanwhile. `stop` ends this.

        Raises:
            StartError: the file is damaged.
        """
        now = time.time()
        pause_at = time.monotonic() + LOAD_STEP
        for row in self._store.rows():
            if isinstance(row, int):
                self.queue.changes.delete.append(row)
            else:
                self.queue.restore(row, now)
            if time.monotonic() > pause_at:
                await asyncio.sleep(0)
                if self.ended.is_set():
                    return
                pause_at = time.monotonic() + LOAD_STEP
        if self._store.missing:
            self.log.error(
                "%s jobs are missing in %s, which held %s when it was last written to: the machine lost power, "
                "or the file or its log (-wal) was cut or replaced",
                self._store.missing,
                self._store.path,
                self._store.missing + len(self.queue.jobs) + len(self.queue.changes.delete),
            )
        self._state = SERVING
        self.settle(now)
        for connection in self.connections:
            connection.go_on()
        self.writer.look()

    def stop(self, graceful: bool = False) -> None:
        """Accept no more connections. End when all is answered; if graceful, when the last connection has gone."""
        for listener in self._listeners:
            listener.close()
        if graceful and self.connections:
            self._state = LEAVING
        else:
            self.ended.set()

    async def close(self) -> None:
        """Answer what was read, end the connections, close the file."""
        self._clock.stop()
        self.writer.close()
        self._state = ENDING  # from here on the queue does not change when a connection goes
        await self.connections.close()

    # What a connection needs

    def joined(self, connection: Connection) -> None:
        """A connection was accepted."""
        self.connections.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.remove(connection)
        if self._state is ENDING:
            return
        self.queue.close(connection.peer, time.time())
        self._look()
        self.connections.remove(connection)  # what it was still to be told goes with it
        if self._state is LEAVING and not self.connections:
            self.ended.set()

    def on_answers(self, connection: Connection) -> None:
        """Note that a connection has answers that are to be sent."""
        self.connections.on_answers(connection)

    def serve(self, connection: Connection, request: Request, now: float) -> None:
        """Do what a request asks; while the queue is loaded, only an ECHO_REQ."""
        if isinstance(request, Packet):
            if self._state is LOADING and request.type != packets.ECHO_REQ:
                connection.wait(request)
            else:
                requests.serve(self, connection, request, now)
        elif isinstance(request, TooLarge):
            connection.complain(f"a packet of {request.size} bytes is refused")
            connection.send(error("ARGUMENT_TOO_LARGE", f"Packet larger than {request.limit} bytes"))
        elif self._state is LOADING:
            connection.wait(request)
        else:
            connection.send(text.run(self, request.text))

    def after(self, connection: Connection) -> None:
        """See to all that follows from a connection's requests, which are handled."""
        self.connections.count(connection)
        self._look()

    def warn(self, what: str) -> None:
        """Log trouble that a peer causes."""
        self.log.warn(what)

    # What the requests ask of the server

    def peers(self) -> Iterable[tuple[int, str, Peer]]:
        """All connections: file descriptor, address and what the queue knows."""
        return [(c.fd, c.address, c.peer) for c in self.connections]

    def tell(self, clients: Iterable[Peer], packet: bytes) -> None:
        """Send what a worker says of a job to those who wait for it."""
        for client in clients:
            client.outlet.forward(packet)

    def fail(self, job: Job, clients: Iterable[Peer]) -> None:
        """Tell clients that their job failed."""
        self.tell(clients, answer(packets.WORK_FAIL, self.queue.handle(job)))

    # What follows from requests, and from time

    def _look(self) -> None:
        if self._state is not LOADING:
            self.settle(time.time())
        self.writer.look()

    def settle(self, now: float) -> None:
        """Wake workers, tell clients, keep dead jobs, set the alarm."""
        changes = self.queue.changes
        while changes.dead:
            job, reason = changes.dead.pop()
            self._write_off(job, reason, now)
        for peer in changes.wake:
            peer.outlet.send(NOOP)
        changes.wake.clear()
        for job, clients in changes.failed:
            self.fail(job, clients)
        changes.failed.clear()
        self._clock.wake_at(self.queue.alarm, now)

    def _write_off(self, job: Job, reason: str, now: float) -> None:
        """Give up a job: a durable one is kept in `dead/`, and queued again where it can't be kept."""
        handle = self.queue.handle(job)
        if job.durable:
            try:
                name = self._dead.put(write_letter(job, handle, reason, now))
            except SpoolError as problem:
                self.log.error("job %s is queued again: %s", handle.decode(), problem)
                self.queue.requeue(job, now)
                return
            self.log.error("job %s is dead: %s; it is %s in %s", handle.decode(), reason, name, self._dead.folder)
        self.fail(job, self.queue.remove(job))

    def _tick(self) -> None:
        now = time.time()
        if now >= self.queue.alarm:
            self.queue.tick(now)
        self._look()

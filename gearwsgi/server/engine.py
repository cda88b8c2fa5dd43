"""The server's process: sockets, signals, the clock, and one commit a turn of the event loop."""

import asyncio
import contextlib
import logging
import sqlite3
import ssl
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from math import inf
from typing import cast

from gearman import protocol as numbers

from gearwsgi.errors import BadMessage, SpoolError
from gearwsgi.message import reading
from gearwsgi.server.connection import NOOP, Connection
from gearwsgi.server.jobs import Job, Peer
from gearwsgi.server.protocol import MAX_PACKET, answer, error
from gearwsgi.server.queues import Queue
from gearwsgi.server.store import Store
from gearwsgi.state.spool import Letter, Spool

__all__ = ["Server"]

log = logging.getLogger("gearwsgi.server")

WRITE_BEHIND = 0.01  # seconds that a finished job may still be on disk, so that many go in one commit
RETRY_WRITE = 1.0  # seconds to wait with what could not be written
WARNINGS = 20  # log lines in ten seconds at most about what others do wrong
CLOSE_PATIENCE = 2.0  # seconds that a stop waits for answers to be read
PRIORITIES = ("high", "normal", "low")


class Server:
    """All connections, the queue and its file.

    Args:
        store: the file, already open; its jobs are loaded.
        dead: where jobs go that used up their attempts.
        job_retries: how often a job is handed out at most; 0 is without end.
        max_packet: the largest packet that is read, in bytes.

    Raises:
        StartError: the file is damaged.
    """

    def __init__(self, store: Store, dead: Spool, job_retries: int = 0, max_packet: int = MAX_PACKET) -> None:
        self.store = store
        self.max_packet = max_packet
        self.queue = Queue(store.first_id, job_retries)
        self.dirty: set[Connection] = set()  # with answers to send
        self.created: list[tuple[Connection, int, Job]] = []  # JOB_CREATED that waits for the commit
        self.ended = asyncio.Event()
        self._dead = dead
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._stopping = False
        self._turn: asyncio.Handle | None = None
        self._behind: asyncio.TimerHandle | None = None
        self._shrink: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tick_at = inf
        self._buffered = 0
        self._warnings: deque[float] = deque(maxlen=WARNINGS)  # when the last ones were logged
        self._closing = False
        self._all_left = asyncio.Event()
        now = time.time()
        for row in store.rows():
            self.queue.restore(row, now)
        self.settle(now)

    # Listening and stopping

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Accept connections from now on; answers the port, which matters if `port` was 0.

        Raises:
            OSError: the address can't be had.
        """
        listener = await self._loop.create_server(lambda: Connection(self), host, port, backlog=1024, ssl=tls)
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    def stop(self, graceful: bool = False) -> None:
        """Accept no more; end when all is answered, or, if graceful, when the last connection has gone."""
        for listener in self._listeners:
            listener.close()
        if graceful and self._connections:
            self._stopping = True
        else:
            self.ended.set()

    async def close(self) -> None:
        """Answer what was read, end the connections, close the file."""
        self._end_turn()
        self._write_behind()
        for handle in (self._turn, self._behind, self._shrink, self._tick):
            if handle is not None:
                handle.cancel()
        self._closing = True  # from here on, nobody's leaving changes the queue
        for connection in self._connections:
            connection.transport.close()
        if self._connections:
            with contextlib.suppress(TimeoutError):  # who does not read in time gets no more
                await asyncio.wait_for(self._all_left.wait(), CLOSE_PATIENCE)
        for connection in self._connections:
            connection.transport.abort()
        self.store.close()

    def joined(self, connection: Connection) -> None:
        """A connection was accepted."""
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if self._closing:
            if not self._connections:
                self._all_left.set()
            return
        self.queue.close(connection, time.time())
        self.after(connection)
        self.dirty.discard(connection)
        if self._stopping and not self._connections:
            self.ended.set()

    # What the requests ask of the server

    def handle(self, job: Job) -> bytes:
        """The job's handle."""
        return b"%b%d" % (self.store.prefix, job.id)

    def job(self, handle: bytes) -> Job | None:
        """The job of that handle."""
        digits = handle.removeprefix(self.store.prefix)
        if len(digits) > 18 or not digits.isdigit():
            return None
        job = self.queue.jobs.get(int(digits))
        return job if job is not None and self.handle(job) == handle else None

    def peers(self) -> Iterable[tuple[int, str, Peer]]:
        """All connections: file descriptor, address and what the queue knows."""
        return [(c.fd, c.address, c) for c in self._connections]

    def tell(self, clients: Iterable[Peer], packet: bytes) -> None:
        """Send what a worker says of a job to those who wait for it."""
        for client in clients:
            cast(Connection, client).forward(packet)

    def fail(self, job: Job, clients: Iterable[Peer]) -> None:
        """Tell clients that their job failed."""
        self.tell(clients, answer(numbers.GEARMAN_COMMAND_WORK_FAIL, self.handle(job)))

    def warn(self, what: str) -> None:
        """Log a trouble that others cause; when there are many, not all of them."""
        now = self._loop.time()
        if len(self._warnings) < WARNINGS or self._warnings[0] + 10 < now:
            self._warnings.append(now)
            log.warning("%s%s", what, " (more like this follow)" if len(self._warnings) == WARNINGS else "")

    # The turn

    def after(self, connection: Connection) -> None:
        """A connection's requests are handled: see to all that follows from them."""
        self._account(connection)
        self.settle(time.time())
        changes = self.queue.changes
        if changes.insert or changes.update:
            if self._turn is None:
                self._turn = self._loop.call_soon(self._end_turn)
        else:
            if changes.delete and self._behind is None:
                self._behind = self._loop.call_later(WRITE_BEHIND, self._write_behind)
            self._flush()

    def settle(self, now: float) -> None:
        """Wake workers, tell clients, keep dead jobs, set the alarm."""
        changes = self.queue.changes
        while changes.dead:
            job, reason = changes.dead.pop()
            self._bury(job, reason, now)
        for peer in changes.wake:
            cast(Connection, peer).send(NOOP)
        changes.wake.clear()
        for job, clients in changes.failed:
            self.fail(job, clients)
        changes.failed.clear()
        if self.queue.alarm < self._tick_at:
            self._set_alarm(now)

    def _bury(self, job: Job, reason: str, now: float) -> None:
        """A job is given up: a durable one is kept in `dead/`, and where it can't be, it is queued again."""
        if job.durable:
            try:
                name = self._dead.put(_letter(job, self.handle(job), reason, now))
            except SpoolError as problem:
                log.error("job %s is queued again: %s", self.handle(job).decode(), problem)
                self.queue.requeue(job, now)
                return
            log.error(
                "job %s is dead: %s; it is %s in %s",
                self.handle(job).decode(),
                reason,
                name,
                self._dead.folder,
            )
        self.fail(job, self.queue.remove(job))

    def _end_turn(self) -> None:
        self._turn = None
        self._write()
        self._flush()

    def _write_behind(self) -> None:
        self._behind = None
        self._write()
        self._flush()

    def _write(self) -> None:
        changes = self.queue.changes
        if not (changes.insert or changes.update or changes.delete):
            return
        created, self.created = self.created, []
        insert, changes.insert = changes.insert, []
        try:
            self.store.write(insert, changes.update.values(), changes.delete)
        except sqlite3.Error as problem:
            self.warn(f"can't write {self.store.path}: {problem}")
            refusal = error("QUEUE_ERROR", f"Can't store the job: {problem}")
            for connection, index, job in created:
                connection.out[index] = refusal
                self.queue.unstore(job)
            if self._behind is None:  # what is done must go from disk: try again
                self._behind = self._loop.call_later(RETRY_WRITE, self._write_behind)
            return
        if changes.delete and self._shrink is None:
            self._shrink = self._loop.call_later(0.5, self._give_back)
        changes.update.clear()
        changes.delete.clear()

    def _give_back(self) -> None:
        self._shrink = None
        try:
            more = self.store.shrink()
        except sqlite3.Error as problem:
            self.warn(f"can't make {self.store.path} smaller: {problem}")
            return
        if more:
            self._shrink = self._loop.call_later(0.01, self._give_back)

    def _flush(self) -> None:
        if self.created:
            return
        dirty, self.dirty = self.dirty, set()
        for connection in dirty:
            connection.flush()
            if connection.reader.pending and not connection.held:
                self._loop.call_soon(connection.work)

    # Time and memory

    def _set_alarm(self, now: float) -> None:
        if self._tick is not None:
            self._tick.cancel()
        self._tick_at = self.queue.alarm
        # The wall clock may jump: it is looked at every second as long as it matters.
        delay = min(max(self._tick_at - now, 0.0), 1.0)
        self._tick = self._loop.call_later(delay, self._alarm)

    def _alarm(self) -> None:
        now = time.time()
        self._tick, self._tick_at = None, inf
        if now >= self.queue.alarm:
            self.queue.tick(now)
        self.settle(now)
        self._flush_or_write()

    def _flush_or_write(self) -> None:
        if self.queue.changes.update or self.queue.changes.delete:
            self._write()
        self._flush()

    def _account(self, connection: Connection) -> None:
        pending = connection.reader.pending
        self._buffered += pending - connection.buffered
        connection.buffered = pending
        if not pending:
            return
        connection.heard = self._loop.time()
        if self._buffered > 4 * self.max_packet:
            idle = min((c for c in self._connections if c.buffered), key=lambda c: c.heard)
            idle.complain("too many unfinished packets, and its came no further for longest: closed")
            idle.transport.abort()


def _letter(job: Job, handle: bytes, reason: str, now: float) -> Letter:
    """The dead letter of a job: with its task's id where the payload is a message, which nobody verified."""
    try:
        task = reading.read(job.data)
    except BadMessage:
        task = None
    fields = {} if task is None else {"id": task.id, "service": task.service, "target": task.target}
    fields |= {
        "queue": job.function.name.decode("utf-8", "surrogateescape"),
        "unique": job.unique.decode("utf-8", "surrogateescape"),
        "priority": PRIORITIES[job.priority],
        "handle": handle.decode(),
        "died": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "attempts": str(job.attempts),
        "reason": reason,
        "trusted": "no",
    }
    return Letter(job.data, fields)

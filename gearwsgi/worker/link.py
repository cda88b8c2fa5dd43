"""A worker's connection to one job server, in the supervisor's loop: kept up, asleep or grabbing, and watched.

It says what happens to its owner and decides nothing about jobs.
"""

import queue
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ..address import Address
from ..errors import ProtocolError, ServerError, ServerUnavailable
from ..wire import connection, packets
from ..wire.payload import Grabbed
from .loop import Loop, Stream

SLEEP_AGAIN = 1.0
"""Seconds after which an idle worker sends PRE_SLEEP again: gearmand 1.1.20 wakes nobody for a job that is due."""
ECHO_AFTER = 10.0
"""Seconds of silence after which ECHO_REQ asks whether the job server lives."""
DEAD_AFTER = 25.0
"""Seconds of silence after which it does not."""
RECONNECT_MAX = 2.0
"""Seconds between two tries to connect, at most."""

_GRAB = packets.pack(packets.GRAB_JOB_UNIQ)
_SLEEP = packets.pack(packets.PRE_SLEEP)
_ECHO = packets.pack(packets.ECHO_REQ, b"gearwsgi")


class Owner(Protocol):
    """What a link tells its slot."""

    def on_connected(self, link: "Link") -> None: ...
    def on_job(self, link: "Link", job: Grabbed) -> None: ...
    def on_no_job(self, link: "Link") -> None: ...
    def on_work(self, link: "Link") -> None: ...
    def on_lost(self, link: "Link", reason: str) -> None: ...


class Connector:
    """Connects in threads of its own, for a name that doesn't resolve or a server that is silent must stop nobody."""

    def __init__(self, loop: Loop, timeout: float) -> None:
        self._timeout = timeout
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        loop.listen(self._read, self._ready)

    def connect(self, address: Address, then: Callable[[socket.socket | None, str], None]) -> None:
        """Call `then` in the loop with a connected socket, or with None and the reason."""
        threading.Thread(target=self._connect, args=(address, then), daemon=True, name=f"connect {address}").start()

    def _connect(self, address: Address, then: Callable[[socket.socket | None, str], None]) -> None:
        try:
            sock, reason = connection.open_socket(address, self._timeout), ""
            self._done.put(lambda: then(sock, reason))
        except ServerUnavailable as error:
            text = str(error)
            self._done.put(lambda: then(None, text))
        try:
            self._write.send(b"!")
        except BlockingIOError:
            return  # the loop has been woken often enough

    def _ready(self) -> None:
        self._read.recv(4096)
        while not self._done.empty():
            self._done.get()()


class Link:
    """One connection, and its state.

    `is_up` says whether it stands; `has_work` whether a grab may find a job; `grabs` how many are not answered.

    Args:
        address: the job server.
        queues: the functions it serves; the first is drained first.
        name: what the job server's `workers` shows.
        loop: the supervisor's.
        connector: opens sockets.
        owner: the slot.
        max_job: bytes that a job may have.
    """

    def __init__(
        self,
        address: Address,
        queues: Sequence[str],
        name: str,
        loop: Loop,
        connector: Connector,
        owner: Owner,
        *,
        max_job: int,
    ) -> None:
        self.address = address
        self._queues = queues
        self._functions = {queue.encode() for queue in queues}
        self._name = name
        self._loop = loop
        self._connector = connector
        self._owner = owner
        self._stream: Stream | None = None
        self._max_job = max_job
        self._packets = packets.PacketReader(max_job)
        self._created: deque[Callable[[str, ServerError | None], None]] = deque()
        self._connecting = False
        self._retry_at = 0.0
        self._failures = 0
        self._slept_at = 0.0
        self._heard_at = 0.0
        self._echoed = False
        self.generation = 0
        self.is_up = False
        self.is_asleep = False
        self.has_work = False
        self.grabs = 0
        self.closed = False
        self.trouble = ""

    @property
    def awaits(self) -> int:
        """Submits that the job server has not answered yet."""
        return len(self._created)

    def open(self) -> None:
        """Connect, in the background."""
        if not (self._connecting or self.is_up or self.closed):
            self._connecting = True
            self._connector.connect(self.address, self._connected)

    def close(self) -> None:
        """Send what is written, and close it; jobs that it holds go back into the job server's queue."""
        self.closed = True
        if self._stream is not None:
            self._stream.flush()
        self._drop()

    def grab(self, count: int) -> None:
        """Ask for so many jobs."""
        self.grabs += count
        self.is_asleep = False
        self.send(_GRAB * count)

    def sleep(self, now: float) -> None:
        """Ask to be woken when there is a job."""
        self.is_asleep = True
        self._slept_at = now
        self.send(_SLEEP)

    def send(self, data: bytes) -> None:
        """Send packets."""
        if self._stream is not None:
            self._stream.send(data)

    def submit(self, packet: bytes, then: Callable[[str, ServerError | None], None]) -> None:
        """Submit a job; `then` gets its handle, or the error that the job server answered.

        Where the connection is lost before the answer, the error is CONNECTION_LOST: whether it was queued is not
        known.
        """
        self._created.append(then)
        self.send(packet)

    def tick(self, now: float) -> None:
        """What time brings: a new try to connect, PRE_SLEEP again, a look whether the job server lives."""
        if self.closed:
            return
        if not self.is_up:
            if not self._connecting and now >= self._retry_at:
                self.open()
            return
        silent = now - self._heard_at
        if silent > DEAD_AFTER:
            self._lost(f"no answer for {silent:.0f} s")
            return
        if silent > ECHO_AFTER and not self._echoed:
            self._echoed = True
            self.send(_ECHO)
        if self.is_asleep and now - self._slept_at >= SLEEP_AGAIN:
            self.sleep(now)

    def _connected(self, sock: socket.socket | None, reason: str) -> None:
        self._connecting = False
        if self.closed:
            if sock is not None:
                sock.close()
            return
        if sock is None:
            self._wait(reason)
            self._owner.on_lost(self, reason)
            return
        self._packets = packets.PacketReader(self._max_job)
        self._stream = Stream(sock, self._loop, self._on_data, self._lost)
        self.generation += 1
        self.is_up = True
        self.has_work = True
        self._echoed = False
        self._heard_at = time.monotonic()
        abilities = [packets.pack(packets.SET_CLIENT_ID, self._name.encode())]
        # gearmand drains the function that was added last first.
        abilities += [packets.pack(packets.CAN_DO, queue.encode()) for queue in reversed(self._queues)]
        self.send(b"".join(abilities))
        self._owner.on_connected(self)

    def _on_data(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._failures = 0
        self._echoed = False
        for kind, parameters in self._packets.feed(data):
            self._on_packet(kind, parameters)
            if not self.is_up:
                return

    def _on_packet(self, kind: int, parameters: list[bytes]) -> None:
        if kind in (packets.JOB_ASSIGN_UNIQ, packets.JOB_TOO_LARGE):
            self.grabs -= 1
            self.has_work = True
            handle, function, unique, payload, *size = parameters
            if function not in self._functions:
                raise ProtocolError(f"a job of queue {function!r}, which nobody asked for")
            self._owner.on_job(self, Grabbed(handle, function, unique, payload, int(size[0]) if size else 0))
        elif kind == packets.NO_JOB:
            self.grabs -= 1
            self.has_work = False
            self._owner.on_no_job(self)
        elif kind == packets.NOOP:
            self.is_asleep = False
            self.has_work = True
            self._owner.on_work(self)
        elif kind == packets.JOB_CREATED:
            if self._created:
                self._created.popleft()(parameters[0].decode("utf-8", "replace"), None)
        elif kind == packets.ERROR:
            error = packets.parse_error(parameters, str(self.address))
            # JOB_NOT_FOUND answers what we said of a job; anything else, a submit.
            if error.code != "JOB_NOT_FOUND" and self._created:
                self._created.popleft()("", error)
        elif kind != packets.ECHO_RES:
            raise ProtocolError(f"packet {kind} has no place here")

    def _lost(self, reason: str) -> None:
        unanswered = list(self._created)
        self._drop()
        self._wait(reason)
        for then in unanswered:
            then("", ServerError("CONNECTION_LOST", reason, str(self.address)))
        self._owner.on_lost(self, reason)

    def _drop(self) -> None:
        self.is_up = self.is_asleep = self.has_work = False
        self.grabs = 0
        self._created.clear()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _wait(self, reason: str) -> None:
        self.trouble = reason
        self._failures += 1
        delay = min(RECONNECT_MAX, 0.05 * 2 ** min(self._failures, 10))
        self._retry_at = time.monotonic() + delay * (0.5 + random.random() / 2)

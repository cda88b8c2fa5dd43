"""A slot's link to one job server, in the supervisor's loop: it connects, connects again when the connection is lost,
and tells the slot of both.

The states of a `Link`, and what leads from one to the next:

    CONNECTING -- connected --> UP -- lost --> WAITING -- its time has come --> CONNECTING
    CONNECTING -- refused --> WAITING
    any        -- close() --> CLOSED

While it is UP it has a `Session`: one connection, made anew each time.
"""

import contextlib
import queue
import random
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from ..address import Address
from ..errors import ServerUnavailable
from ..wire import connection
from . import session
from .loop import Loop
from .session import Profile, Session

RECONNECT_MAX = 2.0
"""Seconds between two tries to connect, at most; a connection that stood for longer is no failure."""


class Owner(session.Owner, Protocol):
    """What a link and its session tell their slot."""

    def on_connected(self, link: "Link") -> None: ...
    def on_refused(self, link: "Link", reason: str) -> None: ...
    def on_lost(self, link: "Link", reason: str) -> None: ...


class Backoff:
    """When to try something again: after each failure in a row the pause is twice as long, with jitter.

    Args:
        first: seconds of the first pause, doubled.
        most: seconds of the longest.

    Attributes:
        failures: how many there were in a row; to be set to 0 after a success.
        due_at: when to try again, of `time.monotonic`.
    """

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self.failures = 0
        self.due_at = 0.0

    def fail(self) -> None:
        """One more failure."""
        self.failures += 1
        pause = min(self._most, self._first * 2.0 ** min(self.failures, 10))
        self.due_at = time.monotonic() + pause * (0.5 + random.random() / 2)


class Connector:
    """Connects to job servers in threads of its own: a name that doesn't resolve, or a silent server, must not stop the
    loop."""

    def __init__(self, loop: Loop, timeout: float) -> None:
        self._timeout = timeout
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        loop.listen(self._read, self._ready)

    def connect(self, address: Address, then: Callable[[socket.socket | None, str], None]) -> None:
        """Call `then` in the loop with a connected socket, or with None and the reason."""
        thread = threading.Thread(target=self._connect, args=(address, then), daemon=True, name=f"connect {address}")
        try:
            thread.start()
        except RuntimeError as error:
            text = f"no thread to connect in: {error}"
            self.tell(lambda: then(None, text))

    def _connect(self, address: Address, then: Callable[[socket.socket | None, str], None]) -> None:
        try:
            sock = connection.open_socket(address, self._timeout)
        except ServerUnavailable as error:
            text = str(error)
            self.tell(lambda: then(None, text))
        except Exception as error:
            # No such error is known. Should one occur, the link tries again, as after any other failure.
            text = f"{type(error).__name__}: {error}"
            self.tell(lambda: then(None, text))
        else:
            self.tell(lambda: then(sock, ""))

    def tell(self, what: Callable[[], None]) -> None:
        """Have the loop call `what`; may be called from any thread."""
        self._done.put(what)
        try:
            self._write.send(b"!")
        except BlockingIOError:
            return  # so much is in the pipe already that the loop will wake

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(4096)
        while not self._done.empty():
            self._done.get()()

    def close(self) -> None:
        """Close its own sockets; connections that are still being made are told to nobody."""
        self._read.close()
        self._write.close()


class LinkState(Enum):
    """The states of a `Link`: see the module."""

    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    CLOSED = "closed"


class Link:
    """Keeps a connection to one job server: while one stands, `session` is that connection.

    Args:
        address: the job server.
        profile: what a job server is told.
        loop: the supervisor's.
        connector: opens sockets.
        owner: the slot.
    """

    def __init__(self, address: Address, profile: Profile, loop: Loop, connector: Connector, owner: Owner) -> None:
        self.address = address
        self.session: Session | None = None
        self._owner = owner
        self.backoff = Backoff(0.05, RECONNECT_MAX)
        self._profile = profile
        self._loop = loop
        self._connector = connector
        self._state = LinkState.WAITING
        self._up_since = 0.0

    def open(self) -> None:
        """Connect, in the background."""
        if self._state is LinkState.WAITING:
            self._state = LinkState.CONNECTING
            self._connector.connect(self.address, self._connected)

    def close(self) -> None:
        """Send what is written, and close it; jobs that it holds go back into the job server's queue."""
        self._state = LinkState.CLOSED
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def tick(self, now: float) -> None:
        """Do what is due by now: try to connect again, or have the session look at the clock."""
        if self.session is not None:
            self.session.tick(now)
        elif now >= self.backoff.due_at:
            self.open()

    def _connected(self, sock: socket.socket | None, reason: str) -> None:
        if self._state is LinkState.CLOSED:
            if sock is not None:
                sock.close()
        elif sock is None:
            self._wait(reason)
        else:
            try:
                self.session = Session(sock, self, self._owner, self._profile, self._loop)
            except OSError as error:
                sock.close()
                self._wait(f"the connection can't be watched: {error}")
                return
            self._state = LinkState.UP
            self._up_since = time.monotonic()
            self._owner.on_connected(self)

    def refused(self, reason: str) -> None:
        """Tell the slot that the job server does not know the packet by which it was asked for jobs."""
        self._owner.on_refused(self, reason)

    def lost(self, reason: str) -> None:
        """Wait and connect again: the session is lost. One that did not last counts as a failure to connect."""
        self.session = None
        if time.monotonic() - self._up_since > RECONNECT_MAX:
            self.backoff.failures = 0
        self._wait(reason)

    def _wait(self, reason: str) -> None:
        if self._state is LinkState.CLOSED:
            return
        self._state = LinkState.WAITING
        self.backoff.fail()
        self._owner.on_lost(self, reason)

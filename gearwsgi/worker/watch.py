"""Asks a job server which keys of limits have something waiting or running, a few times a second, in its own thread."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from .. import log
from ..address import Address
from ..errors import ServerUnavailable
from ..message.limits import SEPARATOR
from ..wire.connection import Connection

EVERY = 0.25
"""Seconds between two questions, at least."""
SHARE = 50
"""So many times as long as an answer takes to be read is waited until the next question: two percent of a core."""
TIMEOUT = 2.0
"""Seconds until a job server must have answered."""
IDLE = 60.0
"""Seconds that a key's queue on an embedded job server is empty until it is dropped."""
_MOST = 500
"""Queues that are dropped between two questions, at most."""


class Count(NamedTuple):
    """What a job server says of a key's queue: jobs that wait (of gearmand those that are delayed, too), and run."""

    waiting: int
    running: int


Answer = Mapping[str, Count] | None
"""The queues of keys that have jobs, by their names; None: the job server does not answer."""


class Watch:
    """See the module.

    Args:
        address: the job server.
        tell: has the loop call something.
        then: called in the loop with the address, when it was asked (of `time.monotonic`), and the answer.
    """

    def __init__(
        self,
        address: Address,
        tell: Callable[[Callable[[], None]], None],
        then: Callable[[Address, float, Answer], None],
    ) -> None:
        self.address = address
        self._tell = tell
        self._then = then
        self._stop = threading.Event()
        self._taken = threading.Event()
        self._took = 0.0
        self._empty: dict[str, float] = {}
        self._connection: Connection | None = None
        self._is_ours = False
        self._thread: threading.Thread | None = None
        self._has_no_thread = False

    def tend(self) -> None:
        """Have the thread run: the system may have had none before."""
        if self._thread is None and not self._stop.is_set():
            thread = threading.Thread(target=self._run, daemon=True, name=f"gearwsgi limits {self.address}")
            try:
                thread.start()
            except RuntimeError as error:
                if not self._has_no_thread:
                    log.note(f"no thread to look after limits in: {error}")
                self._has_no_thread = True
            else:
                self._thread = thread

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._taken.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began, used = time.monotonic(), time.thread_time()
            answer = self._ask()
            self._taken.clear()
            self._tell(partial(self._deliver, began, answer))
            self._taken.wait()  # so the loop is never given more than it can take
            pause = max(EVERY, SHARE * (time.thread_time() - used + self._took))
        if self._connection is not None:
            self._connection.close()

    def _deliver(self, began: float, answer: Answer) -> None:
        used = time.thread_time()
        if not self._stop.is_set():
            self._then(self.address, began, answer)
        self._took = time.thread_time() - used
        self._taken.set()

    def _ask(self) -> Answer:
        try:
            if self._connection is None:
                connection = Connection(self.address, TIMEOUT)
                self._is_ours = any("+gearwsgi" in line for line in connection.admin("version", TIMEOUT))
                self._connection = connection
            lines = self._connection.admin("show queues" if self._is_ours else "status", TIMEOUT)
            found, empty = self._read(line for line in lines if SEPARATOR in line)
            if self._is_ours:
                self._drop(empty)
        except (ServerUnavailable, ValueError):
            # It is away, or is no job server: whoever connects to it for jobs says so.
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            return None
        return found

    def _read(self, lines: Iterable[str]) -> tuple[dict[str, Count], list[str]]:
        """The queues that have jobs, and those that have had neither jobs nor workers for a while."""
        found: dict[str, Count] = {}
        empty: dict[str, float] = {}
        now = time.monotonic()
        for line in lines:
            # Ours says how many are ready, and how many delayed; gearmand how many there are in all.
            name, first, *more = line.rsplit("\t", 5 if self._is_ours else 3)
            later, running, workers = map(int, more[:3] if self._is_ours else ("0", *more))
            waiting = int(first) - (0 if self._is_ours else running)
            if waiting or running:
                found[name] = Count(waiting, running)
            elif not (later or workers):
                empty[name] = self._empty.get(name, now)
        self._empty = empty
        return found, [name for name, since in empty.items() if now - since > IDLE][:_MOST]

    def _drop(self, names: Iterable[str]) -> None:
        """Have the job server forget queues: ours does not while one has jobs, also where they came just now.

        gearmand would drop their jobs with them, so there they stay.
        """
        assert self._connection is not None
        for name in names:
            self._connection.admin(f"drop function {name}", TIMEOUT)
            del self._empty[name]

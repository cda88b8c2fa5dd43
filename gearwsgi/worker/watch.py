"""Asks a job server, from a thread and a few times a second, for which keys of limits something waits or runs."""

import re
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
"""The pause until the next question, as a multiple of the time that it takes to read an answer: two percent of a core.
"""
SERVERS_SHARE = 10
SLOWEST = 2.0
"""The pause is also `SERVERS_SHARE` times as long as the answer took to come, but for that no longer than `SLOWEST`
seconds: gearmand lists every queue that it ever had, a hundred thousand in a tenth of a second of its own time."""
TIMEOUT = 2.0
"""Seconds until a job server must have answered."""
IDLE = 60.0
"""Seconds that a key's queue on an embedded job server is empty until it is dropped."""
_MOST = 500
"""Queues that are dropped between two questions, at most."""
_BUSY = re.compile(rb"\t([1-9]\d*)\t(\d+)\t\d+\n")
"""The end of a line of gearmand's `status` for a queue that has jobs: how many there are, and how many run."""


class Count(NamedTuple):
    """How many jobs of a key's queue wait (gearmand counts delayed ones too), and how many run."""

    waiting: int
    running: int


Answer = Mapping[str, Count] | None
"""The queues of keys that have jobs, by their names; None: the job server does not answer."""


class Watch:
    """The thread that asks one job server, again and again.

    Args:
        address: the job server.
        tell: has a function called in the loop.
        then: called in the loop with the address, the time of the question (by `time.monotonic`), and the answer.
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
        """Start the thread where it does not run: the system may have had none to give before."""
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
            waited = time.monotonic() - began
            self._taken.clear()
            self._tell(partial(self._deliver, began, answer))
            self._taken.wait()  # so that the loop is never given more than it can take
            used = time.thread_time() - used + self._took
            pause = max(EVERY, SHARE * used, min(SLOWEST, SERVERS_SHARE * waited))
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
            if not self._is_ours:
                return _read_status(bytes(self._connection.ask("status", TIMEOUT)))
            lines = self._connection.admin("show queues", TIMEOUT)
            found, empty = self._read(line for line in lines if SEPARATOR in line)
            self._drop(empty)
        except (ServerUnavailable, ValueError):
            # It is away, or is no job server: whoever connects to it for jobs will log that.
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
            name, *numbers = line.rsplit("\t", 5)
            waiting, later, running, workers = map(int, numbers[:4])
            if waiting or running:
                found[name] = Count(waiting, running)
            elif not (later or workers):
                empty[name] = self._empty.get(name, now)
        self._empty = empty
        return found, [name for name, since in empty.items() if now - since > IDLE][:_MOST]

    def _drop(self, names: Iterable[str]) -> None:
        """Have an embedded job server drop queues. It keeps those that have jobs, even if they came just now.

        gearmand would drop such jobs too, so its queues are left alone.
        """
        assert self._connection is not None
        for name in names:
            self._connection.admin(f"drop function {name}", TIMEOUT)
            del self._empty[name]


def _read_status(answer: bytes) -> dict[str, Count]:
    """The queues of keys that have jobs, picked from gearmand's `status`, which lists all queues it ever had."""
    found = {}
    for match in _BUSY.finditer(answer):
        name = answer[answer.rfind(b"\n", 0, match.start()) + 1 : match.start()].decode("utf-8", "replace")
        if SEPARATOR in name:
            total, running = map(int, match.groups())
            found[name] = Count(total - running, running)
    return found

"""Asks the job servers about their queues: all at the same time, only once in a while, and without waiting for long."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..address import Address
from ..errors import GearwsgiError
from ..message.fields import MAILBOX
from ..wire.connection import Connection

TIMEOUT = 1.0
"""Seconds in which a job server must have answered."""
KEEP = 2.0
"""Seconds for which an answer is used again."""


class Queue(NamedTuple):
    """What a job server says of one queue.

    Attributes:
        waiting: jobs that wait; with gearmand, delayed ones too.
        delayed: jobs that are not due yet, where the job server counts them apart.
        running: jobs that run.
        oldest: seconds that the first job has waited; None: this job server does not say.
    """

    waiting: int
    delayed: int
    running: int
    oldest: float | None


Answer = Mapping[str, Queue] | None
"""The queues of a job server by their names; None: it does not answer."""


@dataclass
class _Asking:
    """One question to one job server, asked in a thread of its own."""

    address: Address
    answer: Answer = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi metrics: job server")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = ask(self.address)
        except (GearwsgiError, ValueError):
            self.answer = None  # it is away, or is no job server: the caller need not know more


class JobServers:
    """The job servers, to be asked by any number of threads at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking: dict[Address, _Asking] = {}
        self._found: dict[Address, Answer] = {}
        self._found_at = -KEEP

    def look(self, addresses: Sequence[Address]) -> Mapping[Address, Answer]:
        """What each of them says. An answer may be `KEEP` seconds old, and is waited for at most `TIMEOUT` seconds."""
        with self._lock:
            if time.monotonic() - self._found_at >= KEEP or set(self._found) != set(addresses):
                self._found = self._ask(addresses)
                self._found_at = time.monotonic()
            return self._found

    def _ask(self, addresses: Sequence[Address]) -> dict[Address, Answer]:
        for address in addresses:
            before = self._asking.get(address)
            if before is None or not before.thread.is_alive():  # else it still waits, say for a silent name server
                self._asking[address] = _Asking(address)
        deadline = time.monotonic() + TIMEOUT
        found: dict[Address, Answer] = {}
        for address in addresses:
            asking = self._asking[address]
            asking.thread.join(max(0.0, deadline - time.monotonic()))
            found[address] = None if asking.thread.is_alive() else asking.answer
        return found


def ask(address: Address) -> dict[str, Queue]:
    """The queues of a job server.

    Raises:
        GearwsgiError: it does not answer, or not as a job server does.
    """
    connection = Connection(address, TIMEOUT)
    try:
        is_ours = any("+gearwsgi" in line for line in connection.admin("version", TIMEOUT))
        lines = connection.admin("show queues" if is_ours else "status", TIMEOUT)
    finally:
        connection.close()
    rows = [line.rsplit("\t", 5 if is_ours else 3) for line in lines]
    queues = [row for row in rows if not row[0].startswith(MAILBOX)]
    return dict(map(_read_own if is_ours else _read_status, queues))


def _read_status(row: list[str]) -> tuple[str, Queue]:
    name, total, running, _workers = row
    return name, Queue(int(total) - int(running), 0, int(running), None)


def _read_own(row: list[str]) -> tuple[str, Queue]:
    name, ready, delayed, running, _workers, oldest = row
    return name, Queue(int(ready), int(delayed), int(running), float(oldest))

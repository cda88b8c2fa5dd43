"""Retention: removes the dead letters that settings say are too old or too many."""

import heapq
import logging
import threading
import time
from itertools import islice

from ..errors import SpoolError
from .spool import Spool

_log = logging.getLogger("gearwsgi")

_BITE = 1000
"""Letters that are chosen at a time; so many are in memory at once."""
_SHARE = 20
"""The pause, as a multiple of the time that was worked; it is a second at least."""


class Retention:
    """Removes letters in a thread of its own, after a new one has come: looking through a large folder takes a while.

    Args:
        spool: the letters.
        max_age: seconds that a letter is kept; None: for ever.
        max_count: how many letters are kept, the newest ones; None: all.
    """

    def __init__(self, spool: Spool, max_age: float | None, max_count: int | None) -> None:
        self._spool = spool
        self._max_age = max_age
        self._max_count = max_count
        self._lock = threading.Lock()
        self._wanted = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread look through the letters soon. Where the system has no thread, the next call tries again."""
        if self._max_age is None and self._max_count is None:
            return
        with self._lock:
            self._wanted = True
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi retention")
                try:
                    thread.start()
                except RuntimeError as error:
                    _log.warning("dead letters: old ones stay for now: %s", error)
                else:
                    self._thread = thread

    def _run(self) -> None:
        rest = threading.Event()  # never set, so a wait is a pause; nobody waits for this thread to end
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
            began = time.monotonic()
            try:
                self.sweep()
            except SpoolError as error:
                _log.warning("dead letters: old ones stay for now: %s", error)
            rest.wait(max(1.0, _SHARE * (time.monotonic() - began)))

    def sweep(self) -> None:
        """Remove all letters that are over a limit now.

        Raises:
            SpoolError: the folder can't be used.
        """
        while names := self._over():
            for name in names:
                if self._spool.remove(name):
                    _log.warning("dead letters: removed %s, over dead_max_age or dead_max_count", name)

    def _over(self) -> list[str]:
        """Some letters that are over a limit; none when there are no more."""
        if self._max_age is not None:
            limit = time.time() - self._max_age
            if old := list(islice((name for written, name in self._spool.dated() if written < limit), _BITE)):
                return old
        excess = self._spool.count() - self._max_count if self._max_count is not None else 0
        if excess <= 0:
            return []
        return [name for _, name in heapq.nsmallest(min(excess, _BITE), self._spool.dated())]

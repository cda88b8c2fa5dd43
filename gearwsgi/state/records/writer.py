"""The thread that writes records: it gathers what happens, and writes it a few times a second in one transaction.

Nothing here delays a job. While the database is slow, locked, full or away, rows wait; what can't be held any longer is
dropped, counted, and logged once.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ...errors import GearwsgiError, RecordsUnavailable
from ...settings import Settings
from .database import Refused
from .letters import Letters
from .opening import open_database
from .pending import Found, Happened, Pending
from .remembered import recall, remember
from .retention import Retention
from .steering import Request
from .store import Store

_log = logging.getLogger("gearwsgi")

INTERVAL = 0.25
"""Seconds between two transactions."""
MANY = 1500
"""From so many rows on, the next transaction does not wait."""
AGAIN = 1.0
"""Seconds until the next try after one that failed."""
BEAT = 2.0
"""Seconds between two signs of life of the supervisor."""
LOOK = 0.75
"""Seconds between two looks for new requests."""
ROUND = 25.0
"""Seconds between two rounds of retention."""
BITE = 0.1
"""Seconds that removing old records may take between two transactions."""
MAX_WORKS = 1000


class Writer:
    """The thread, and what it is given to write.

    Args:
        settings: the middleware's; records are on.
        name: this supervisor's name, which no other one that shares the records has.
        read: says what is to be written for a small event: see `Happened`.
    """

    def __init__(self, settings: Settings, name: str, read: Callable[[Any], Found] = lambda event: None) -> None:
        self._settings = settings
        self._name = name
        self._about: dict[str, Any] | None = None
        self._withdrawn: list[Request] = []
        self._works: deque[Callable[[Store], None]] = deque(maxlen=MAX_WORKS)
        self._is_stopping = False
        self._wake = threading.Event()
        self.happened = Happened(read, self._wake)
        """The events that it is given."""
        self._thread: threading.Thread | None = None
        self._has_no_thread = False
        self.is_away = False
        """Whether the database could not be written to the last time."""
        self.requests = tuple(recall(settings.state_dir))
        """The requests to supervisors as of the last look; the tuple is replaced and never changed."""
        self.has_looked = threading.Event()
        """Set once `requests` was read; until then they are the remembered ones."""

    # -- the supervisor's side ---------------------------------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many records were not written and never will be."""
        return self.happened.dropped

    def start(self) -> None:
        """Begin to write, and look for requests at once.

        Where the system has no thread to give now, the next `beat` tries again.
        """
        thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi records")
        self._wake.set()
        try:
            thread.start()
        except RuntimeError as error:
            if not self._has_no_thread:
                _log.warning("records: they wait: %s", error)
            self._has_no_thread = True
        else:
            self._thread = thread

    def beat(self, about: dict[str, Any]) -> None:
        """Write, as a sign of life, what the supervisor says of itself; repeated until the next call."""
        self._about = about
        if self._thread is None:
            self.start()

    def withdraw(self, request: Request) -> None:
        """Note that a request was fulfilled."""
        self._withdrawn.append(request)

    def do(self, work: Callable[[Store], None]) -> None:
        """Have this done in the thread, in the order of the calls; it is repeated where the database is away."""
        self._works.append(work)
        self._wake.set()

    def stop(self, patience: float = 3.0) -> None:
        """Write what is left, unless that takes longer than `patience`, and end."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(patience)

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            database = open_database(self._settings)
        except RecordsUnavailable as error:
            _log.error("records: none are written: %s", error)
            self.is_away = True
            return
        assert database is not None
        work = _Work(Store(database), self._settings, self._name)
        said = 0
        stopping = False
        while not stopping:
            self._wake.wait(AGAIN if self.is_away else INTERVAL)
            self._wake.clear()
            stopping = self._is_stopping
            self.happened.gather(work.pending)
            if self.dropped and not said:
                _log.warning("records: more wait than can be held: from now on the oldest are dropped")
            said = self.dropped
            try:
                self._turn(work, stopping)
            except GearwsgiError as error:
                if not self.is_away:
                    _log.warning("records: %s; jobs go on, and records wait", error)
                self.is_away = True
                continue
            if self.is_away:
                _log.warning("records: written again, %d were dropped until now", self.dropped)
            self.is_away = False
        database.close()
        if work.pending:
            _log.warning("records: %d could not be written", len(work.pending))

    def _turn(self, work: "_Work", stopping: bool) -> None:
        while self._works:
            self._works[0](work.store)
            self._works.popleft()
        withdrawn = self._withdrawn[:]
        try:
            requests = work.write(withdrawn, self._about, stopping)
        finally:
            self.happened.drop(work.take_refused())
        del self._withdrawn[: len(withdrawn)]
        if requests is not None:
            if requests != list(self.requests) or not self.has_looked.is_set():
                remember(self._settings.state_dir, requests)
            self.requests = tuple(requests)
            self.has_looked.set()
            self._withdrawn += work.forget(requests)
        if not stopping:
            work.tidy()


class _Work:
    """What the thread does with the database, and when each part is due."""

    def __init__(self, store: Store, settings: Settings, name: str) -> None:
        self.pending = Pending()
        self.store = store
        self._name = name
        self._retention = Retention(store, settings)
        self._letters = Letters(store, settings)
        self._rows_at = self._beat_at = self._look_at = self._round_at = 0.0
        self._seen: set[str] | None = None
        self._refused = 0

    def write(self, withdrawn: list[Request], about: dict[str, Any] | None, stopping: bool) -> list[Request] | None:
        """Write all that is due. Returns the requests, where it was time to look for them, else None.

        Raises:
            RecordsUnavailable: the database can't take it now.
        """
        now = time.monotonic()
        beats = stopping or (about is not None and now >= self._beat_at)
        looks = now >= self._look_at
        fills = stopping or now >= self._rows_at or len(self.pending) >= MANY
        if not ((self.pending and fills) or withdrawn or beats or looks):
            return None
        database = self.store.database
        clock = database.now()
        requests = None
        if withdrawn or beats or looks:
            with database.transaction(write=bool(withdrawn or beats)) as transaction:
                for request in withdrawn:
                    self.store.steering.obeyed(transaction, request, clock)
                if stopping:
                    self.store.leave(transaction, self._name)
                elif beats and about is not None:
                    self.store.hear(transaction, self._name, clock, about)
                if looks:
                    requests = self.store.steering.requests(transaction, clock)
            self._beat_at = now + BEAT if beats else self._beat_at
            self._look_at = now + LOOK if looks else self._look_at
        if fills:
            self._write_rows(clock)
            self._rows_at = time.monotonic() + INTERVAL
        return requests

    def forget(self, requests: list[Request]) -> list[Request]:
        """Remove dead letters here that were retried or discarded elsewhere; returns the requests that this fulfils."""
        return self._letters.forget(requests)

    def take_refused(self) -> int:
        """How many rows the database has refused since the last call."""
        number, self._refused = self._refused, 0
        return number

    def tidy(self) -> None:
        """Remove some old records; where it is time, compare the records with the dead letters here and begin a round.

        Raises:
            RecordsUnavailable, SpoolError: it can't be done now.
        """
        now = time.monotonic()
        if self._seen is not None:
            self._letters.compare(self._seen)
            self._seen = None
        if now >= self._round_at:
            self._round_at = now + ROUND
            self._retention.begin()
            self._seen = self._letters.names()
        self._retention.work(BITE)

    def _write_rows(self, clock: float) -> None:
        pending = self.pending
        if not pending:
            return
        keys = [*pending.rows, *pending.finished]
        try:
            self._put(keys, clock)
        except Refused:
            # One of them can't be stored: write each by itself, so that the others are.
            for key in keys:
                try:
                    self._put([key], clock)
                except Refused as error:
                    self._refused += 1
                    _log.warning("records: id %s can't be written: %s", key, error)
                pending.remove(key)
            return
        for key in keys:
            pending.remove(key)

    def _put(self, keys: list[str], clock: float) -> None:
        pending, rows, finished = self.pending, self.pending.rows, self.pending.finished
        with self.store.database.transaction(write=True) as transaction:
            # In the order of their ids, as in the index, so that each of its pages is written once.
            self.store.put_finished(
                transaction, [finished[key] for key in sorted(key for key in keys if key in finished)]
            )
            self.store.put(transaction, [rows[key] for key in keys if key in rows])
            for key in pending.results.keys() & keys:
                seconds, content = pending.results[key]
                self.store.keep_result(transaction, key, clock + seconds, content)
            for key in pending.letters.keys() & keys:
                for name in pending.letters[key]:
                    self._letters.keep(transaction, name, key)

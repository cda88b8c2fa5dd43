"""Records written by the process that queues a task, so that the task is known at once, with its message.

Only for tasks for which that is asked. The records of all others are written by the supervisor that runs them.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ...message.limits import split_queue
from ...settings import Settings
from ...wire.payload import Submission
from . import model
from .facts import read_facts
from .opening import open_database
from .rows import clean, clean_id
from .store import Store, unavailable

MAX_IDLE = 16
"""How many connections are kept open for the next tasks."""


class QueuedRecords:
    """Writes such records. For any number of threads and forked processes.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[tuple[int, Store]] = deque()
        self._foreign: list[Store] = []

    def write(self, submissions: Sequence[Submission]) -> None:
        """Write records of these tasks, in one transaction. What a supervisor has written already is left as it is.

        Raises:
            RecordsUnavailable: they are off, or can't be written.
        """
        now = time.time()
        rows = [_values(each, now) for each in submissions]
        with self._taken() as store, store.database.transaction(write=True, single=len(rows) == 1) as transaction:
            store.put_queued(transaction, rows)

    def forget(self, submission: Submission) -> None:
        """Remove the record of a task that was not queued after all.

        Raises:
            RecordsUnavailable: they are off, or can't be written.
        """
        with self._taken() as store, store.database.transaction(write=True, single=True) as transaction:
            store.forget_queued(transaction, submission.id)

    @contextlib.contextmanager
    def _taken(self) -> Iterator[Store]:
        """A connection for the block; it is kept open if the block goes well."""
        store = self._take()
        yield store
        if len(self._idle) < MAX_IDLE:
            self._idle.append((os.getpid(), store))
        else:
            store.database.close()

    def _take(self) -> Store:
        while self._idle:
            try:
                pid, store = self._idle.pop()
            except IndexError:
                break  # another thread has taken it
            if pid == os.getpid():
                return store
            self._foreign.append(store)  # made before a fork: closing it would disturb the parent process
        database = open_database(self._settings)
        if database is None:
            raise unavailable()
        return Store(database)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            pid, store = self._idle.pop()
            if pid == os.getpid():
                store.database.close()


def _values(submission: Submission, now: float) -> tuple[Any, ...]:
    """The values for the columns `WAITING`."""
    facts = read_facts(submission.payload, lambda: submission.id)
    return (
        clean_id(facts.id), clean(facts.service), clean(facts.method), clean(facts.path),
        clean(split_queue(submission.queue)[0]), facts.priority,
        model.SCHEDULED if submission.epoch(now) is not None else model.QUEUED, facts.queued or now, facts.due or None,
        facts.max_attempts, None if facts.request_id is None else clean(facts.request_id),
        None if facts.traceparent is None else clean(facts.traceparent), now, submission.payload,
    )  # fmt: skip

"""Records that are written when a task is queued, by who queues it: so it is known, with its message, at once.

Only of tasks for which that is asked; all others are written by the supervisor that runs them.
"""

import os
import time
from collections import deque
from collections.abc import Sequence

from ...message.limits import split_queue
from ...settings import Settings
from ...wire.payload import Submission
from . import model
from .facts import read_facts
from .opening import open_database
from .rows import QUEUED, Row, clean, clean_id, place
from .store import Store, unavailable

MAX_IDLE = 16
"""Connections that are kept for the next task."""


class QueuedRecords:
    """Writes them. Any number of threads and forked processes.

    Args:
        settings: the middleware's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: deque[tuple[int, Store]] = deque()
        self._foreign: list[Store] = []

    def write(self, submissions: Sequence[Submission]) -> None:
        """The records of these, in one transaction. What a supervisor has written by now stays.

        Raises:
            RecordsUnavailable: they are off, or can't be written.
        """
        store = self._take()
        now = time.time()
        with store.database.transaction(write=True) as transaction:
            store.put_queued(transaction, [(_row(each, now), each.payload) for each in submissions])
        if len(self._idle) < MAX_IDLE:
            self._idle.append((os.getpid(), store))
        else:
            store.database.close()

    def _take(self) -> Store:
        while self._idle:
            try:
                pid, store = self._idle.pop()
            except IndexError:
                break  # another thread was quicker
            if pid == os.getpid():
                return store
            self._foreign.append(store)  # to close it would be felt by the process that we were forked from
        database = open_database(self._settings)
        if database is None:
            raise unavailable()
        return Store(database)

    def close(self) -> None:
        """Let go of the connections that nobody uses."""
        while self._idle:
            pid, store = self._idle.pop()
            if pid == os.getpid():
                store.database.close()


def _row(submission: Submission, now: float) -> Row:
    facts = read_facts(submission.payload, lambda: submission.id)
    return Row(
        id=clean_id(facts.id), service=clean(facts.service), method=clean(facts.method), path=clean(facts.path),
        queue=clean(split_queue(submission.queue)[0]), priority=facts.priority,
        state=model.SCHEDULED if submission.epoch(now) is not None else model.QUEUED, queued=facts.queued or now,
        due=facts.due or None, started=None, ended=None, attempts=0, max_attempts=facts.max_attempts, done=None,
        total=None, status=None, reason=None, host=None, pid=None,
        request_id=None if facts.request_id is None else clean(facts.request_id),
        traceparent=None if facts.traceparent is None else clean(facts.traceparent), owner=None,
        place=place(1, QUEUED), changed=now, began=None, history="",
    )  # fmt: skip

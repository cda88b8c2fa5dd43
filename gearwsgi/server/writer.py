"""Decides when the queue's changes are written to disk, and which answers wait for that.

nothing to write -- a job is queued or moved --> end of turn  --.
      |                                                          +--> one commit of all --> nothing to write
      '--------- a job is done ----> behind, 10 ms at most -----'            |
                                        ^                                    | it failed: JOB_CREATEDs become
                                        '---------- in a second -------------'  errors, the rest is tried again
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Protocol

from .jobs import GONE, Changes, Job
from .log import Log
from .protocol import error
from .queues import Queue
from .store import Store

__all__ = ["Created", "Writer"]

BEHIND = 0.01  # seconds that a finished job may still be on disk, so that many go in one commit
AGAIN = 1.0  # seconds to wait with what could not be written
SHRINK = 0.5  # seconds until the file's free pages are looked at
NOT_STORED = error("QUEUE_ERROR", "Can't store the job")


class Created(Protocol):
    """A connection in whose answers a JOB_CREATED waits."""

    def replace(self, place: int, packet: bytes) -> None: ...


class Writer:
    """Writes what has changed in the queue, at most one commit in each turn of the event loop.

    Args:
        queue: the queue.
        store: the file that changes are written to.
        log: where troubles are logged.
        flush: sends all answers; called when none has to wait any longer.
    """

    def __init__(self, queue: Queue, store: Store, log: Log, flush: Callable[[], None]) -> None:
        self._queue = queue
        self._changes: Changes = queue.changes
        self._store = store
        self._log = log
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        self._created: list[tuple[Created, int, Job]] = []
        self._turn: asyncio.Handle | None = None
        self._behind: asyncio.TimerHandle | None = None
        self._shrink: asyncio.TimerHandle | None = None
        self._failing = False  # since the last commit
        self._noted = 0  # how many of the rows to delete are noted as done

    def created(self, connection: Created, place: int, job: Job) -> None:
        """Hold back the JOB_CREATED at this place of a connection's answers until its job is on disk."""
        self._created.append((connection, place, job))

    def look(self) -> None:
        """Look what has changed: write it, now or later, and send the answers that need not wait."""
        changes = self._changes
        if self._failing:
            self._note_done()
        if changes.insert or changes.update or self._created:
            if self._turn is None:
                self._turn = self._loop.call_soon(self._end_turn)
            return
        if changes.delete and self._behind is None:
            self._behind = self._loop.call_later(BEHIND, self._write_behind)
        self._flush()

    def close(self) -> None:
        """Write all that is left, and nothing after that."""
        self._write()
        self._flush()
        for handle in (self._turn, self._behind, self._shrink):
            if handle is not None:
                handle.cancel()
        self._store.close()

    def _end_turn(self) -> None:
        self._turn = None
        self._write()
        self._flush()

    def _write_behind(self) -> None:
        self._behind = None
        self._write()
        self._flush()

    def _write(self) -> None:
        changes = self._changes
        if not (changes.insert or changes.update or changes.delete or self._created):
            return
        try:
            self._store.write(changes.insert, changes.update.values(), changes.delete)
        except Exception as problem:  # whatever it was, nothing is on disk, and no one may be told otherwise
            self._on_failure(problem)
            return
        changes.insert.clear()
        changes.update.clear()
        if changes.delete and self._shrink is None:
            self._shrink = self._loop.call_later(SHRINK, self._give_back)
        changes.delete.clear()
        self._failing, self._noted = False, 0
        self._answer()

    def _on_failure(self, problem: Exception) -> None:
        if self._behind is None:  # done jobs must be deleted from disk: try again
            self._behind = self._loop.call_later(AGAIN, self._write_behind)
        self._changes.insert.clear()
        self._failing = True
        self._answer()
        self._note_done()
        self._log.warn(f"can't write {self._store.path}: {problem or type(problem).__name__}")

    def _note_done(self) -> None:
        new, self._noted = self._changes.delete[self._noted :], len(self._changes.delete)
        try:
            if not new or self._store.note_done(new):
                return
            why = "too many"
        except OSError as error:
            why = str(error)
        self._log.warn(f"{len(new)} jobs are done and can't be noted as done ({why}): a crash now would run them again")

    def _answer(self) -> None:
        """Release the JOB_CREATEDs of jobs that are on disk, and turn the others into errors."""
        for connection, place, job in self._created:
            if not (job.stored or job.state == GONE):
                connection.replace(place, NOT_STORED)
        for _, _, job in self._created:
            if not (job.stored or job.state == GONE):
                self._queue.unstore(job)
        self._created.clear()

    def _give_back(self) -> None:
        self._shrink = None
        try:
            more = self._store.shrink()
        except (sqlite3.Error, MemoryError) as problem:
            self._log.warn(f"can't make {self._store.path} smaller: {problem}")
            return
        if more:
            self._shrink = self._loop.call_later(0.01, self._give_back)

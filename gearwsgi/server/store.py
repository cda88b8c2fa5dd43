"""The queue on disk: one SQLite file in WAL mode. All that came together is written in one transaction."""

import contextlib
import os
import socket
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Literal

from ..errors import StartError
from .jobs import GONE, Job, Row
from .ledger import Ledger

__all__ = ["Durability", "Store"]

Durability = Literal["normal", "full"]
APPLICATION_ID = 0x67656172  # "gear"
IDS_PER_START = 10**12  # each start of the server numbers its jobs from a fresh multiple of this
SCHEMA = """
CREATE TABLE job (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, priority INTEGER NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, function BLOB NOT NULL, uniq BLOB NOT NULL, data BLOB NOT NULL);
CREATE TABLE state (prefix TEXT NOT NULL, starts INTEGER NOT NULL);
"""
INSERT = "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_LARGE = "INSERT INTO job SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE ?"
UPDATE = "UPDATE job SET position = ?, attempts = ? WHERE id = ?"
DELETE = "DELETE FROM job WHERE id = ?"
LARGE = 100_000  # bytes
ROWS = "SELECT id, function, uniq, data, priority, due, position, attempts FROM job ORDER BY id"
POSITION = 6  # in such a row
SPARE_PAGES = 256  # a file may keep that many free pages, and a quarter of its size
SHRINK_PAGES = 2000  # pages given back in one step, some milliseconds of work
WAL_LIMIT = 4 * 1024 * 1024  # bytes


def _row(job: Job) -> tuple[int, int, int, float, int, bytes, bytes, bytes]:
    return (
        job.id,
        job.position,
        job.priority,
        job.due,
        job.attempts,
        job.function.name,
        job.unique,
        job.data,
    )


class Store:
    """The file `jobs.sqlite3`, and the ledger beside it.

    Args:
        path: the file; made, readable for its owner only, where it is missing.
        durability: "normal": it survives a crash of the process; "full": also one of the machine.

    Attributes:
        prefix: what all handles of this file begin with.
        first_id: the first id that was never used.
        missing: how many jobs are missing since it was last written to; known once all rows are read.

    Raises:
        StartError: the file can't be used; it is left as it is.
    """

    def __init__(self, path: Path, durability: Durability = "normal") -> None:
        self.path = path
        self.missing = 0
        self._count = 0  # rows on disk
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fresh = not path.stat().st_size
            self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0, cached_statements=16)
            try:
                self._open(durability, fresh)
                self._ledger = Ledger(path.with_suffix(".ledger"), sync=durability == "full")
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"can't use {path}: {error}") from error

    def _open(self, durability: Durability, fresh: bool) -> None:
        db = self._db
        if fresh:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        elif db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StartError(
                f"can't use {self.path}: it is not a job server's file, or its log (-wal) is damaged or gone"
            )
        # With the exclusive lock nobody else can hold the server up, and a commit takes a third less time.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        if fresh:
            # A handle has at most 63 bytes. It is kept in the file, for a host may get another name.
            prefix = f"H:{socket.gethostname()[:40]}:"
            db.executescript(f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT")
            db.execute("INSERT INTO state VALUES (?, 0)", (prefix,))
        db.execute("UPDATE state SET starts = starts + 1")
        name, starts = db.execute("SELECT prefix, starts FROM state").fetchone()
        self.prefix: bytes = name.encode()
        self.first_id: int = starts * IDS_PER_START + 1

    def rows(self) -> Iterator[Row | int]:
        """All jobs, in the order of their positions; for one that is done and not deleted yet, only its id.

        Raises:
            StartError: the file is damaged.
        """
        moved: list[tuple[int, Row]] = []  # jobs that were queued again, to a place behind the ids that follow
        try:
            for row in self._db.execute(ROWS):
                self._count += 1
                while moved and moved[0][0] < row[0]:
                    yield heappop(moved)[1]
                if row[0] in self._ledger.done:
                    yield row[0]
                elif row[POSITION] > row[0]:
                    heappush(moved, (row[POSITION], row))
                else:
                    yield row
        except sqlite3.Error as error:
            raise StartError(f"can't read {self.path}: {error}") from error
        while moved:
            yield heappop(moved)[1]
        self.missing = max(0, self._ledger.least - self._count)
        self._ledger.expect(self._count, self._count)

    def write(self, insert: Iterable[Job], update: Iterable[Job], delete: Collection[int]) -> None:
        """Write all of it or nothing; once written, it survives what `durability` says.

        Raises:
            Exception: whatever it was (sqlite3 may raise MemoryError), nothing was written.
        """
        jobs = [job for job in insert if job.durable and job.state != GONE]
        steps: list[tuple[str, tuple[object, ...]]] = []
        for job in jobs:
            if len(job.data) < LARGE:
                steps.append((INSERT, _row(job)))
            else:
                # A cached statement keeps a copy of what it was last given: so give it something small afterwards.
                steps += [(INSERT_LARGE, (*_row(job), True)), (INSERT_LARGE, (*[0] * 8, False))]
        steps += [(UPDATE, (job.position, job.attempts, job.id)) for job in update]
        steps += [(DELETE, (id,)) for id in delete]
        after = self._count + len(jobs) - len(delete)
        self._ledger.expect(self._count, after)
        self._commit(steps)
        self._count = after
        for job in jobs:
            job.stored = True
        self._ledger.settle(after)

    def _commit(self, steps: list[tuple[str, tuple[object, ...]]]) -> None:
        db = self._db
        if db.in_transaction:  # the last transaction failed, and so did its rollback
            db.execute("ROLLBACK")
        try:
            if len(steps) > 1:
                db.execute("BEGIN IMMEDIATE")
            for sql, values in steps:
                db.execute(sql, values)
            if db.in_transaction:
                db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error, MemoryError):  # the first error is the one to know
                if db.in_transaction:
                    db.execute("ROLLBACK")
            raise

    def note_done(self, ids: Iterable[int]) -> bool:
        """Note in the ledger that these jobs are done, since their rows can't be deleted now; whether all had room.

        Raises:
            OSError: it could not be noted.
        """
        return self._ledger.note_done(ids)

    def shrink(self) -> bool:
        """Give some of the file's free pages back; True if there are more.

        Raises:
            sqlite3.Error: it could not be done now.
        """
        db = self._db
        pages, free = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count"))
        if free > SPARE_PAGES and free > pages // 4:
            db.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")  # `execute` would run one step: a page
            return True
        wal = self.path.with_name(self.path.name + "-wal")
        if wal.exists() and wal.stat().st_size > WAL_LIMIT // 4:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return False

    def close(self) -> None:
        """Write the log back into the file and close it."""
        self._db.close()
        self._ledger.close()

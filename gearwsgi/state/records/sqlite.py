"""The records in SQLite: one file in the state directory, in WAL mode, readable for its owner only."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ...errors import RecordsUnavailable, SpoolError
from ..spool import make_private_folder, open_private
from . import schema
from .database import Refused, check_version, migrate, places

_log = logging.getLogger("gearwsgi")

APPLICATION_ID = 0x67777263
"""SQLite's mark for whose the file is: "gwrc"."""
BUSY = 2.0
"""Seconds to wait until another process's transaction is over."""
WORDS = {"key": "TEXT", "real": "REAL", "blob": "BLOB"}
PAGE = 8 * 1024
"""Bytes of a page in a file that is made here. Ids are random, so that writing rows touches nearly all pages of their
index: fewer, larger pages make that cheaper. Still larger ones cost memory, for SQLite begins with twenty."""
_WAL_LIMIT = 4 * 1024 * 1024
_WAL_PAGES = 500
_SHRINK_PAGES = 250
CHUNK = 50
"""Rows that one statement inserts."""
_SPARE_PAGES = 128
_SIDES = ("-wal", "-shm", "-journal")
_BROKEN = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})


class Sqlite:
    """See `Database`.

    Args:
        path: the file; it is made, for its owner only, where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    @contextlib.contextmanager
    def transaction(self, *, write: bool, single: bool = False) -> Iterator["_Transaction"]:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield _Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # the first error is the one to know
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError) as error:
            raise Refused(f"{self.name}: {error}") from error
        except (sqlite3.Error, OSError) as error:
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                self._set_aside(error)
            raise RecordsUnavailable(f"{self.name}: {error}") from error

    def now(self) -> float:
        return time.time()

    def tidy(self) -> None:
        with self.transaction(write=False) as transaction:
            pages, free = (transaction.all(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count"))
        if self._connection is not None and free > _SPARE_PAGES and free > pages // 4:
            try:
                # `executescript` runs all steps of the pragma; `execute` would run one step, which is one page.
                self._connection.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")
            except sqlite3.Error as error:
                self.close()
                raise RecordsUnavailable(f"{self.name}: {error}") from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        self.close()  # a thread may have ended without that: don't hold the file open until it is noticed

    def _connected(self) -> sqlite3.Connection:
        """A connection to the file that is there now: since the last time it may have been removed or set aside."""
        inode = self._number()
        if self._connection is not None:
            if inode and self._inode == inode:
                return self._connection
            self.close()
        if not inode:
            self._make()
            inode = self._number()
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -128")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        self._inode, self._connection = inode, connection
        return connection

    def _number(self) -> int:
        """The number (inode) of the file that is there; 0 where there is none."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return 0

    def _make(self) -> None:
        """Make an empty file, for its owner only: one that SQLite makes would be as the umask says."""
        with self._lock():
            if self._number():
                return  # another process has made it
            for side in _SIDES:  # left over from another file: SQLite would take them for this one's
                self._beside(side).unlink(missing_ok=True)
            os.close(open_private(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL))

    def _check(self, connection: sqlite3.Connection) -> None:
        """Check that the file is ours and of our version; an empty or an older one is brought to it."""
        version = _version(connection)
        if version is None or version < schema.VERSION:
            with self._lock():
                version = _version(connection)
                if version is None:
                    version = self._begin(connection)
                connection.execute("BEGIN IMMEDIATE")
                migrate(_Transaction(connection), version, WORDS)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute("COMMIT")
                version = max(version, schema.VERSION)
        check_version(version, self.name)

    def _begin(self, connection: sqlite3.Connection) -> int:
        """Make an empty file ours, or refuse one that is another program's; its version."""
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise RecordsUnavailable(f"{self.name} is another application's file: it is left alone")
        connection.execute(f"PRAGMA page_size = {PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        return 0

    def _set_aside(self, error: Exception) -> None:
        """Rename a file that is no database, or a broken one, so that a new one can begin."""
        with self._lock():
            if not self._is_broken():
                return  # another process has done it
            aside = self._path.with_name(f"{self._path.name}.broken-{time.strftime('%Y%m%dT%H%M%S')}")
            try:
                for side in ("", *_SIDES):
                    if os.path.lexists(self._beside(side)):
                        self._beside(side).replace(aside.with_name(aside.name + side))
            except OSError as problem:
                raise RecordsUnavailable(f"{self.name}: {error}, and it can't be set aside: {problem}") from problem
            _log.error("records: %s: %s; it is set aside as %s, and a new one begins", self.name, error, aside.name)

    def _is_broken(self) -> bool:
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=BUSY)) as file:
                return bool(file.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except sqlite3.Error as error:
            return error.sqlite_errorcode & 0xFF in _BROKEN

    def _beside(self, side: str) -> Path:
        return self._path.with_name(self._path.name + side)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let only one process at a time make, change or set aside the file."""
        try:
            make_private_folder(self._path.parent)
            descriptor = open_private(self._beside(".lock"), os.O_RDWR | os.O_CREAT)
        except (SpoolError, OSError) as error:
            raise RecordsUnavailable(f"{self.name}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class _Transaction:
    """See `Transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    def insert(self, head: str, tail: str, rows: Sequence[Sequence[Any]], one: str = "") -> None:
        # Many rows in each statement: with `executemany`, each row would have to wait for the interpreter's lock.
        one = one or places(rows[0])
        whole = len(rows) - len(rows) % CHUNK
        if whole:
            many = f"{head} VALUES {', '.join([one] * CHUNK)} {tail}"
            for start in range(0, whole, CHUNK):
                self._connection.execute(many, list(chain.from_iterable(rows[start : start + CHUNK])))
        self._connection.executemany(f"{head} VALUES {one} {tail}", rows[whole:])


def _version(connection: sqlite3.Connection) -> int | None:
    """The version of the store; None where the file is not ours, or not yet."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return None
    return int(connection.execute("SELECT value FROM gearwsgi_meta WHERE name = 'version'").fetchone()[0])

"""The records in PostgreSQL, which many machines can share. Only this module imports psycopg 3."""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from ...errors import RecordsUnavailable
from . import schema
from .database import Refused, check_version, migrate, places

CONNECT_TIMEOUT = 5
"""Seconds that a connection may take."""
WORDS = {"key": 'TEXT COLLATE "C"', "real": "DOUBLE PRECISION", "blob": "BYTEA"}
_LOCK = 0x67777263
"""The advisory lock that is held while tables are made or changed."""
_LIMITS = {"statement_timeout": "30s", "lock_timeout": "5s"}
# With these, a host that is gone without a word is noticed in seconds, not after the system's two hours.
_ALIVE: dict[str, Any] = {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
if sys.platform == "linux":
    _ALIVE["tcp_user_timeout"] = 15000


class Postgres:
    """See `Database`.

    Args:
        url: `postgresql://…`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = describe(url)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._is_pooled = True

    @contextlib.contextmanager
    def transaction(self, *, write: bool, single: bool = False) -> Iterator["_Transaction"]:
        try:
            cursor = self._connected().cursor()
            if single and not self._is_pooled:
                yield _Transaction(cursor)
            else:
                with self._begun(cursor):
                    yield _Transaction(cursor)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise Refused(f"{self.name}: {one_line(error)}") from error
        except psycopg.Error as error:
            self.close()
            raise RecordsUnavailable(f"{self.name}: {one_line(error)}") from error

    @contextlib.contextmanager
    def _begun(self, cursor: "psycopg.Cursor[tuple[Any, ...]]") -> Iterator[None]:
        cursor.execute(_set("SET LOCAL", "BEGIN") if self._is_pooled else "BEGIN", prepare=False)
        try:
            yield
            cursor.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):  # the first error is the one to know
                cursor.execute("ROLLBACK")
            raise

    def now(self) -> float:
        try:
            row = self._connected().execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        except psycopg.Error as error:
            self.close()
            raise RecordsUnavailable(f"{self.name}: {one_line(error)}") from error
        return float(row[0]) if row else 0.0

    def tidy(self) -> None:
        """Nothing: PostgreSQL's autovacuum does it."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> "psycopg.Connection[tuple[Any, ...]]":
        if self._connection is None or self._connection.closed:
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_TIMEOUT, application_name="gearwsgi",
                **_ALIVE,
            )  # fmt: skip
            try:
                self._is_pooled = _is_pooled(connection)
                if not self._is_pooled:
                    connection.execute(_set("SET"), prepare=False)
                self._check(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _check(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """Check that the tables are there and of our version; they are made and changed by one process at a time."""
        version = _version(connection)
        if version < schema.VERSION:
            cursor = connection.cursor()
            with self._begun(cursor):
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                version = _version(connection)
                if version < schema.VERSION:
                    migrate(_Transaction(cursor), version, WORDS)
                    version = schema.VERSION
        check_version(version, self.name)


class _Transaction:
    """See `Transaction`."""

    def __init__(self, cursor: "psycopg.Cursor[tuple[Any, ...]]") -> None:
        self._cursor = cursor

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._cursor.execute(_translated(sql), values).fetchall()
        return rows

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        count: int = self._cursor.execute(_translated(sql), values).rowcount
        return count

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:  # for one row, a pipeline would cost twice as much
            self._cursor.execute(_translated(sql), rows[0])
        else:
            self._cursor.executemany(_translated(sql), rows)

    def insert(self, head: str, tail: str, rows: Sequence[Sequence[Any]], one: str = "") -> None:
        self.run_many(f"{head} VALUES {one or places(rows[0])} {tail}", rows)


def _set(how: str, *before: str) -> str:
    return "; ".join([*before, *(f"{how} {name} = '{value}'" for name, value in _LIMITS.items())])


@functools.lru_cache(maxsize=128)
def _translated(sql: str) -> str:
    return sql.replace("?", "%s")


def _is_pooled(connection: "psycopg.Connection[tuple[Any, ...]]") -> bool:
    """Whether a pooler such as PgBouncer lends the server's process to many: a setting would reach the next one."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid


def _version(connection: "psycopg.Connection[tuple[Any, ...]]") -> int:
    # Look into the table itself: the cached catalog may be older than the lock that was waited for.
    found = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'gearwsgi_meta' AND pg_catalog.pg_table_is_visible(oid)"
    ).fetchone()
    if found is None:
        return 0
    row = connection.execute("SELECT value FROM gearwsgi_meta WHERE name = 'version'").fetchone()
    return int(row[0]) if row else 0


def describe(url: str) -> str:
    """The URL for people, without its password."""
    try:
        values = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return "the records' database"
    host, port, name = (values.get(key) for key in ("host", "port", "dbname"))
    return f"postgresql://{host or 'localhost'}{f':{port}' if port else ''}/{name or ''}"


def one_line(error: Exception) -> str:
    """The first line of what the driver says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

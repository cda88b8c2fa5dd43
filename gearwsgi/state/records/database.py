"""What the records need of a database: transactions, and the few words in which SQLite and PostgreSQL differ."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...errors import RecordsUnavailable
from . import schema


class Refused(RecordsUnavailable):
    """The database is well, and won't have these values: the same again is refused again."""


class Transaction(Protocol):
    """One transaction. Places for values are written `?`."""

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query finds."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change something; how many rows."""
        ...

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Change something for each of these."""
        ...

    def insert(self, head: str, tail: str, rows: Sequence[Sequence[Any]], one: str = "") -> None:
        """Insert these rows, no two of the same key: `head VALUES one tail`, where `one` is `(?, …)` unless given."""
        ...


class Database(Protocol):
    """A database, connected when it is first used, and again when it was lost. One thread's at a time.

    Attributes:
        name: what a log calls it, without a password.
    """

    name: str

    def transaction(self, *, write: bool, single: bool = False) -> AbstractContextManager[Transaction]:
        """All that happens in it, or nothing.

        Args:
            write: whether something is changed.
            single: it is one statement on one row at most, which needs no transaction around it.

        Raises:
            RecordsUnavailable: the database is away, locked, full, broken, or not ours. `Refused` where it is well.
        """
        ...

    def now(self) -> float:
        """The time, by a clock that all who use this database share."""
        ...

    def tidy(self) -> None:
        """Give back room that is free, a little of it."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def places(row: Sequence[Any]) -> str:
    """Places for the values of a row."""
    return f"({', '.join('?' * len(row))})"


def migrate(transaction: Transaction, version: int, words: dict[str, str]) -> None:
    """Bring a store from `version` (0: there is none) to ours, where nobody else does so just now."""
    if not version:
        transaction.run(schema.META)
        transaction.run("INSERT INTO gearwsgi_meta (name, value) VALUES ('version', 0)")
    for step in schema.MIGRATIONS[version:]:
        for statement in step:
            transaction.run(statement.format(**words))
    transaction.run("UPDATE gearwsgi_meta SET value = ? WHERE name = 'version'", (schema.VERSION,))


def check_version(version: int, name: str) -> None:
    """Raises:
    RecordsUnavailable: the store is of a version that is newer than this one knows.
    """
    if version > schema.VERSION:
        raise RecordsUnavailable(
            f"{name} was made by a newer gearwsgi (its version is {version}, this one knows {schema.VERSION}): "
            "it is left alone; upgrade this one"
        )

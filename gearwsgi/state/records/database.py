"""What the records need of a database: transactions, and the few words in which SQLite and PostgreSQL differ."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...errors import RecordsUnavailable
from . import schema


class Refused(RecordsUnavailable):
    """The database works, but refuses these values; it would refuse them again."""


class Transaction(Protocol):
    """One transaction. In SQL, `?` stands for each value."""

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that a query finds."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Change rows; how many were changed."""
        ...

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Change something for each of these rows of values."""
        ...

    def insert(self, head: str, tail: str, rows: Sequence[Sequence[Any]], one: str = "") -> None:
        """Insert these rows, no two of the same key: `head VALUES one tail`, where `one` is `(?, …)` unless given."""
        ...


class Database(Protocol):
    """A database, connected when it is first used, and again when the connection was lost. For one thread at a time.

    Attributes:
        name: what a log calls it; without its password.
    """

    name: str

    def transaction(self, *, write: bool, single: bool = False) -> AbstractContextManager[Transaction]:
        """A transaction: all that is done in the block happens, or nothing of it.

        Args:
            write: whether something is changed.
            single: whether it is one statement about one row at most, which needs no transaction around it.

        Raises:
            RecordsUnavailable: the database is away, locked, full or broken, or is not ours. `Refused`: only these
                values are the trouble.
        """
        ...

    def now(self) -> float:
        """The time, by a clock that all who use this database share."""
        ...

    def tidy(self) -> None:
        """Give a little of the file's free room back to the system."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def places(row: Sequence[Any]) -> str:
    """Question marks for the values of a row, in parentheses."""
    return f"({', '.join('?' * len(row))})"


def migrate(transaction: Transaction, version: int, words: dict[str, str]) -> None:
    """Bring a store from `version` (0: there is none) to ours; called while no other process does the same."""
    if not version:
        transaction.run(schema.META)
        transaction.run("INSERT INTO gearwsgi_meta (name, value) VALUES ('version', 0)")
    for step in schema.MIGRATIONS[version:]:
        for statement in step:
            transaction.run(statement.format(**words))
    transaction.run("UPDATE gearwsgi_meta SET value = ? WHERE name = 'version'", (schema.VERSION,))


def check_version(version: int, name: str) -> None:
    """Check that the store is not of a newer version than this release knows.

    Raises:
        RecordsUnavailable: it is.
    """
    if version > schema.VERSION:
        raise RecordsUnavailable(
            f"{name} was made by a newer gearwsgi (its version is {version}, this one knows {schema.VERSION}): "
            "it is left alone; upgrade this one"
        )

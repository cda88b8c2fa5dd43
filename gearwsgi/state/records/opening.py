"""Opens the records' database, as the setting `records` says."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...errors import RecordsUnavailable
from ...settings import Settings
from .database import Database
from .store import Store, unavailable


def open_database(settings: Settings) -> Database | None:
    """The database of the records; None where they are off. It is not connected yet.

    Raises:
        RecordsUnavailable: its driver is missing.
    """
    if not settings.records:
        return None
    if settings.records == "sqlite":
        try:
            from .sqlite import Sqlite  # imports sqlite3, which few processes need
        except ImportError as error:
            raise RecordsUnavailable(f"{error}: this Python was built without SQLite; records='' is off") from error
        return Sqlite(_file(settings))
    try:
        from .postgres import Postgres
    except ImportError as error:
        raise RecordsUnavailable(f"{error}: `pip install 'gearwsgi[postgres]'`") from error
    return Postgres(settings.records)


def has_begun(settings: Settings) -> bool:
    """Whether there may be records to read. Where not, nobody needs to make a file only to find it empty."""
    return settings.records != "sqlite" or _file(settings).exists()


def _file(settings: Settings) -> Path:
    return settings.state_dir / "records.sqlite3"


@contextlib.contextmanager
def writing(settings: Settings) -> Iterator[Store]:
    """The records, to be asked or changed: for one thread, and closed at the end of the block.

    Raises:
        RecordsUnavailable: they are off, or their driver is missing.
    """
    database = open_database(settings)
    if database is None:
        raise unavailable()
    try:
        yield Store(database)
    finally:
        database.close()


@contextlib.contextmanager
def reading(settings: Settings) -> Iterator[Store | None]:
    """The records, only to be asked, as `writing` has them.

    None where SQLite's file is not there yet: the first who writes makes it, so that it belongs to them.

    Raises:
        RecordsUnavailable: as `writing`.
    """
    if settings.records and not has_begun(settings):
        yield None
        return
    with writing(settings) as store:
        yield store

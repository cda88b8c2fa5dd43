"""From the setting to the database of the records."""

from ...errors import RecordsUnavailable
from ...settings import Settings
from .database import Database
from .sqlite import Sqlite


def open_database(settings: Settings) -> Database | None:
    """The database of the records; None where they are off. It is not connected yet.

    Raises:
        RecordsUnavailable: its driver is missing.
    """
    if not settings.records:
        return None
    if settings.records == "sqlite":
        return Sqlite(settings.state_dir / "records.sqlite3")
    try:
        from .postgres import Postgres
    except ImportError as error:
        raise RecordsUnavailable(f"{error}: `pip install 'gearwsgi[postgres]'`") from error
    return Postgres(settings.records)

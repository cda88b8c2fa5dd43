"""What several commands share: the settings they go by, a way to print tables, and redaction."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from ..app.loading import load_application
from ..settings import Settings, read_settings


def get_settings(app: str | None) -> Settings:
    """The settings of an application, or of the environment alone.

    Raises:
        AppLoadError, ConfigError: they can't be had.
    """
    return load_application(app)[1].settings if app else read_settings({})


def console() -> Console:
    """A console as wide as the terminal; a pipe gets lines of any length."""
    output = Console(soft_wrap=True, highlight=False)
    return output if output.is_terminal else Console(soft_wrap=True, highlight=False, width=100_000)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[int] = ()) -> Table:
    """A plain table; the columns in `keep` (ids, handles) are never cut."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place in keep, overflow="fold")
    for row in rows:
        table.add_row(*[cell.replace("[", "\\[") for cell in row])
    return table

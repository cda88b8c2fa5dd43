"""What several commands share: the settings they go by, spans of time, a question before much is done, and tables."""

import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..app.loading import load_application
from ..log import clean
from ..settings import Settings, read_settings

app_option = click.option("--app", metavar="MODULE:NAME", help="Go by this application's settings and aliases.")

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def get_settings(app: str | None) -> Settings:
    """The settings of an application, or of the environment alone.

    Raises:
        AppLoadError, ConfigError: they can't be had.
    """
    return load_application(app)[1].settings if app else read_settings({})


def read_since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A time in the past as Unix time, for an option: `1h` ago (s, m, h or d), or ISO 8601, in UTC without a zone.

    Raises:
        click.BadParameter: it is neither.
    """
    if value is None:
        return None
    if span := _SPAN.fullmatch(value):
        return time.time() - float(span[1]) * _UNITS[span[2]]
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(
            f"{value!r} is neither a span such as 90s, 15m, 1h or 7d nor an ISO 8601 time"
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before much is done, unless `--yes` was given.

    Raises:
        click.Abort: the answer is no.
        click.UsageError: nobody is there to be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Standard input is no terminal, so nobody can answer: give --yes")
    click.confirm(question, abort=True)


def console() -> Console:
    """A console as wide as the terminal; a pipe gets lines of any length."""
    output = Console(soft_wrap=True, highlight=False)
    return output if output.is_terminal else Console(soft_wrap=True, highlight=False, width=100_000)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[int] = ()) -> Table:
    """A plain table, whose cells are shown as they are, whatever is in them.

    Args:
        columns: their titles.
        rows: their cells; control characters are shown as escapes, markup is text.
        keep: places of columns that are never cut: ids, handles.
    """
    table = Table(box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place in keep, overflow="fold")
    for row in rows:
        table.add_row(*[Text(clean(cell)) for cell in row])
    return table

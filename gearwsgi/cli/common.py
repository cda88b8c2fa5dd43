"""What several commands share: settings, ids, actions, spans of time, a question, lines of text."""

import contextlib
import getpass
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.cells import cell_len, set_cell_size

from ..errors import UnknownTask
from ..settings import Settings, read_settings

if TYPE_CHECKING:
    from ..submit.actions import Actions

app_option = click.option("--app", metavar="MODULE:NAME", help="Go by this application's settings and aliases.")

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def get_settings(app: str | None) -> Settings:
    """The settings of an application, or of the environment alone.

    Raises:
        AppLoadError, ConfigError: they can't be had.
    """
    if not app:
        return read_settings({})
    from ..app.loading import load_application

    return load_application(app)[1].settings


def read_id(value: str) -> str:
    """A task's id, which may be shortened.

    Raises:
        UnknownTask: it is empty, as the beginning of all ids is.
    """
    if not value:
        raise UnknownTask("an empty id is no task's")
    return value


@contextlib.contextmanager
def acting(app: str | None) -> "Iterator[Actions]":
    """The actions on queues and tasks, in the name of the user who gives the command."""
    from ..submit.actions import Actions
    from ..submit.client import Client

    client = Client(get_settings(app))
    try:
        yield Actions(client, _who())
    finally:
        client.close()


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def read_span(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A span of time in seconds, for an option: a number with s, m, h or d.

    Raises:
        click.BadParameter: it is none.
    """
    seconds = None if value is None else _seconds(value)
    if value is not None and seconds is None:
        raise click.BadParameter(f"{value!r} is no span such as 90s, 15m, 1h or 7d")
    return seconds


def _seconds(text: str) -> float | None:
    span = _SPAN.fullmatch(text)
    return float(span[1]) * _UNITS[span[2]] if span else None


def read_since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A time in the past as Unix time, for an option: `1h` ago (s, m, h or d), or ISO 8601, in UTC without a zone.

    Raises:
        click.BadParameter: it is neither.
    """
    if value is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return time.time() - seconds
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


def show_span(seconds: float) -> str:
    """A span of time, short: 0.4s, 12s, 3m, 5h, 2d."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    for unit, size in (("s", 1), ("m", 60), ("h", 3600)):
        if seconds < size * (100 if unit == "s" else 60 if unit == "m" else 48):
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def cut(text: str, width: int | None) -> str:
    """A line that fits so many columns; None: as long as it is."""
    if width is None or cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "…"

"""`gearwsgi worker`: runs jobs."""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import click

from .. import log
from ..address import parse_listen
from ..errors import ConfigError, InvalidTask, StartError
from ..kinds import check_queue
from ..worker.generation import ForkServerProcess
from ..worker.options import Options, declared


def _read_queues(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[tuple[str, int], ...]:
    """`mail:2,reports` as (("mail", 2), ("reports", 0))."""
    queues: list[tuple[str, int]] = []
    for item in value.split(",") if value is not None else ():
        name, colon, count = item.strip().rpartition(":")
        if not colon or not count.isdigit():
            name, count = item.strip(), "0"
        elif int(count) < 1:
            raise click.BadParameter(f"{item!r} reserves no worker: give mail:2, or mail to share")
        try:
            check_queue(name, InvalidTask)
        except InvalidTask as error:
            raise click.BadParameter(str(error)) from error
        queues.append((name, int(count)))
    if len({name for name, _ in queues}) < len(queues):
        raise click.BadParameter("a queue is named twice")
    return tuple(queues)


def _read_listen(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """`HOST:PORT`; a port alone is one on this machine."""
    if value is None:
        return None
    try:
        return str(parse_listen(f"127.0.0.1:{value}" if value.isdecimal() else value))
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


class Seconds(click.FloatRange):
    """A number of seconds, up to some thirty years; not `nan` or `inf`."""

    name = "seconds"

    def __init__(self, low: float) -> None:
        super().__init__(low, 1e9)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `Options` declares to a command."""
    for each in reversed(declared()):
        more = dict(each.metadata)
        kind: Any = None
        if "integers" in more:
            kind = click.IntRange(*more.pop("integers"))
        elif "numbers" in more:
            kind = click.FloatRange(*more.pop("numbers"))
        elif "seconds" in more:
            kind = Seconds(more.pop("seconds"))
        elif "choice" in more:
            kind = click.Choice(more.pop("choice"))
        elif each.name == "queues":
            more["callback"] = _read_queues
        elif each.name == "metrics":
            more["callback"] = _read_listen
        flags = more.pop("flags", ("--" + each.name.replace("_", "-"),))
        command = click.option(
            *flags, each.name, type=kind, default=None if each.default == () else each.default, **more
        )(command)
    return command


@click.command()
@click.argument("app", metavar="MODULE:NAME")
@_options
def worker(**given: Any) -> int:
    """Run jobs through the WSGI application MODULE:NAME.

    Signals: TERM and INT finish what runs and end (a second one at once), HUP reloads the code, TTIN and TTOU add and
    take a worker.
    """
    log.check_format()
    options = Options(**given)
    try:
        first = ForkServerProcess(options)
        # While that loads the application, what only the supervisor needs is loaded here.
        from ..worker.supervisor import Supervisor

        if os.environ.get("GEARWSGI_RECORDS", "sqlite") == "sqlite":  # as they are nearly always
            from ..worker import recording  # noqa: F401

            with contextlib.suppress(ImportError):  # where it is needed, the error is shown
                from ..state.records import sqlite  # noqa: F401

        supervisor = Supervisor(options, first)
    except OSError as error:
        raise StartError(f"the worker can't start: {error}") from error
    return supervisor.run()

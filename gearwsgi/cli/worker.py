"""`gearwsgi worker`."""

import math
import os
from typing import Any

import click

from ..errors import InvalidTask
from ..settings import check_queue
from ..worker.generation import ForkServerProcess
from ..worker.options import Command, Options


def _read_queues(context: click.Context, parameter: click.Parameter, value: str | None) -> list[tuple[str, int]]:
    """`mail:2,reports` as [("mail", 2), ("reports", 0)]."""
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
    return queues


class Seconds(click.FloatRange):
    """Seconds up to some thirty years; `nan` and `inf` are none."""

    name = "seconds"

    def __init__(self, low: float) -> None:
        super().__init__(low, 1e9)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


@click.command()
@click.argument("app", metavar="MODULE:NAME")
@click.option("-w", "--workers", type=click.IntRange(1, 1000), help="Worker processes.  [default: number of cores]")
@click.option(
    "--queues",
    callback=_read_queues,
    metavar="NAMES",
    help="Queues (Gearman functions) with commas; mail:2 reserves two workers.  [default: the middleware's]",
)
@click.option("-t", "--timeout", type=Seconds(0.01), help="Seconds that a job may run; overrides job_timeout.")
@click.option(
    "--graceful-timeout",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    help="Seconds to finish jobs at TERM.",
)
@click.option("--max-jobs", type=click.IntRange(1), help="Replace a worker process after this many jobs.")
@click.option(
    "--max-rss", type=click.FloatRange(1), metavar="MB", help="Replace a worker process that has grown over this."
)
@click.option("--preload/--no-preload", default=True, help="Load the application once, before the workers are forked.")
@click.option("--lookahead/--no-lookahead", default=True, help="Hold jobs ahead while they are short.")
@click.option("--reload", is_flag=True, help="Reload when a Python file changes (development).")
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@click.option(
    "--log-level",
    type=click.Choice(["info", "warning"]),
    default="info",
    show_default=True,
    help="warning: no lines for jobs that go well.",
)
def worker(
    app: str,
    workers: int | None,
    queues: list[tuple[str, int]],
    timeout: float | None,
    graceful_timeout: float,
    max_jobs: int | None,
    max_rss: float | None,
    preload: bool,
    lookahead: bool,
    reload: bool,
    burst: bool,
    log_level: str,
) -> int:
    """Run jobs through the WSGI application MODULE:NAME.

    Signals: TERM and INT finish what runs and end (a second one at once), HUP reloads the code, TTIN and TTOU add and
    take a worker.
    """
    options = Options(
        graceful_timeout=graceful_timeout,
        max_jobs=max_jobs,
        max_rss=max_rss,
        lookahead=lookahead,
        verbose=log_level == "info",
    )
    command = Command(
        app=app,
        workers=workers or os.cpu_count() or 1,
        queues=queues,
        timeout=timeout,
        preload=preload,
        burst=burst,
        reload=reload,
        options=options,
    )
    first = ForkServerProcess(command)
    # While that loads the application, what only the supervisor needs is loaded here.
    from ..worker.supervisor import Supervisor

    return Supervisor(command, first).run()

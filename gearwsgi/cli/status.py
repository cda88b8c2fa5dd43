"""`gearwsgi status`: what goes on, on the job servers, on this machine, and with all that share its records."""

import contextlib
import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator

import click

from ..errors import EXIT_PROBLEM
from ..settings import Settings
from ..state.overview import collect
from ..state.waiting import list_waiting
from .common import app_option, get_settings
from .screen import lay_out

_MOST = 1000
"""Jobs of each job server that `--waiting` lists."""


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh every second until q or Ctrl-C.")
@click.option("--check", is_flag=True, help="Exit code 1 where there is a warning, for a monitor.")
@click.option("--waiting", is_flag=True, help="List what waits, one by one, too.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def show_status(watch: bool, check: bool, waiting: bool, as_json: bool, app: str | None) -> int:
    """Show what needs a look, the queues, and the workers of all supervisors that share the records.

    A warning is a job server that is down, records that are away, a supervisor that does not respond, or a queue in
    which jobs wait and that no worker serves. In the table of queues, `ready` jobs wait for a worker and `later` ones
    for their time; `failed` is how many tasks' last attempt failed within the last hour. What only records could tell
    is a dash where there are none. The embedded job server tells all of its jobs that wait; gearmand tells their ids,
    and the records know the rest of those that a supervisor has seen. With --json each
    supervisor has its `counts` over all reloads: how many attempts ended how, and how many records were dropped.
    """
    settings = get_settings(app)
    if watch:
        _watch(settings)
        return 0
    known = collect(settings)
    if waiting:
        known["waiting"] = [each._asdict() for each in list_waiting(settings, _MOST)]
    if as_json:
        click.echo(json.dumps(known, indent=2))
    else:
        from .tables import console

        output = console()
        width = output.width if output.is_terminal else None
        height = output.height - 1 if output.is_terminal and not waiting else None
        click.echo("\n".join(lay_out(known, width, height)))
    if check:
        return EXIT_PROBLEM if known["warnings"] else 0
    return 0 if as_json or any(server["up"] for server in known["servers"]) else EXIT_PROBLEM


def _watch(settings: Settings) -> None:
    from rich.live import Live
    from rich.text import Text

    from .tables import console

    output = console()
    with contextlib.suppress(KeyboardInterrupt), _keys(), Live(console=output, auto_refresh=False, screen=True) as live:
        while True:
            lines = lay_out(collect(settings), output.width, output.height)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
            if _is_over(1.0):
                return


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Have keys come as they are pressed, where standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _is_over(seconds: float) -> bool:
    """Wait for the next refresh; whether `q` was pressed until then."""
    if not sys.stdin.isatty():
        time.sleep(seconds)  # the refresh itself
        return False
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    pressed = os.read(sys.stdin.fileno(), 1024) if readable else None
    return pressed is not None and (b"q" in pressed or not pressed)

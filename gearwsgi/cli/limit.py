"""`gearwsgi limit`: which limits by key hold, and others at run time: supervisors obey within two seconds."""

import click

from ..log import clean
from ..message.limits import MAX_CONCURRENCY
from ..state import limits
from ..state.records.opening import writing
from .common import acting, app_option

_COLUMNS = ("pattern", "at once", "rate", "changed by")


@click.group()
def limit() -> None:
    """Limits by key: show them, and change them until they are reset."""


@limit.command("list")
@app_option
def show(app: str | None) -> None:
    """Show the limits that hold: the setting's, as the application or a supervisor knows it, or what was changed."""
    with acting(app) as actions, writing(actions.settings) as store:
        held = limits.in_use(actions.settings, store)
    rows = [(pattern, str(each.concurrency or "-"), each.rate or "-", "" if by is None else by or "somebody")
            for pattern, (each, by) in held.items()]  # fmt: skip
    if rows:
        from .tables import console, make_table

        console().print(make_table(_COLUMNS, rows, keep=(0,)))
    else:
        click.echo("there are no limits, or no supervisor runs that knows them: give --app")


@limit.command("set")
@click.argument("pattern")
@click.option("--rate", metavar="RATE", help="How many may start, such as 10/minute; `none`: any number.")
@click.option("--concurrency", type=click.IntRange(0, MAX_CONCURRENCY), help="How many may run at once; 0: any number.")
@app_option
def set_limit(pattern: str, rate: str | None, concurrency: int | None, app: str | None) -> None:
    """Have another limit hold for the keys of PATTERN, one of the setting's, until it is reset.

    What is not given stays as it is. Tasks that run go on.
    """
    if rate is None and concurrency is None:
        raise click.UsageError("give --rate, --concurrency or both")
    with acting(app) as actions:
        click.echo(clean(actions.set_limit(pattern, concurrency, "" if rate == "none" else rate).text))


@limit.command("reset")
@click.argument("pattern")
@app_option
def reset(pattern: str, app: str | None) -> None:
    """Have the limit of the setting hold again for the keys of PATTERN."""
    with acting(app) as actions:
        click.echo(clean(actions.reset_limit(pattern).text))

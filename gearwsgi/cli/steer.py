"""`gearwsgi pause`, `resume` and `cancel`: requests to supervisors, which look for them every second or so."""

import click

from ..errors import EXIT_PROBLEM, ServerUnavailable, UnknownTask
from ..log import clean
from .common import acting, app_option, read_id, read_span


@click.command()
@click.argument("queue")
@click.option("--for", "seconds", callback=read_span, metavar="TIME", help="Only so long: 90s, 15m, 1h, 7d.")
@app_option
def pause(queue: str, seconds: float | None, app: str | None) -> None:
    """Have no worker take jobs of QUEUE. They stay on the job server; what runs goes on."""
    with acting(app) as actions:
        click.echo(actions.pause(queue, seconds).text)


@click.command()
@click.argument("queue")
@app_option
def resume(queue: str, app: str | None) -> None:
    """Have jobs of QUEUE taken again."""
    with acting(app) as actions:
        click.echo(actions.resume(queue).text)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@app_option
def cancel(ids: tuple[str, ...], app: str | None) -> int:
    """Cancel tasks: one that waits never runs, one that runs is ended as a time-out ends it. No retry, no dead letter.

    What has ended stays as it is. An ID may be shortened where it stays the only one.
    """
    code = 0
    with acting(app) as actions:
        for task_id in ids:
            try:
                click.echo(actions.cancel(read_id(task_id)).text)
            except UnknownTask as error:
                click.echo(clean(f"gearwsgi: {error}"), err=True)
                code = EXIT_PROBLEM
            except ServerUnavailable as error:
                click.echo(clean(f"gearwsgi: no record of task {task_id!r}, and {error}"), err=True)
                code = EXIT_PROBLEM
    return code

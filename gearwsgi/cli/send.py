"""`gearwsgi send`: queue a task."""

import json
import sys

import click

from ..submit.client import Client
from ..submit.tasks import Gearman
from .common import app_option, get_settings


@click.command()
@click.argument("service")
@click.argument("data", required=False, metavar="[JSON|-]")
@click.option("-q", "--queue", help="The queue (Gearman function).  [default: the application's, or job]")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--unique", help="Dropped while a task with this key is queued or running.")
@click.option("--delay", type=click.FloatRange(0), help="Seconds to wait.")
@app_option
def send(
    service: str,
    data: str | None,
    queue: str | None,
    priority: str,
    unique: str | None,
    delay: float | None,
    app: str | None,
) -> None:
    """Queue SERVICE with data in JSON (- reads it from standard input), and print the job's handle."""
    text = sys.stdin.read() if data == "-" else data
    try:
        value = json.loads(text) if text is not None and text.strip() else None
    except ValueError as error:
        raise click.BadParameter(f"this is not JSON: {error}", param_hint="JSON") from error
    client = Client(get_settings(app))
    task = Gearman(client, None).task(service, value, queue, priority=priority, unique=unique, delay=delay)
    if task.handle:
        click.echo(task.handle)
    else:
        click.echo(f"no job server answers; id {task.id} waits in {client.outbox.spool.folder}", err=True)
    client.close()

"""`gearwsgi outbox`: the tasks that no job server has taken yet."""

import json
import time

import click

from ..errors import GearwsgiError
from ..state.outbox import Outbox
from ..submit.client import Client
from .common import app_option, get_settings


@click.group()
def outbox() -> None:
    """Tasks that no job server has taken yet."""


@outbox.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def outbox_list(as_json: bool, app: str | None) -> None:
    """List them, oldest first."""
    box = Outbox(get_settings(app))
    found = []
    for name in box.spool.names():
        try:
            waiting = box.get(name)
        except GearwsgiError as error:
            click.echo(str(error), err=True)
            continue
        due = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(waiting.at)) if waiting.at else "now"
        found.append({"id": waiting.id, "queue": waiting.queue, "due": due, "bytes": len(waiting.payload)})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        from .tables import console, make_table

        rows = [[str(row["id"]), str(row["queue"]), str(row["due"]), str(row["bytes"])] for row in found]
        console().print(make_table(["id", "queue", "due", "bytes"], rows, keep=(0,)))


@outbox.command("flush")
@app_option
def outbox_flush(app: str | None) -> None:
    """Submit them now."""
    client = Client(get_settings(app))
    sent = client.outbox.relay(client.submit_now)
    client.close()
    click.echo(f"{sent} submitted, {client.outbox.spool.count()} left")

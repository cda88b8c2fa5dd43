"""`gearwsgi schedule`: lists what runs by the clock, runs an entry now, pauses and resumes one."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import click

from ..app.loading import load_application
from ..submit.agenda import Agenda, Item

app_option = click.option("--app", metavar="MODULE:NAME", required=True, help="The application that has the schedule.")
_COLUMNS = ("name", "cron", "timezone", "next", "last", "what came of it", "paused")


@click.group()
def schedule() -> None:
    """What runs by the clock."""


@schedule.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def schedule_list(as_json: bool, app: str) -> None:
    """List the entries: when, the next ticks, the last one and what came of it."""
    with _opened(app) as agenda:
        items = agenda.items()
    if as_json:
        click.echo(json.dumps([_to_json(item) for item in items], indent=2))
        return
    from .tables import console, make_table

    rows = [
        [
            item.name, item.cron, item.timezone, ", ".join(tick.isoformat(timespec="minutes") for tick in item.next),
            item.last.isoformat(timespec="seconds") if item.last is not None else "-",
            " ".join(filter(None, (item.state, item.reason))) or "-",
            "paused" if item.paused else "",
        ]
        for item in items
    ]  # fmt: skip
    console().print(make_table(_COLUMNS, rows, keep=(0,)))


@schedule.command("run")
@click.argument("name")
@app_option
def schedule_run(name: str, app: str) -> None:
    """Queue the entry NAME now, also where it is paused, and print the job's handle."""
    with _opened(app) as agenda:
        task_id, handle = agenda.run(name)
    if handle:
        click.echo(handle)
    else:
        click.echo(f"no job server answers; id {task_id} waits in the outbox", err=True)


@schedule.command("pause")
@click.argument("name")
@app_option
def schedule_pause(name: str, app: str) -> None:
    """Have the ticks of the entry NAME not run. What runs goes on."""
    with _opened(app) as agenda:
        click.echo(agenda.pause(name).text)


@schedule.command("resume")
@click.argument("name")
@app_option
def schedule_resume(name: str, app: str) -> None:
    """Have the ticks of the entry NAME run again, from the next one on."""
    with _opened(app) as agenda:
        click.echo(agenda.resume(name).text)


@contextlib.contextmanager
def _opened(app: str) -> Iterator[Agenda]:
    client = load_application(app)[1].client
    try:
        yield Agenda(client)
    finally:
        client.close()


def _to_json(item: Item) -> dict[str, Any]:
    return {
        "name": item.name,
        "service": item.service,
        "cron": item.cron,
        "timezone": item.timezone,
        "next": item.next[0].isoformat(),
        "last": item.last.isoformat() if item.last is not None else None,
        "last_id": item.task,
        "last_state": item.state,
        "last_reason": item.reason,
        "paused": item.paused,
    }

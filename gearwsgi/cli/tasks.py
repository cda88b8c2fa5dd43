"""`gearwsgi send`, `status` and `outbox`: what goes in, and what is going on."""

import json
import sys
import time
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ..address import Address
from ..errors import GearwsgiError, ServerUnavailable
from ..log import clean
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..state.status import read_all
from ..submit.client import Client
from ..submit.tasks import Gearman
from ..wire.connection import Connection
from .common import console, get_settings, make_table

app_option = click.option("--app", metavar="MODULE:NAME", help="Go by this application's settings and aliases.")


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


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh every second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def show_status(watch: bool, as_json: bool, app: str | None) -> int:
    """Show queues and workers: on the job servers, and this machine's."""
    settings = get_settings(app)
    if as_json:
        click.echo(json.dumps(_collect(settings), indent=2))
        return 0
    if not watch:
        known = _collect(settings)
        console().print(_render(known))
        return 0 if any(server["up"] for server in known["servers"]) else 1
    try:
        with Live(_render(_collect(settings)), console=console(), auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(1)  # the refresh itself
                live.update(_render(_collect(settings)), refresh=True)
    except KeyboardInterrupt:
        return 0


def _collect(settings: Settings) -> dict[str, Any]:
    return {
        "servers": [_ask(address, settings.connect_timeout) for address in settings.servers],
        "supervisors": list(read_all(settings.state_dir)),
        "outbox": len(Outbox(settings).spool.names()),
        "dead": len(DeadLetters(settings).spool.names()),
        "state_dir": str(settings.state_dir),
    }


def _ask(address: Address, timeout: float) -> dict[str, Any]:
    try:
        connection = Connection(address, timeout)
        try:
            version = " ".join(connection.admin("version", timeout)).removeprefix("OK ")
            # A queue's name is whatever someone submitted to: tabs, or what a terminal obeys.
            lines = [line.rsplit("\t", 3) for line in connection.admin("status", timeout)]
        finally:
            connection.close()
    except (ServerUnavailable, GearwsgiError) as error:
        return {"address": str(address), "up": False, "error": str(error), "queues": []}
    queues = [
        {"queue": clean(name), "waiting": int(total) - int(running), "running": int(running), "workers": int(workers)}
        for name, total, running, workers in (line for line in lines if _is_row(line))
    ]
    return {"address": str(address), "up": True, "version": version, "queues": queues}


def _is_row(line: list[str]) -> bool:
    return len(line) == 4 and all(number.isascii() and number.isdigit() for number in line[1:])


def _render(known: dict[str, Any]) -> Group:
    parts: list[Any] = []
    for server in known["servers"]:
        if not server["up"]:
            parts.append(Text(f"{server['address']}  down: {server['error']}"))
            continue
        parts.append(Text(f"{server['address']}  version {server['version']}"))
        rows = [
            [row["queue"], str(row["waiting"]), str(row["running"]), str(row["workers"])]
            for row in sorted(server["queues"], key=lambda row: str(row["queue"]))
        ]
        parts.append(make_table(["queue", "waiting", "running", "workers"], rows, keep=(0,)))
    for supervisor in known["supervisors"]:
        state = "stopping" if supervisor["stopping"] else "running" if supervisor["fresh"] else "not responding"
        parts.append(Text(f"supervisor {supervisor['pid']} of {supervisor['app']}, {state}"))
        rows = [
            [
                str(worker["slot"]), str(worker["pid"]), worker["state"], ",".join(worker["queues"]), worker["job"],
                f"{worker['age']:.1f} s" if worker["job"] else "", str(worker["done"]), worker.get("memory", ""),
            ]
            for worker in supervisor["workers"]
        ]  # fmt: skip
        columns = ["worker", "pid", "state", "queues", "job", "age", "done", "memory"]
        parts.append(make_table(columns, rows, keep=(1, 4)))
    parts.append(Text(f"outbox {known['outbox']}, dead letters {known['dead']}, in {known['state_dir']}"))
    return Group(*parts)


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
        rows = [[str(row["id"]), str(row["queue"]), str(row["due"]), str(row["bytes"])] for row in found]
        console().print(make_table(["id", "queue", "due", "bytes"], rows, keep=(0,)))


@outbox.command("flush")
@app_option
def outbox_flush(app: str | None) -> None:
    """Submit them now."""
    client = Client(get_settings(app))
    sent = client.outbox.relay(client.submit_now)
    client.close()
    click.echo(f"{sent} submitted, {len(client.outbox.spool.names())} left")

"""`gearwsgi status`: what is going on, on the job servers and on this machine."""

import json
import time
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ..address import Address
from ..errors import EXIT_PROBLEM, GearwsgiError
from ..log import clean
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..state.status import read_all
from ..wire.connection import Connection
from .common import app_option, console, get_settings, make_table

_WHOLE_ANSWER = 5.0
"""Seconds until a job server must have said all."""


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
        return 0 if any(server["up"] for server in known["servers"]) else EXIT_PROBLEM
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
        "outbox": Outbox(settings).spool.count(),
        "dead": DeadLetters(settings).spool.count(),
        "state_dir": str(settings.state_dir),
    }


def _ask(address: Address, timeout: float) -> dict[str, Any]:
    try:
        connection = Connection(address, timeout)
        try:
            version = " ".join(connection.admin("version", _WHOLE_ANSWER)).removeprefix("OK ")
            # A queue's name is whatever someone submitted to: tabs, or what a terminal obeys.
            lines = [line.rsplit("\t", 3) for line in connection.admin("status", _WHOLE_ANSWER)]
        finally:
            connection.close()
    except GearwsgiError as error:
        return {"address": str(address), "up": False, "error": str(error), "queues": []}
    queues = [
        {"queue": clean(name), "waiting": int(total) - int(running), "running": int(running), "workers": int(workers)}
        for name, total, running, workers in (line for line in lines if _is_row(line))
    ]
    return {"address": str(address), "up": True, "version": version, "queues": queues}


def _line(text: str) -> Text:
    """A line, whatever is in it: no markup, and nothing that a terminal obeys."""
    return Text(clean(text))


def _is_row(line: list[str]) -> bool:
    return len(line) == 4 and all(number.isascii() and number.isdigit() for number in line[1:])


def _render(known: dict[str, Any]) -> Group:
    parts: list[Any] = []
    for server in known["servers"]:
        if not server["up"]:
            parts.append(_line(f"{server['address']}  down: {server['error']}"))
            continue
        parts.append(_line(f"{server['address']}  version {server['version']}"))
        rows = [
            [row["queue"], str(row["waiting"]), str(row["running"]), str(row["workers"])]
            for row in sorted(server["queues"], key=lambda row: str(row["queue"]))
        ]
        parts.append(make_table(["queue", "waiting", "running", "workers"], rows, keep=(0,)))
    for supervisor in known["supervisors"]:
        state = "stopping" if supervisor["stopping"] else "running" if supervisor["fresh"] else "not responding"
        parts.append(_line(f"supervisor {supervisor['pid']} of {supervisor['app']}, {state}"))
        rows = [
            [
                str(worker["slot"]), str(worker["pid"]), worker["state"], ",".join(worker["queues"]), worker["job"],
                f"{worker['age']:.1f} s" if worker["job"] else "", str(worker["done"]), worker.get("memory", ""),
            ]
            for worker in supervisor["workers"]
        ]  # fmt: skip
        columns = ["worker", "pid", "state", "queues", "job", "age", "done", "memory"]
        parts.append(make_table(columns, rows, keep=(1, 4)))
    parts.append(_line(f"outbox {known['outbox']}, dead letters {known['dead']}, in {known['state_dir']}"))
    return Group(*parts)

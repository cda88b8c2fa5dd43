"""`gearwsgi status`: what goes on, on the job servers, on this machine, and with all that share its records."""

import contextlib
import json
import os
import select
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from ..address import Address
from ..errors import EXIT_PROBLEM, GearwsgiError, RecordsError
from ..log import clean
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..state.records.model import DEAD, DONE, RETRYING
from ..state.records.opening import reading
from ..state.records.store import FRESH, Store, Supervisor
from ..state.spool import Spool
from ..state.status import read_all
from .common import app_option, ask, console, get_settings
from .screen import lay_out, warnings

_HOUR = 3600.0
_MINUTE = 60.0


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh every second until q or Ctrl-C.")
@click.option("--check", is_flag=True, help="Exit code 1 where there is a warning, for a monitor.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def show_status(watch: bool, check: bool, as_json: bool, app: str | None) -> int:
    """Show what needs a look, the queues, and the workers of all supervisors that share the records.

    A warning is a job server that is down, records that are away, a supervisor that does not respond, or a queue in
    which jobs wait and that no worker serves. In the table of queues, `ready` jobs wait for a worker and `later` ones
    for their time; `failed` is how many tasks' last attempt failed within the last hour. What only records could tell
    is a dash where there are none.
    """
    settings = get_settings(app)
    if watch:
        _watch(settings)
        return 0
    known = collect(settings)
    if as_json:
        click.echo(json.dumps(known, indent=2))
    else:
        output = console()
        room = (output.width, output.height - 1) if output.is_terminal else (None, None)
        click.echo("\n".join(lay_out(known, *room)))
    if check:
        return EXIT_PROBLEM if known["warnings"] else 0
    return 0 if as_json or any(server["up"] for server in known["servers"]) else EXIT_PROBLEM


def _watch(settings: Settings) -> None:
    output = console()
    with contextlib.suppress(KeyboardInterrupt), _keys(), Live(console=output, auto_refresh=False, screen=True) as live:
        while True:
            lines = lay_out(collect(settings), output.width, output.height)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
            if _is_over(1.0):
                return


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Keys come as they are pressed, where standard input is a terminal."""
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


# -- what is known ---------------------------------------------------------------------------------------------------


def collect(settings: Settings) -> dict[str, Any]:
    """All that `status` knows, as JSON's types. Where something can't be had, that is said in it."""
    servers = [_ask(address, settings.connect_timeout) for address in settings.servers]
    records, error = _ask_records(settings)
    hour_ago = time.time() - _HOUR
    dead, outbox = DeadLetters(settings).spool, Outbox(settings).spool
    recently_dead = sum(number for _, state, number in records["hour"] if state == DEAD)
    known: dict[str, Any] = {
        "warnings": [],
        "servers": servers,
        "queues": _queues(servers, records),
        "supervisors": _supervisors(list(read_all(settings.state_dir)), records["fleet"]),
        "last_hour": {"dead": max(recently_dead, _since(dead, hour_ago)), "outbox": _since(outbox, hour_ago)},
        "outbox": outbox.count(),
        "dead": dead.count(),
        "records": {"on": bool(settings.records), "error": error},
        "state_dir": str(settings.state_dir),
    }
    known["warnings"] = [clean(text) for text in warnings(known)]
    return known


def _since(spool: Spool, since: float) -> int:
    return sum(1 for written, _ in spool.dated() if written >= since)


def _ask(address: Address, timeout: float) -> dict[str, Any]:
    try:
        version = " ".join(ask(address, "version", timeout)).removeprefix("OK ")
        # A queue's name is whatever someone submitted to: tabs, or what a terminal obeys.
        lines = [line.rsplit("\t", 3) for line in ask(address, "status", timeout)]
    except GearwsgiError as error:
        return {"address": str(address), "up": False, "error": str(error), "queues": []}
    queues = [
        {"queue": clean(name), "waiting": int(total) - int(running), "running": int(running), "workers": int(workers)}
        for name, total, running, workers in (line for line in lines if _is_row(line))
    ]
    return {"address": str(address), "up": True, "version": version, "queues": queues}


def _is_row(line: list[str]) -> bool:
    return len(line) == 4 and all(number.isascii() and number.isdigit() for number in line[1:])


def _ask_records(settings: Settings) -> tuple[dict[str, Any], str | None]:
    """What the records know of now and of the last hour; and why they can't be asked."""
    nothing: dict[str, Any] = {"hour": [], "minute": [], "waiting": [], "pauses": {}, "fleet": [], "now": 0.0}
    if not settings.records:
        return nothing, None
    try:
        with reading(settings) as store:
            return nothing if store is None else _read(store), None
    except RecordsError as error:
        return nothing, str(error)


def _read(store: Store) -> dict[str, Any]:
    now = store.database.now()
    return {
        "hour": store.counts(now - _HOUR),
        "minute": store.counts(now - _MINUTE),
        "waiting": store.waiting(),
        "pauses": store.pauses(),
        "fleet": store.fleet(),
        "now": now,
    }


def _queues(servers: list[dict[str, Any]], records: dict[str, Any]) -> list[dict[str, Any]]:
    """The queues of all job servers together, with what the records know of them."""
    found: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        counted = 0 if records["now"] else None  # without records nobody knows
        nothing = {"ready": 0, "later": 0, "running": 0, "workers": 0, "oldest": None, "per_minute": counted,
                   "failed": counted, "paused": False, "paused_for": None}  # fmt: skip
        return found.setdefault(clean(name), {"queue": clean(name), **nothing})

    for row in (row for server in servers for row in server["queues"]):
        queue = of(row["queue"])
        for name, number in (("ready", "waiting"), ("running", "running"), ("workers", "workers")):
            queue[name] += row[number]
    for name, later, oldest in records["waiting"]:
        queue = of(name)
        # What a job server has lost waits nowhere.
        queue["later"] = min(later, queue["ready"])
        queue["ready"] -= queue["later"]
        queue["oldest"] = oldest if queue["ready"] else None
    for name, state, number in records["minute"]:
        of(name)["per_minute"] += number if state == DONE else 0
    for name, state, number in records["hour"]:
        of(name)["failed"] += number if state in (DEAD, RETRYING) else 0
    for name, until in records["pauses"].items():
        of(name).update(paused=True, paused_for=None if until is None else max(0.0, round(until - records["now"], 1)))
    return [found[name] for name in sorted(found)]


def _supervisors(local: list[dict[str, Any]], fleet: list[Supervisor]) -> list[dict[str, Any]]:
    """Those of this state directory, and those that share the records; what was written last counts."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for each in fleet:
        host, pid = str(each.about.get("host", "")), int(each.about.get("pid", 0))
        silent = round(each.silent, 1)
        found[host, pid] = {
            "workers": [],
            **each.about,
            "host": host,
            "pid": pid,
            "fresh": each.silent < FRESH,
            "silent": silent,
        }
    here = socket.gethostname()
    for values in local:
        silent = round(max(0.0, time.time() - values["at"]), 1)
        if (here, values["pid"]) not in found or values["fresh"]:
            found[here, values["pid"]] = {**values, "host": here, "silent": silent}
    return [found[key] for key in sorted(found)]

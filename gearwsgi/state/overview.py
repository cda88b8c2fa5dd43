"""What goes on, for `status` and the dashboard: job servers, supervisors, records, outbox and dead letters."""

import socket
import time
from collections.abc import Mapping
from typing import Any

from ..address import Address
from ..errors import GearwsgiError, RecordsError
from ..log import clean
from ..message.fields import MAILBOX
from ..message.limits import split_queue
from ..settings import Settings
from ..wire.connection import Connection
from . import limits
from .dead import DeadLetters
from .outbox import Outbox
from .records.model import DEAD, DONE, RETRYING
from .records.opening import reading
from .records.store import FRESH, Store, Supervisor
from .spool import Spool
from .status import read_all

_HOUR = 3600.0
_MINUTE = 60.0
_WHOLE_ANSWER = 5.0
"""Seconds until a job server must have given its whole answer."""


def collect(settings: Settings) -> dict[str, Any]:
    """All that is known, as JSON's types. Where something can't be found out, the reason stands in its place."""
    servers = [_ask(address, settings.connect_timeout) for address in settings.servers]
    records, error = _ask_records(settings)
    hour_ago = time.time() - _HOUR
    dead, outbox = DeadLetters(settings).spool, Outbox(settings).spool
    supervisors = _supervisors(list(read_all(settings.state_dir)), records["fleet"])
    rows = [row for server in servers for row in server["queues"]]
    shown, keys = limits.describe(limits.given(settings, supervisors), records["limits"], rows)
    recently_dead = sum(number for _, state, number, _ in records["counts"] if state == DEAD)
    known: dict[str, Any] = {
        "warnings": [],
        "servers": servers,
        "queues": _queues(servers, records),
        "limits": shown,
        "keys": keys,
        "supervisors": supervisors,
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
        version = " ".join(_admin(address, "version", timeout)).removeprefix("OK ")
        # Anyone may submit to a queue of any name: it may hold tabs, or characters that a terminal obeys.
        is_ours = "+gearwsgi" in version
        size = 6 if is_ours else 4
        lines = [
            line.rsplit("\t", size - 1) for line in _admin(address, "show queues" if is_ours else "status", timeout)
        ]
    except GearwsgiError as error:
        return {"address": str(address), "up": False, "error": str(error), "queues": []}
    queues = [_row(line) for line in lines if _is_row(line, size)]
    return {"address": str(address), "up": True, "version": version, "queues": queues}


def _admin(address: Address, command: str, timeout: float) -> list[str]:
    connection = Connection(address, timeout)
    try:
        return connection.admin(command, _WHOLE_ANSWER)
    finally:
        connection.close()


def _is_row(line: list[str], size: int) -> bool:
    is_queue = len(line) == size and not line[0].startswith(MAILBOX)
    return is_queue and all(number.isascii() and number.isdigit() for number in line[1:4])


def _row(line: list[str]) -> dict[str, Any]:
    """A queue of one job server. Only the embedded one says how many are due later, and how long the oldest waits."""
    if len(line) == 4:
        total, running, workers = map(int, line[1:])
        more: dict[str, Any] = {"waiting": total - running, "later": None, "oldest": None}
    else:
        ready, later, running, workers = map(int, line[1:5])
        more = {"waiting": ready, "later": later, "oldest": float(line[5]) if ready else None}
    return {"queue": clean(line[0]), **more, "running": running, "workers": workers}


def _ask_records(settings: Settings) -> tuple[dict[str, Any], str | None]:
    """What the records know of now and of the last hour; and, where they can't be asked, why not."""
    nothing: dict[str, Any] = {"counts": [], "waiting": [], "pauses": [], "fleet": [], "now": 0.0}
    nothing["limits"] = {}
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
        "counts": store.counts(now - _HOUR, now - _MINUTE),
        "waiting": store.waiting(),
        "pauses": store.steering.pauses(),
        "limits": limits.changes(store),
        "fleet": store.fleet(),
        "now": now,
    }


def _queues(servers: list[dict[str, Any]], records: dict[str, Any]) -> list[dict[str, Any]]:
    """The queues of all job servers together, with what the records know of them."""
    found: dict[str, dict[str, Any]] = {}
    told = set[str]()

    def of(name: str) -> dict[str, Any]:
        counted = 0 if records["now"] else None  # without records it is not known
        nothing = {"ready": 0, "later": 0, "running": 0, "workers": 0, "oldest": None, "per_minute": counted,
                   "failed": counted, "paused": False, "paused_for": None,
                   "paused_by": ""}  # fmt: skip
        return found.setdefault(clean(name), {"queue": clean(name), **nothing})

    for row in (row for server in servers for row in server["queues"]):
        base, key = split_queue(row["queue"])
        queue = of(base)
        queue["ready"] += row["waiting"]
        queue["running"] += row["running"]
        queue["workers"] += 0 if key else row["workers"]  # who serves a key's queue also serves the queue itself
        if row["later"] is not None:
            queue["later"] += row["later"]
            queue["oldest"] = max(filter(None, (queue["oldest"], row["oldest"])), default=None)
            told.add(base)
    for name, later, oldest in records["waiting"]:
        queue = of(name)
        if queue["queue"] in told:
            continue
        # A job that a job server has lost waits nowhere, though its record may say so.
        queue["later"] = min(later, queue["ready"])
        queue["ready"] -= queue["later"]
        queue["oldest"] = oldest if queue["ready"] else None
    for name, state, number, recent in records["counts"]:
        of(name)["per_minute"] += recent if state == DONE else 0
        of(name)["failed"] += number if state in (DEAD, RETRYING) else 0
    for pause in records["pauses"]:
        left = None if pause.until is None else max(0.0, round(pause.until - records["now"], 1))
        of(pause.name).update(paused=True, paused_for=left, paused_by=pause.about)
    return [found[name] for name in sorted(found)]


def _supervisors(local: list[dict[str, Any]], fleet: list[Supervisor]) -> list[dict[str, Any]]:
    """The supervisors of this state directory, and those that share the records; of each what was written last."""
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


def warnings(known: Mapping[str, Any]) -> list[str]:
    """What somebody should look at now, a line for each; none: all is well."""
    found = [f"job server {each['address']} is down: {each['error']}" for each in known["servers"] if not each["up"]]
    if known["records"]["error"]:
        found.append(f"records: {known['records']['error']}")
    silent = [f"{each['host']}:{each['pid']}" for each in known["supervisors"] if not each["fresh"]]
    if silent:
        found.append(f"not responding: supervisor {', '.join(silent)}")
    idle = [each["queue"] for each in known["queues"] if is_unserved(each)]
    if idle:
        found.append(f"no worker for queue {', '.join(idle)}")
    return found


def is_unserved(queue: Mapping[str, Any]) -> bool:
    """Whether jobs wait in a queue that no worker serves. A paused queue does not count: somebody wants it so."""
    return bool(queue["ready"] + queue["later"]) and not queue["workers"] and not queue["paused"]

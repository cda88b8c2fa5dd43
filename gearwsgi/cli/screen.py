"""The lines of `gearwsgi status`: first what needs a look, then queues, then workers; they fit the terminal. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len, set_cell_size

from ..log import clean
from ..message.limits import Limit
from ..state.overview import is_unserved, warnings
from .common import cut, show_span

SHORT_ID = 12
"""Characters of a task's id: enough for the commands that take one."""
_QUEUES = ("queue", "ready", "later", "running", "workers", "oldest", "per min", "failed", "")
_KEYS = ("key", "waits", "running", "at once", "rate")
_WAITING = ("waits", "", "queue", "service", "due")
_WORKERS = ("worker", "state", "service", "id", "try", "age", "memory", "queues")


def lay_out(known: Mapping[str, Any], width: int | None = None, height: int | None = None) -> list[str]:
    """The lines, of at most `width` columns and `height` lines, where these are given."""
    lines = [f"WARNING: {text}" for text in warnings(known)]
    lines += _summary(known)
    queues = _table(_QUEUES, [_queue(each) for each in sorted(known["queues"], key=_importance)], width)
    keys = _table(_KEYS, [*map(_key, known["keys"])], width)
    workers = _table(_WORKERS, [*_workers(known["supervisors"])], width)
    if height is not None:
        room = height - len(lines) - 2 - bool(keys)
        need = len(workers)
        queues = _shorten(queues, max(room - need, room // 2), "queues")
        keys = _shorten(keys, max(room - need - len(queues), (room - len(queues)) // 2), "keys")
        workers = _shorten(workers, room - len(queues) - len(keys), "workers")
    waiting = _table(_WAITING, [*map(_waiting, known.get("waiting", ()))], width)
    for part in (queues, keys, workers, waiting):
        lines += ["", *part] if part else []
    return [cut(clean(line), width) for line in lines][:height]


def _waiting(job: Mapping[str, Any]) -> list[str]:
    due = "" if job["due"] is None else datetime.fromtimestamp(job["due"], UTC).isoformat(timespec="seconds")
    return [str(job[name]) for name in ("id", "state", "queue", "service")] + [due]


def _summary(known: Mapping[str, Any]) -> list[str]:
    dead, outbox = known["dead"], known["outbox"]
    hour = known["last_hour"]
    lines = [
        f"last hour: dead letters {hour['dead']} (of {dead}), outbox {hour['outbox']} (of {outbox})"
        f"; supervisors {len(known['supervisors'])}"
    ]
    paused = [_pause(each) for each in known["queues"] if each["paused"]]
    if paused:
        lines.insert(0, f"paused: {', '.join(paused)}")
    up = [f"{each['address']} ({each['version']})" for each in known["servers"] if each["up"]]
    if up:
        lines.append(f"job servers: {', '.join(up)}; state in {known['state_dir']}")
    changed = [f"{each['pattern']} ({Limit(*map(each.get, Limit._fields)).text}"
               f"{', by ' + each['changed_by'] if each['changed_by'] else ''})"
               for each in known["limits"] if each["changed_by"] is not None]  # fmt: skip
    if changed:
        lines.insert(0, f"limits changed: {', '.join(changed)}")
    return lines


def _pause(queue: Mapping[str, Any]) -> str:
    left = queue["paused_for"]
    more = [f"for {show_span(left)}"] if left is not None else []
    more += [f"by {queue['paused_by']}"] if queue["paused_by"] else []
    return f"{queue['queue']} ({', '.join(more)})" if more else str(queue["queue"])


def _importance(queue: Mapping[str, Any]) -> tuple[Any, ...]:
    return not is_unserved(queue), not queue["paused"], -queue["ready"], queue["queue"]


def _queue(queue: Mapping[str, Any]) -> list[str]:
    numbers = [str(queue[name]) for name in ("ready", "later", "running", "workers")]
    oldest = "-" if queue["oldest"] is None else show_span(queue["oldest"])
    note = "paused" if queue["paused"] else "no worker" if is_unserved(queue) else ""
    counts = ["-" if queue[name] is None else str(queue[name]) for name in ("per_minute", "failed")]
    return [str(queue["queue"]), *numbers, oldest, *counts, note]


def _key(key: Mapping[str, Any]) -> list[str]:
    most = str(key["concurrency"] or "-")
    return [key["key"], str(key["waiting"]), str(key["running"]), most, key["rate"] or "-"]


def _workers(supervisors: Iterable[Mapping[str, Any]]) -> Iterable[list[str]]:
    """Lines about workers: the busy ones first, and of these the longest busy."""
    found = []
    for supervisor in supervisors:
        for worker in supervisor["workers"]:
            busy = bool(worker["job"])
            state = worker["state"] if supervisor["fresh"] else "silent"
            row = [
                f"{supervisor['host']}:{worker['pid']}", state,
                worker.get("service", "") if busy else "",
                (worker.get("id") or worker["job"])[: SHORT_ID if worker.get("id") else None] if busy else "",
                str(worker.get("attempt", "")) if busy else "",
                show_span(worker["age"]) if busy else "", str(worker.get("memory", "")), ",".join(worker["queues"]),
            ]  # fmt: skip
            found.append((not busy, -worker["age"], row))
    return [row for _, _, row in sorted(found, key=lambda each: each[:2])]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """A header, and a line for each row. Columns are as wide as they need; without room the widest are cut."""
    if not rows:
        return []
    cells = [list(columns), *[[clean(cell) for cell in row] for row in rows]]
    widths = [max(cell_len(row[place]) for row in cells) for place in range(len(columns))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(set_cell_size(cut(cell, size), size) for cell, size in zip(row, widths, strict=True)).rstrip()
            for row in cells]  # fmt: skip


def _shorten(lines: list[str], room: int, what: str) -> list[str]:
    """As many lines as there is room for; the last one says how many are left out."""
    if len(lines) <= room:
        return lines
    if room < 3:
        return []
    return [*lines[: room - 1], f"… and {len(lines) - room + 1} more {what}"]

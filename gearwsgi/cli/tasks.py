"""`gearwsgi tasks`, `task` and `result`: what became of every task, as the records know it."""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator

import click

from ..errors import ServerUnavailable, UnknownTask
from ..log import clean
from ..state.records.model import STATES, Attempt, Record
from ..state.records.opening import reading
from ..state.records.store import MAX_LIST, Found
from ..submit.client import Client
from ..submit.lookup import Lookup
from .common import app_option, cut, get_settings, read_id, read_since
from .screen import SHORT_ID

id_argument = click.argument("id", callback=lambda context, parameter, value: read_id(value))
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_SILENT = "not responding"
"""What is shown for a running task whose supervisor does not respond."""


@click.command("tasks")
@click.option("--state", type=click.Choice(STATES), help="Those in this state.")
@click.option("--service", help="Those of this service.")
@click.option("--queue", help="Those of this queue.")
@click.option(
    "--since",
    callback=read_since,
    metavar="TIME",
    help="Those to which something has happened since then: 90s, 15m, 1h, 7d, or ISO 8601.",
)
@click.option("--limit", type=click.IntRange(1, MAX_LIST), default=100, show_default=True, help="How many.")
@json_option
@app_option
def tasks(
    state: str | None,
    service: str | None,
    queue: str | None,
    since: float | None,
    limit: int,
    as_json: bool,
    app: str | None,
) -> None:
    """List tasks that workers have seen, newest first."""
    with reading(get_settings(app)) as store:
        found = (
            [] if store is None else store.tasks(state=state, service=service, queue=queue, since=since, limit=limit)
        )
    if as_json:
        click.echo(json.dumps([_to_json(each) for each in found], indent=2))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for each in found:
        click.echo(_line(each, width))
    if len(found) == limit:
        click.echo(f"there may be more than {limit}: --limit shows them", err=True)


def _to_json(found: Found) -> dict[str, object]:
    """A record; `fresh` is false where it runs and its supervisor does not respond."""
    silent = {"fresh": False} if found.is_fresh is False else {}
    return {**found.record.to_json(history=False), **silent}


def _line(found: Found, width: int | None) -> str:
    """A task in one line; in two of a terminal's, where there is a reason."""
    record = found.record
    state = f"{record.state} ({_SILENT})" if found.is_fresh is False else record.state
    queued = record.queued.strftime("%Y-%m-%dT%H:%M:%S") if record.queued is not None else "-"
    shown = record.id if width is None else record.id[:SHORT_ID]  # commands take shortened ids
    first = f"{clean(shown)}  {queued}  {state}  {_tries(record)}  {clean(record.queue)}  {clean(record.service)}"
    if not record.reason:
        return cut(first, width)
    if width is None:
        return f"{first}  {clean(record.reason)}"
    return f"{cut(first, width)}\n  {cut(clean(record.reason), width - 2)}"


def _tries(record: Record) -> str:
    return f"{record.attempts}/{record.max_attempts or '?'}"


@click.command("task")
@id_argument
@json_option
@app_option
def show_task(id: str, as_json: bool, app: str | None) -> None:
    """Show one, with each attempt that has ended. The ID may be shortened where it stays the only one."""
    with asking(app, id) as lookup:
        record = lookup.record()
    with reading(get_settings(app)) as store:
        story = () if store is None else store.story(record.id)
    if as_json:
        click.echo(json.dumps(record.to_json(), indent=2))
        return
    values = record.to_json(history=False)
    progress = values["progress"]
    values["progress"] = None if progress is None else f"{progress[0]} of {progress[1]}"
    for name, value in values.items():
        if value is not None:
            click.echo(f"{name}: {clean(str(value))}")
    for attempt in record.history:
        _show_attempt(attempt)
    for event in story:
        at = event.at.isoformat(timespec="seconds") if event.at is not None else "-"
        click.echo(clean(f"{event.what}{f' by {event.by}' if event.by else ''}, {at}"))


def _show_attempt(attempt: Attempt) -> None:
    """An attempt in one line, and its traceback below."""
    started = attempt.started.isoformat(timespec="seconds") if attempt.started is not None else "-"
    parts = [
        f"attempt {attempt.attempt}: {attempt.outcome} after {attempt.seconds:.3f} s",
        f"began {started} on {attempt.host}, pid {attempt.pid}",
        f"status {attempt.status}" if attempt.status is not None else "",
        attempt.reason or "",
    ]
    click.echo(clean(", ".join(filter(None, parts))))
    for line in (attempt.traceback or "").splitlines():
        click.echo(f"| {clean(line)}")


@click.command("result")
@id_argument
@app_option
def show_result(id: str, app: str | None) -> None:
    """Give the response that is kept of a task: its body on standard output, its status on standard error."""
    with asking(app, id) as lookup:
        status, _, body = lookup.result(0)
    click.echo(clean(status), err=True)
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def asking(app: str | None, task_id: str) -> Iterator[Lookup]:
    """The means to look up a task.

    Raises:
        UnknownTask: no record has it, and a job server that may have it does not answer.
    """
    client = Client(get_settings(app))
    try:
        yield Lookup(client, task_id)
    except ServerUnavailable as error:
        raise UnknownTask(f"no record of task {task_id!r}, and {error}") from error
    finally:
        client.close()

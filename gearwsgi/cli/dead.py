"""`gearwsgi dead`: read dead letters, send them again, throw them away."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import click

from ..errors import EXIT_PROBLEM, RecordsUnavailable, SpoolError
from ..log import clean
from ..message.redact import redact_lines, redact_payload
from ..state.dead import Entry
from ..state.records.model import GROUPED
from ..state.shared import Found, SharedLetters
from .common import acting, app_option, confirm, cut, read_since
from .lazy import LazyGroup

secrets_option = click.option("--secrets", is_flag=True, help="Show cookies, authorization and the like, too.")
service_option = click.option("--service", help="Those of this service.")
since_option = click.option(
    "--since",
    callback=read_since,
    metavar="TIME",
    help="Those that died since then: 90s, 15m, 1h, 7d, or ISO 8601.",
)
_HOMES = {name: ("gearwsgi.cli.reproduce", f"dead_{name}") for name in ("curl", "replay", "test")}
"""Commands that load an application and a debugger, and are imported where they are run."""
_SHOWN = 256 * 1024
"""Bytes of a message that `show` prints: its head, and what somebody reads of a body."""


@click.group(cls=LazyGroup, homes=_HOMES)
def dead() -> None:
    """Tasks that are not tried again by themselves. An ID may be shortened where it stays the only one."""


@dead.command("list")
@service_option
@since_option
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="How many; 0: all.")
@click.option("--group", is_flag=True, help="How many of each service died of each reason.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def dead_list(service: str | None, since: float | None, limit: int, group: bool, as_json: bool, app: str | None) -> int:
    """List dead letters of all machines that share the records, newest first."""
    code = 0
    with acting(app) as actions, actions.letters() as letters:
        try:
            entries = letters.entries(since or 0.0, service)
        except RecordsUnavailable as error:
            click.echo(clean(f"gearwsgi: only what lies here: {error}"), err=True)
            entries, code = letters.here.entries(since or 0.0, service), EXIT_PROBLEM
        _list(entries, limit, group, as_json)
    return code


def _list(entries: Iterator[Entry], limit: int, group: bool, as_json: bool) -> None:
    if group:
        _show_groups(entries, limit, as_json)
        return
    shown = islice(entries, limit or None)
    if as_json:
        _print_json(map(_row, shown))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for entry in shown:
            click.echo(_line(entry, width))
    if limit and next(entries, None) is not None:
        click.echo(f"there are more than {limit}: --limit 0 shows all", err=True)


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "service": entry.service,
        "queue": entry.queue,
        "died": entry.at,
        "attempts": entry.attempts,
        "reason": entry.reason,
    }


def _print_json(rows: Iterator[dict[str, Any]]) -> None:
    """A JSON array, a row at a time."""
    between = "["
    for row in rows:
        click.echo(between + "\n" + json.dumps(row, indent=2), nl=False)
        between = ","
    click.echo("[]" if between == "[" else "\n]")


def _line(entry: Entry, width: int | None) -> str:
    """A letter in one line; in two of a terminal's."""
    # An id of someone else's making may have any length; the file's name is as good.
    shown = entry.id if len(entry.id) <= 36 else entry.name
    first = f"{clean(shown)}  {clean(entry.at[:19])}  {entry.attempts}x  {clean(entry.service)}"
    if width is None:
        return f"{first}  {clean(entry.reason)}"
    return f"{cut(first, width)}\n  {cut(clean(entry.reason), width - 2)}"


def _show_groups(entries: Iterator[Entry], limit: int, as_json: bool) -> None:
    counts = Counter((entry.service, entry.reason[:GROUPED]) for entry in entries)
    found = counts.most_common(limit or None)
    if as_json:
        _print_json({"service": service, "reason": reason, "count": count} for (service, reason), count in found)
        return
    from .tables import console, make_table

    rows = [[str(count), service, reason] for (service, reason), count in found]
    console().print(make_table(["count", "service", "reason"], rows, keep=(0,)))


@dead.command("show")
@click.argument("id")
@secrets_option
@app_option
def dead_show(id: str, secrets: bool, app: str | None) -> None:
    """Show one: why it died, each attempt, the last response, and its request."""
    with acting(app) as actions, actions.letters() as letters:
        settings = actions.settings
        found = letters.find(id)
    letter = found.letter
    for name in ("id", "service", "target", "queue", "at", "attempts", "reason"):
        click.echo(f"{name}: {clean(str(getattr(letter, name)))}")
    for note in letter.notes if secrets else redact_lines(letter.notes, settings.redact):
        click.echo(f"| {clean(note)}")
    click.echo("")
    payload = letter.payload[:_SHOWN]
    payload = payload if secrets else redact_payload(payload, settings.redact)
    # What came from anywhere does not get to move a terminal's cursor.
    for line in payload.decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n"):
        click.echo("\t".join(map(clean, line.split("\t"))))
    if len(letter.payload) > _SHOWN:
        where = "on the machine where it died" if found.spool else f"in {letters.here.spool.path(letter.name)}"
        click.echo(f"… and {len(letter.payload) - _SHOWN} bytes more, {where}", err=True)


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose dead letters."""
    options = [
        click.argument("id", required=False),
        click.option("--all", "everything", is_flag=True, help="All of them."),
        service_option,
        since_option,
        click.option("--yes", is_flag=True, help="Don't ask before many are changed."),
        app_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dead.command("retry")
@_selecting
def dead_retry(
    id: str | None, everything: bool, service: str | None, since: float | None, yes: bool, app: str | None
) -> None:
    """Queue the task again, as a first attempt, under its old id."""
    left_alone = 0
    with acting(app) as actions, actions.letters() as letters:
        for chosen in _choose(letters, "Retry", id, everything, service, since, yes):
            try:
                click.echo(actions.retry(chosen, letters).text)
            except SpoolError as error:
                click.echo(clean(f"left alone: {error}"), err=True)  # it must not hold up those behind it
                left_alone += 1
    if left_alone:
        raise SpoolError(f"{left_alone} could not be queued again")


@dead.command("discard")
@_selecting
def dead_discard(
    id: str | None, everything: bool, service: str | None, since: float | None, yes: bool, app: str | None
) -> None:
    """Throw it away."""
    with acting(app) as actions, actions.letters() as letters:
        for chosen in _choose(letters, "Discard", id, everything, service, since, yes):
            click.echo(actions.discard(chosen, letters).text)


def _choose(
    letters: SharedLetters,
    verb: str,
    wanted: str | None,
    everything: bool,
    service: str | None,
    since: float | None,
    yes: bool,
) -> Iterator[Found]:
    """The one that is wanted, or many when that was confirmed."""
    many = everything or service is not None or since is not None
    if many == (wanted is not None):
        raise click.UsageError("give an ID, or --all, --service or --since")
    if wanted is not None:
        yield letters.find(wanted)
        return
    entries = list(letters.entries(since or 0.0, service))
    if not entries:
        click.echo("no dead letter is one of these", err=True)
        return
    confirm(f"{verb} {len(entries)} dead letter{'s' * (len(entries) > 1)}?", yes=yes)
    for entry in reversed(entries):  # the oldest first
        try:
            found = letters.get(entry)
        except SpoolError as error:
            click.echo(clean(f"left alone: {error}"), err=True)
            continue
        if found is not None:
            yield found

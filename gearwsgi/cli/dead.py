"""`gearwsgi dead`: read dead letters, send them again, throw them away."""

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from ..errors import BadMessage, SpoolError
from ..log import clean
from ..message import reading
from ..message.redact import redact_lines, redact_payload
from ..state.dead import DeadLetter, DeadLetters
from ..submit.client import Client
from .common import console, get_settings, make_table
from .tasks import app_option

secrets_option = click.option("--secrets", is_flag=True, help="Show cookies, authorization and the like, too.")


@click.group()
def dead() -> None:
    """Tasks that are not tried again by themselves."""


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@app_option
def dead_list(as_json: bool, app: str | None) -> None:
    """List dead letters, oldest first."""
    rows = [
        {
            "id": letter.id,
            "service": letter.service,
            "queue": letter.queue,
            "died": letter.at,
            "attempts": letter.attempts,
            "reason": letter.reason,
        }
        for letter in DeadLetters(get_settings(app)).all()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    cells = [[clean(str(row[key])) for key in ("id", "service", "died", "attempts", "reason")] for row in rows]
    console().print(make_table(["id", "service", "died", "attempts", "reason"], cells, keep=(0,)))


@dead.command("show")
@click.argument("id")
@secrets_option
@app_option
def dead_show(id: str, secrets: bool, app: str | None) -> None:
    """Show one: why it died, each attempt, the last response, and its request."""
    settings = get_settings(app)
    letter = DeadLetters(settings).find(id)
    for name in ("id", "service", "target", "queue", "at", "attempts", "reason"):
        click.echo(f"{name}: {clean(str(getattr(letter, name)))}")
    for note in letter.notes if secrets else redact_lines(letter.notes, settings.redact):
        click.echo(f"| {clean(note)}")
    click.echo("")
    payload = letter.payload if secrets else redact_payload(letter.payload, settings.redact)
    # What came from anywhere does not get to move a terminal's cursor.
    for line in payload.decode("utf-8", "backslashreplace").replace("\r\n", "\n").split("\n"):
        click.echo("\t".join(map(clean, line.split("\t"))))


@dead.command("retry")
@click.argument("id", required=False)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--service", help="Those of this service.")
@click.option("--since", metavar="TIME", help="Those that died at or after this time (ISO 8601).")
@app_option
def dead_retry(id: str | None, everything: bool, service: str | None, since: str | None, app: str | None) -> None:
    """Queue the task again, as a first attempt, under its old id."""
    settings = get_settings(app)
    letters = DeadLetters(settings)
    client = Client(settings)
    for chosen in _choose(letters, id, everything, service, since):
        submission = letters.submission(chosen)
        letter = letters.set_apart(chosen)
        (receipt,) = client.submit([submission])
        letters.discard(letter)
        click.echo(f"{letter.id} queued as {receipt.handle}" if receipt.handle else f"{letter.id} is in the outbox")
    client.close()


@dead.command("discard")
@click.argument("id", required=False)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--service", help="Those of this service.")
@click.option("--since", metavar="TIME", help="Those that died at or after this time (ISO 8601).")
@app_option
def dead_discard(id: str | None, everything: bool, service: str | None, since: str | None, app: str | None) -> None:
    """Throw it away."""
    letters = DeadLetters(get_settings(app))
    for letter in _choose(letters, id, everything, service, since):
        letters.discard(letter)
        click.echo(f"{letter.id} discarded")


@dead.command("curl")
@click.argument("id")
@secrets_option
@app_option
def dead_curl(id: str, secrets: bool, app: str | None) -> None:
    """Print the curl command line that sends its request to the web application."""
    settings = get_settings(app)
    letter = DeadLetters(settings).find(id)
    payload = letter.payload if secrets else redact_payload(letter.payload, settings.redact)
    try:
        task = reading.read(payload)
    except BadMessage as error:
        raise SpoolError(f"dead letter {letter.id} holds no request: {error}") from error
    words = ["curl", "-i", "-X", task.method, task.url]
    for name, value in task.headers:
        words += ["-H", f"{name}: {value}"]
    if task.body:
        words += ["--data-binary", task.body.decode("utf-8", "surrogateescape")]
    click.echo(" ".join(map(_quote, words)))


def _quote(word: str) -> str:
    """A word for a shell; where it holds more than text, in the way that bash, zsh and ksh write bytes."""
    if word.isprintable():
        return shlex.quote(word)
    return "$'" + "".join(map(_escape, word)) + "'"


def _escape(char: str) -> str:
    if char in "\\'":
        return "\\" + char
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _choose(
    letters: DeadLetters, wanted: str | None, everything: bool, service: str | None, since: str | None
) -> Iterator[DeadLetter]:
    if wanted is not None:
        if everything or service or since:
            raise click.UsageError("give an ID, or --all, --service or --since")
        yield letters.find(wanted)
        return
    if not (everything or service or since):
        raise click.UsageError("give an ID, or --all, --service or --since")
    start = _time(since) if since else None
    for letter in letters.all():
        if service is not None and letter.service != service:
            continue
        if start is not None and _time(letter.at) < start:
            continue
        yield letter


def _time(text: str) -> Any:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no ISO 8601 time, such as 2026-01-31T12:00:00Z") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)

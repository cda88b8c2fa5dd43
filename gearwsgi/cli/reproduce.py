"""`gearwsgi dead curl`, `replay` and `test`: a dead letter's request as a command, in this process, as a test."""

import bdb
import pdb
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click

from ..app import replay
from ..app.context import ready_context
from ..app.job import Job
from ..app.loading import load_application
from ..app.replay import Result, notice_exceptions
from ..errors import BadMessage, SpoolError
from ..message import reading
from ..message.model import Message
from ..message.redact import redact_payload
from ..message.routes import Paths, spellings
from ..policy import succeeded
from ..settings import Settings
from ..state.dead import DeadLetter
from ..state.reproduce import ENDS_A_PROCESS, write_curl, write_test
from ..state.shared import SharedLetters
from .common import app_option, get_settings
from .dead import secrets_option

application_option = click.option("--app", metavar="MODULE:NAME", required=True, help="The application.")


@click.command("curl")
@click.argument("id")
@secrets_option
@app_option
def dead_curl(id: str, secrets: bool, app: str | None) -> None:
    """Print the curl command line that sends its request to the web application."""
    settings = get_settings(app)
    with SharedLetters.opened(settings) as letters:
        found = letters.find(id)
    letter = found.letter
    if found.spool:
        raise SpoolError(f"dead letter {letter.id} lies on another machine, and curl reads the file there")
    payload = letter.payload if secrets else redact_payload(letter.payload, settings.redact)
    try:
        task = reading.read(payload, max_body=settings.max_body)
    except BadMessage as error:
        raise SpoolError(f"dead letter {letter.id} holds no request: {error}") from error
    if not letter.trusted:
        click.echo(f"this was never accepted: whoever sent it chose where it goes, {task.host}", err=True)
    ways = spellings(unquote(task.path.partition("?")[0], "latin-1"))
    if settings.tasks_only and Paths(settings.tasks_only).fit(ways):
        click.echo(
            f"the web application answers this with a 404, for {task.path} is only for tasks (tasks_only); "
            f"`gearwsgi dead replay {letter.id} --app {app}` runs it here, `gearwsgi dead retry` in a worker",
            err=True,
        )
    click.echo(write_curl(task, letters.here.spool.path(letter.name).absolute()))


@click.command("replay")
@click.argument("id")
@click.option("--pdb", "debug", is_flag=True, help="Under the debugger: from its start, and again where it raises.")
@application_option
def dead_replay(id: str, debug: bool, app: str) -> int:
    """Run its request through the application here and now, in the foreground; the exit code is 0 for a 2xx.

    The dead letter stays. What the handler does, it does for real, and without a time limit.
    """
    application, middleware = load_application(app)
    letter, task = _read(id, middleware.settings)
    limits = middleware.settings.retry_limits(task)
    job = Job.of(task, queue=letter.queue, handle="-", max_attempts=limits.max_attempts, id=letter.id)
    click.echo(f"{task.target}, id {job.id}, attempt {job.attempt} of {job.max_attempts}", err=True)
    debugger = pdb.Pdb(nosigint=True) if debug else None

    def called(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if debugger is not None:
            click.echo("s steps into the application, b FILE:LINE sets a breakpoint, c runs, q ends", err=True)
            debugger.set_trace()
        body: Iterable[bytes] = application(environ, start_response)
        return body

    notice_exceptions()
    result = replay.run(called, task, job, sys.stderr, ready_context())
    sys.settrace(None)
    return _tell(result, debug)


def _tell(result: Result, debug: bool) -> int:
    error = result.error
    if isinstance(error, bdb.BdbQuit):
        return 1
    outcome = result.outcome
    click.echo(f"{outcome.reason} in {result.seconds * 1000:.1f} ms", err=True)
    click.echo((result.data or outcome.response).decode("utf-8", "replace"))
    if error is not None and debug:
        click.echo(f"{type(error).__name__}: {error}; this is where it was raised", err=True)
        pdb.post_mortem(error.__traceback__)
    return 0 if succeeded(outcome) else 1


@click.command("test")
@click.argument("id")
@click.option("--secrets", is_flag=True, help="With the values of cookies, authorization and the like.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; - is standard output.  [default: test_dead_<id>.py]",
)
@application_option
def dead_test(id: str, secrets: bool, output: Path | None, app: str) -> None:
    """Write it as a pytest that fails as the task did, and passes when that is mended."""
    _, middleware = load_application(app)
    letter, task = _read(id, middleware.settings)
    limit = middleware.settings.time_limit(task)
    task = replace(task, attempt=1, failures=())
    if letter.outcome in ENDS_A_PROCESS:
        task = replace(task, max_attempts=1, timeout=limit)
    payload = task.to_bytes()
    if not secrets:
        payload = redact_payload(payload, middleware.settings.redact)
    short = "".join(char for char in letter.id if char.isalnum())[:12] or "letter"
    text = write_test(letter, payload, app, short, limit)
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    path = output or Path(f"test_dead_{short}.py")
    if path.exists():
        raise SpoolError(f"{path} is there already; --output names another")
    path.write_text(text, encoding="utf-8")
    click.echo(f"{path}; run it with: python -m pytest -o gearwsgi_app={shlex.quote(app)} {shlex.quote(str(path))}")


def _read(wanted: str, settings: Settings) -> tuple[DeadLetter, Message]:
    """A dead letter, and the request in it.

    Raises:
        SpoolError: there is none, or its message may not run.
    """
    with SharedLetters.opened(settings) as letters:
        letter = letters.find(wanted).letter
    if not letter.trusted:
        raise SpoolError(f"dead letter {letter.id} was never accepted, so it is not run: {letter.reason}")
    try:
        return letter, reading.read(letter.payload, max_body=settings.max_body)
    except BadMessage as error:
        raise SpoolError(f"dead letter {letter.id} holds no request: {error}") from error

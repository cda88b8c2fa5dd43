"""`gearwsgi check`: finds before a deploy what would go wrong in it."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from ..address import Address
from ..app.unshared import load_and_look
from ..errors import EXIT_PROBLEM, AppLoadError, GearwsgiError, InvalidTask, RecordsUnavailable, ServerError, SpoolError
from ..message import targets
from ..message.plain import is_plain
from ..settings import Settings
from ..state.dead import DeadLetters
from ..state.outbox import Outbox
from ..state.records.opening import reading
from ..state.spool import make_private_folder
from ..state.status import read_all
from ..submit.frameworks import host_trouble
from ..submit.middleware import GearmanMiddleware
from ..wire import packets
from ..wire.connection import Connection
from .common import get_settings
from .routes import find_router


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table of findings.

    Attributes:
        part: `application`, `host`, `task`, `schedule`, `limits`, `server`, `keys`, `state`, `records`, `inbox`,
            `supervisor`.
        what: which one.
        state: `problem` makes the exit code 1; `warning` is worth a look.
        text: what was found, and what to do.
    """

    part: str
    what: str
    state: Literal["ok", "warning", "problem"]
    text: str


@click.command()
@click.argument("app", metavar="MODULE:NAME", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--live", is_flag=True, help="Only whether a supervisor of this state directory lives: a health check.")
def check(app: str | None, as_json: bool, live: bool) -> int:
    """Check the WSGI application MODULE:NAME and what it needs. The exit code is 1 where there is a problem.

    With --live the application may be left out: then the environment says which state directory.
    """
    findings: list[Finding]
    if live:
        findings = [_supervisor(get_settings(app))]
    elif app is None:
        raise click.UsageError("give an application as MODULE:NAME")
    else:
        findings = list(_check(app))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        from .tables import console, make_table

        rows = [[finding.state, finding.part, finding.what, finding.text] for finding in findings]
        console().print(make_table(["", "part", "what", "found"], rows, keep=(0, 1)))
    return EXIT_PROBLEM if any(finding.state == "problem" for finding in findings) else 0


def _check(app: str) -> Iterator[Finding]:
    try:
        application, middleware, connections = load_and_look(app)
    except AppLoadError as error:
        yield Finding("application", app, "problem", str(error))
        return
    settings = middleware.settings
    router = find_router(application)
    asked = f"its router is {router[0]}'s" if router else "its router can't be asked which targets exist"
    yield Finding("application", app, "ok", f"has its GearmanMiddleware; {asked}")
    if connections:
        text = (
            f"are opened while it is loaded ({', '.join(connections)}): processes must not share them, so each "
            "worker loads it by itself, in memory of its own, and --preload is an error; open them later, such as in "
            "gearwsgi.on_worker_start"
        )
        yield Finding("application", "connections", "warning", text)
    yield _host(middleware)
    yield from _tasks(settings, router[1] if router else None)
    yield from _schedule(settings, router[1] if router else None)
    yield from _limits(settings)
    for address in settings.servers:
        yield _server(address, settings)
    yield _keys(settings)
    yield from _state(settings)
    if settings.records:
        yield _records(settings)
    for inbox in settings.inbox:
        yield _inbox(str(inbox.route), settings)


def _host(middleware: GearmanMiddleware) -> Finding:
    """Whether the application accepts the host of tasks that are queued without a request."""
    base = middleware.gearman.base
    trouble = host_trouble(base.host, middleware.app)
    text = trouble or f"what is queued without a request begins with {base.scheme}://{base.host}{base.script_name}/"
    return Finding("host", base.host, "problem" if trouble else "ok", text)


def _records(settings: Settings) -> Finding:
    """Whether the records can be read. Jobs run even where they can't."""
    try:
        with reading(settings) as store:
            where = "begin with the first worker" if store is None else f"are in {store.database.name}"
            supervisors = len(store.fleet()) if store is not None else 0
    except RecordsUnavailable as error:
        return Finding("records", settings.records.partition(":")[0], "problem", str(error))
    text = f"{where}; supervisors that write them just now: {supervisors}"
    return Finding("records", settings.records.partition(":")[0], "ok", text)


def _inbox(route: str, settings: Settings) -> Finding:
    """Whether a repeated delivery would be noticed."""
    if settings.records:
        return Finding(
            "inbox", route, "ok", f"a second delivery of the same id is dropped for {settings.inbox_keep:g} s"
        )
    return Finding(
        "inbox", route, "warning", "records are off: a second delivery can't be told, and runs too; set records"
    )


def _tasks(settings: Settings, ask: Any) -> Iterator[Finding]:
    for name in settings.tasks:
        try:
            target = targets.resolve(name, settings.tasks, settings.resolver)
        except InvalidTask as error:
            yield Finding("task", name, "problem", str(error))
            continue
        trouble = ask(target) if ask is not None else ""
        yield Finding("task", name, "problem" if trouble else "ok", f"{target}" + (f": {trouble}" if trouble else ""))


def _schedule(settings: Settings, ask: Any) -> Iterator[Finding]:
    """When each entry is due, and whether what it calls is there. Other mistakes have been errors at the start."""
    if not settings.schedule:
        return
    from ..submit.ticks import plan_all

    now = time.time()
    for plan in plan_all(settings).values():
        entry = settings.schedule[plan.name]
        text = f"next {plan.cron.after(now).isoformat()} ({plan.cron.timezone}), queue {plan.queue}"
        if is_plain(plan.payload):
            yield Finding("schedule", plan.name, "ok", f"a plain call of {plan.service}, {text}")
            continue
        target = targets.resolve(plan.service, settings.tasks, settings.resolver, entry.options.get("method"))
        trouble = ask(target) if ask is not None else ""
        if trouble:
            yield Finding("schedule", plan.name, "problem", f"{target}: {trouble}")
        else:
            yield Finding("schedule", plan.name, "ok", f"{target}, {text}")


def _limits(settings: Settings) -> Iterator[Finding]:
    """Whether all that hold keys to their limits know of each other."""
    if not settings.limits:
        return
    count = f"{len(settings.limits)} pattern{'s' * (len(settings.limits) != 1)}"
    alone = "supervisors that don't share it can't know of each other, and each counts for itself"
    if not settings.records:
        yield Finding("limits", count, "warning", f"records are off: {alone}; run one supervisor, or set records")
    elif settings.records == "sqlite" and not all(address.is_loopback for address in settings.servers):
        text = f"records are a file of this machine: {alone}; with workers elsewhere set records to a postgresql:// URL"
        yield Finding("limits", count, "warning", text)
    else:
        yield Finding("limits", count, "ok", "counted over all supervisors that share the records")


def _server(address: Address, settings: Settings) -> Finding:
    what = str(address)
    try:
        connection = Connection(address, settings.connect_timeout)
        try:
            version = " ".join(connection.admin("version", settings.connect_timeout)).removeprefix("OK ").strip()
            pid = " ".join(connection.admin("getpid", settings.connect_timeout)).removeprefix("OK ").strip()
            connection.send(packets.pack(packets.GRAB_JOB_UNIQ), settings.connect_timeout)
            connection.expect(packets.NO_JOB, settings.connect_timeout)  # it was told of no function that we serve
        finally:
            connection.close()
    except ServerError as error:
        return Finding(
            "server", what, "problem", f"hands out no jobs with GRAB_JOB_UNIQ, as workers ask for them: {error}"
        )
    except GearwsgiError as error:
        if settings.embedded:
            return Finding("server", what, "ok", "embedded; does not run now, the worker starts it and keeps its jobs")
        return Finding("server", what, "problem", f"does not answer: {error}")
    if "gearwsgi" in version:
        return Finding("server", what, "ok", f"version {version}, keeps its jobs over a restart")
    if settings.embedded:
        return Finding("server", what, "warning", f"another job server ({version}) is where the embedded one would be")
    return _gearmand(address, version, pid)


def _gearmand(address: Address, version: str, pid: str) -> Finding:
    """Whether gearmand keeps its jobs on disk: it does not say, but on this machine its command line does."""
    words = _command_line(pid) if address.is_loopback and pid.isdigit() else None
    if words is None:
        text = f"whether it keeps its jobs over a restart can't be seen from here; {_HOLDS}"
        return Finding("server", str(address), "ok", f"gearmand {version}, {text}")
    queue = _queue_type(words)
    if queue == "builtin":
        text = "keeps its jobs in memory: they are lost when it ends; -q libsqlite3 keeps them"
        return Finding("server", str(address), "warning", f"gearmand {version}, {text}")
    if queue == "redis":
        text = "-q redis cuts messages at a NUL and refuses delays; -q libsqlite3 does not"
        return Finding("server", str(address), "problem", f"gearmand {version}, {text}")
    text = f"keeps its jobs over a restart ({queue})" + ("" if "--keepalive" in words else f"; {_HOLDS}")
    return Finding("server", str(address), "ok", f"gearmand {version}, {text}")


_HOLDS = "without its --keepalive options it holds the jobs of a worker whose host vanishes for two hours"


def _command_line(pid: str) -> list[str] | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return None
    if "gearmand" not in os.path.basename(words[0]):
        return None  # not a process of this machine: the server is in a container, or behind a tunnel
    return words


def _queue_type(words: list[str]) -> str:
    for place, word in enumerate(words):
        if word in ("-q", "--queue-type"):
            return words[place + 1].lower()
        if word.startswith(("-q", "--queue-type=")):
            return word.removeprefix("--queue-type=").removeprefix("-q").lower()
    return "builtin"


def _keys(settings: Settings) -> Finding:
    reachable = [str(address) for address in settings.servers if not address.is_loopback]
    if settings.secret_keys:
        return Finding("keys", "secret_keys", "ok", f"{len(settings.secret_keys)} set: only signed messages run")
    if reachable:
        text = f"none, and {', '.join(reachable)} can be reached by others: whoever does can run any request; set some"
        return Finding("keys", "secret_keys", "problem", text)
    return Finding("keys", "secret_keys", "ok", "none, and the job server is on loopback")


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_dir.absolute()
    try:
        if folder.exists():
            make_private_folder(folder)  # raises what is wrong with it
            trouble = "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "can't be written to by this user"
        else:
            above = next(parent for parent in folder.parents if parent.exists())
            trouble = "" if os.access(above, os.W_OK | os.X_OK) else f"can't be made: {above} is not writable"
        outbox, dead = Outbox(settings).spool.count(), DeadLetters(settings).spool.count()
    except SpoolError as error:
        yield Finding("state", str(folder), "problem", str(error))
        return
    if trouble:
        yield Finding("state", str(folder), "problem", trouble)
        return
    yield Finding("state", str(folder), "ok", "usable" if folder.exists() else "will be made")
    if outbox:
        yield Finding("state", "outbox", "warning", f"{outbox} task(s) wait for a job server")
    if dead:
        yield Finding("state", "dead letters", "warning", f"{dead}; `gearwsgi dead list --app …` shows them")


def _supervisor(settings: Settings) -> Finding:
    """Whether a supervisor is alive: its status file is fresh, so its loop turns."""
    found = list(read_all(settings.state_dir))
    folder = str(settings.state_dir.absolute())
    for each in found:
        if each["fresh"] and not each["stopping"]:
            text = f"pid {each['pid']} of {each['app']}, {len(each['workers'])} worker(s)"
            return Finding("supervisor", folder, "ok", text)
    if not found:
        return Finding("supervisor", folder, "problem", "none runs with this state directory")
    states = ", ".join(f"pid {each['pid']} {'stops' if each['fresh'] else 'does not respond'}" for each in found)
    return Finding("supervisor", folder, "problem", states)

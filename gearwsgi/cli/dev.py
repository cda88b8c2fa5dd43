"""`gearwsgi dev`: job server, workers and web application in one terminal, reloaded on a change.

One loop over one queue of events: lines that the processes write, their ends, signals, changes of code. The processes
are children in sessions of their own: Ctrl-C is for this process alone, which then ends the others in order.

Written by hand: tools that run the processes of a Procfile, such as honcho, neither start the next web process before
the old one ends, nor end the workers before the job server.
"""

import contextlib
import os
import queue
import shlex
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..address import DEFAULT_PORT, Address
from ..app import overlay
from ..app.watch import watch_code
from ..errors import StartError
from ..state.spool import make_private_folder
from ..wire import launch
from .devchild import PREFIX, READY
from .devoutput import Process, Terminal

_START = 60.0
"""Seconds that the job server has to start."""
_DRAIN = 45.0
"""Seconds that all have to end; the workers give their jobs 30."""
_CHILD = [sys.executable, "-m", "gearwsgi.cli.devchild"]


class _Stop(Exception):
    """Raised to end, for this reason and with this exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class _Dev:
    """All processes of `gearwsgi dev`, and the loop that minds them.

    Args:
        app: `module:name`.
        listener: the web application's socket. It stays open while processes behind it come and go.
        workers: worker processes.
        servers: job servers to use; None: one of its own.
        jobs_port: the port of its own job server; None: the usual one, or any that is free.
        state_dir: the state directory.
        reload: whether a change of a Python file reloads.
    """

    def __init__(
        self,
        app: str,
        listener: socket.socket,
        *,
        workers: int,
        servers: str | None,
        jobs_port: int | None,
        state_dir: Path,
        reload: bool,
    ) -> None:
        self._app = app
        self._listener = listener
        self._workers = workers
        self._servers = servers
        self._jobs_port = jobs_port
        self._state_dir = state_dir
        self._reload = reload
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._terminal = Terminal(lambda: self._events.put(("signal", "nobody reads the output")))
        self._running: list[Process] = []
        self._web: Process | None = None
        self._next_web: Process | None = None
        self._env: dict[str, str] = {}
        self._stale = False

    def run(self) -> int:
        """Run until a signal comes, or something ends by itself; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda got, _: self._events.put(("signal", signal.Signals(got).name)))
        # The job server ends when this pipe is closed, which happens however this process ends.
        theirs, ours = os.pipe()
        try:
            self._start(theirs)
            while True:
                self._turn()
        except _Stop as stop:
            self._terminal.say("dev", str(stop))
            return stop.code
        finally:
            self._stop()
            os.close(theirs)
            os.close(ours)

    def _start(self, lifeline: int) -> None:
        if self._reload:
            watch_code(lambda: self._events.put(("changed", "")))
        make_private_folder(self._state_dir)
        servers = self._servers or self._start_job_server(lifeline)
        self._env = overlay.describe(self._app, servers, self._state_dir)
        command = ["worker", overlay.APP, "--workers", str(self._workers)]
        self._run("worker", [*_CHILD, str(os.getpid()), *command], env=self._env)
        self._web = self._run_web()
        host, port = self._listener.getsockname()[:2]
        url = f"http://{Address(host, port)}/"
        self._terminal.say("dev", f"{url}  job server {servers}  Ctrl-C ends all")
        self._terminal.say("dev", f"dashboard {url.removesuffix('/')}{PREFIX}/")
        where = (
            f"GEARMAN_SERVERS={shlex.quote(servers)} GEARWSGI_STATE_DIR={shlex.quote(str(self._state_dir.absolute()))}"
        )
        self._terminal.say("dev", f"in another terminal: {where} {_own_command()} status")

    def _start_job_server(self, lifeline: int) -> str:
        if self._jobs_port is None:
            if _is_free(DEFAULT_PORT) and (servers := self._try_job_server(DEFAULT_PORT, lifeline)):
                return servers
            self._jobs_port = 0  # likewise if another process has taken the port just before
        servers = self._try_job_server(self._jobs_port, lifeline)
        if not servers:
            raise _Stop("the job server did not start, see above; --state-dir names another folder for its queue", 1)
        return servers

    def _try_job_server(self, port: int, lifeline: int) -> str:
        """The address of the job server; empty where it has ended."""
        jobs = self._run("jobs", launch.command(f"127.0.0.1:{port}", self._state_dir, lifeline), pass_fds=[lifeline])
        end = time.monotonic() + _START
        while True:
            source, line = self._next(max(0.0, end - time.monotonic()))
            if source is jobs and line is None:
                return ""
            if source is jobs and line is not None and (address := launch.read_address(line)):
                jobs.ready = True
                return address

    def _run(self, name: str, command: list[str], **options: Any) -> Process:
        process = Process(name, command, self._events, **options)
        self._running.append(process)
        return process

    def _run_web(self) -> Process:
        fd = self._listener.fileno()
        return self._run("web", [*_CHILD, str(os.getpid()), "web", str(fd)], pass_fds=[fd], env=self._env)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        source, _ = self._next(None)
        if source == "changed":
            self._on_change()

    def _next(self, timeout: float | None) -> tuple[Any, str | None]:
        """The next event; lines are shown, and what ends the loop raises."""
        try:
            source, what = self._events.get(timeout=timeout)
        except queue.Empty:
            raise _Stop(f"the job server did not start within {_START:g} s", 1) from None
        if isinstance(source, Process):
            if what is None:
                self._on_end(source)
            elif what == READY:
                self._on_ready(source)
            else:
                self._terminal.say(source.name, what)
                if source.name == "worker" and "worker ready:" in what:
                    self._on_workers_ready(source)
        elif source == "signal":
            raise _Stop(f"{what}: stopping", 0)
        return source, what

    def _on_change(self) -> None:
        self._terminal.say("dev", "a Python file has changed: reloading")
        for process in self._running:
            if process.name == "worker" and process.ready:
                process.process.send_signal(signal.SIGHUP)
            elif process.name == "worker":
                self._stale = True  # it does not listen to signals yet: HUP would end it
        if self._next_web is not None:
            self._next_web.process.kill()  # the code that it loads is old already
        self._next_web = self._run_web()

    def _on_ready(self, process: Process) -> None:
        process.ready = True
        if process is self._next_web:
            old, self._web, self._next_web = self._web, process, None
            if old is not None:
                old.process.terminate()  # it finishes its requests; new ones wait in the socket that both share
            self._terminal.say("dev", "the web application is reloaded")

    def _on_workers_ready(self, worker: Process) -> None:
        if worker.ready:
            self._terminal.say("dev", "the workers are reloaded")
            return
        worker.ready = True
        if self._stale:
            worker.process.send_signal(signal.SIGHUP)

    def _on_end(self, process: Process) -> None:
        if process in self._running:
            self._running.remove(process)
        code = process.process.returncode
        if process is self._next_web:
            self._next_web = None
            self._terminal.say("dev", "reload failed, the old code goes on serving; save again when it is mended")
        elif process is self._web or process.name == "worker" or (process.name == "jobs" and process.ready):
            raise _Stop(f"{process.name} has ended by itself, exit code {code}", code if 0 < code < 128 else 1)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End all processes: first those that use the job server. At once on a second signal, or when time runs out."""
        first = [process for process in self._running if process.name != "jobs"]
        for process in first:
            process.process.terminate()
        end = time.monotonic() + _DRAIN
        asked_jobs = False
        while self._running:
            if not asked_jobs and not any(process in self._running for process in first):
                asked_jobs = True
                for process in self._running:
                    process.process.terminate()
            try:
                source, what = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                source = "signal"
            if source == "signal":
                for process in self._running:
                    process.process.kill()
                end = time.monotonic() + _DRAIN
            elif isinstance(source, Process):
                if what is None:
                    if source in self._running:
                        self._running.remove(source)
                elif what != READY:
                    self._terminal.say(source.name, what)


def _own_command() -> str:
    """The command for this very gearwsgi, as somebody can type it in another terminal."""
    ours = Path(sys.executable).with_name("gearwsgi")
    if "VIRTUAL_ENV" not in os.environ and shutil.which("gearwsgi") == str(ours):
        return "gearwsgi"
    return shlex.quote(str(ours)) if ours.exists() else f"{shlex.quote(sys.executable)} -m gearwsgi"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise StartError(f"can't listen on {host}:{port}: {error.strerror or error}; --port chooses another") from error


@click.command()
@click.argument("app", metavar="MODULE:NAME")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the web application listens.")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), envvar="PORT", default=8080, show_default=True, help="0: a free one."
)
@click.option("-w", "--workers", type=click.IntRange(1, 100), default=2, show_default=True, help="Worker processes.")
@click.option("--servers", help="Use these job servers.  [default: an embedded one of its own]")
@click.option("--jobs-port", type=click.IntRange(0, 65535), help="That one's port.  [default: 4730, or a free one]")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/gearwsgi-dev"),
    show_default=True,
    help="Outbox, dead letters and the embedded job server's queue.",
)
@click.option("--reload/--no-reload", default=True, help="Reload when a Python file below the current folder changes.")
def dev(app: str, *, host: str, port: int, **options: Any) -> int:
    """Run the WSGI application MODULE:NAME with workers and a job server in this terminal, for development.

    It uses neither the job servers nor the state directory that the application names. Ctrl-C stops everything, a
    second one at once.
    """
    with _listen(host, port) as listener:
        return _Dev(app, listener, **options).run()

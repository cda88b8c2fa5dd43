"""Turns what the processes of `gearwsgi dev` write into events for its loop, and into lines on its terminal."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

_COLOURS = {"dev": "bright_black", "jobs": "magenta", "web": "cyan", "worker": "green"}


class Process:
    """A child process. Each line that it writes is an event: `(self, line)`; at its end `(self, None)`.

    Args:
        name: the name in front of its lines.
        command: the words of its command line.
        events: where the events go.
        options: as for Popen; `env` is added to our environment.

    Attributes:
        ready: whether it has said that it serves; the loop sets it.
        process: the child.
    """

    def __init__(self, name: str, command: list[str], events: "queue.SimpleQueue[Any]", **options: Any) -> None:
        self.name = name
        self.ready = False
        # What they log is shown on this terminal, to people.
        options["env"] = {**os.environ, "PYTHONUNBUFFERED": "1", "GEARWSGI_LOG": "", **options.get("env", {})}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            **options,
        )
        self._events = events
        threading.Thread(target=self._read, daemon=True, name=f"gearwsgi dev {name}").start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((self, line.rstrip("\n")))
        self.process.wait()
        self._events.put((self, None))


class Terminal:
    """Standard output. Each line has the name of who wrote it in front; on a terminal, in colour.

    Args:
        on_gone: called once, when nobody reads the output any more.
    """

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self._on_gone = on_gone
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._mute = False

    def say(self, name: str, text: str) -> None:
        """Show a line."""
        prefix = f"{name:>6} |"
        if self._coloured:
            prefix = click.style(prefix, fg=_COLOURS[name])
        if self._mute:
            return
        try:
            print(prefix, text, flush=True)
        except OSError:
            # The reader is gone (gearwsgi dev … | head): go on, so that all processes are ended.
            self._mute = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._on_gone()

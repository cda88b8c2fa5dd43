"""What the handlers of `apps/limited.py` have written: was a key ever over its limit?"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from gearwsgi import GearmanMiddleware
from tests.support import APPS, Bench, Worker

APP = "limited:application"


class Event(NamedTuple):
    """A line that a handler wrote: a kernel's order, for each is appended at once."""

    what: str
    key: str
    pid: int
    number: int
    at: float


def set_up(site: Bench, limits: dict[str, Any]) -> GearmanMiddleware:
    """Put the application with these limits into the bench; a middleware to submit with."""
    shutil.copy(APPS / "limited.py", site.folder / "limited.py")
    change(site, limits)
    return site.app(limits=limits)


def change(site: Bench, limits: dict[str, Any]) -> None:
    """Other limits, for the next load."""
    (site.folder / "limits.json").write_text(json.dumps(limits))


def events(site: Bench) -> list[Event]:
    """All that was written by now."""
    lines = [line.split() for line in site.lines()]
    return [Event(what, key, int(pid), int(number), float(at)) for what, key, pid, number, at in lines]


def gone(site: Bench, pids: Iterable[int], at: float) -> None:
    """Write that these processes have been killed: what they ran has ended."""
    with site.record.open("a") as file:
        for pid in pids:
            file.write(f"gone - {pid} 0 {at}\n")


def most(found: Iterable[Event]) -> Counter[str]:
    """How many of each key have run at once, at most."""
    running: dict[int, str] = {}
    most: Counter[str] = Counter()
    for event in found:
        running.pop(event.pid, None)  # a process runs one at a time, and one that was killed none
        if event.what == "begin":
            running[event.pid] = event.key
            most[event.key] = max(most[event.key], Counter(running.values())[event.key])
    return most


def is_alive(pid: int) -> bool:
    """Whether a process runs still."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def started(found: Iterable[Event], key: str) -> list[float]:
    """When those of a key have begun."""
    return [event.at for event in found if event.what == "begin" and event.key == key]


def worker(site: Bench, *arguments: str) -> Worker:
    """A supervisor of that application."""
    return site.worker(*arguments, app=APP)

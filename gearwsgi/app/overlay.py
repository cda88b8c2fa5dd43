"""An application with other job servers and another state directory than its own code says.

A keyword in the code wins over the environment, as it must in production. But `gearwsgi dev`, and a test with a real
worker, must not reach what the code names. They run `gearwsgi.app.overlay:application`: the application that the
variable GEARWSGI_OVERLAY names (in JSON: `app`, `servers`, `state_dir`), with those two in place of its own.
"""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..address import parse_servers
from ..errors import AppLoadError
from ..settings import Settings
from ..submit.client import Client
from ..submit.middleware import GearmanMiddleware
from .loading import load_application

APP = "gearwsgi.app.overlay:application"
VARIABLE = "GEARWSGI_OVERLAY"


def describe(app: str, servers: str, state_dir: Path, *, ticks: bool = True) -> dict[str, str]:
    """The environment in which `APP` is the application `app`; without `ticks`, its schedule does not run."""
    values = {"app": app, "servers": servers, "state_dir": str(state_dir.absolute()), "ticks": ticks}
    return {VARIABLE: json.dumps(values)}


def name() -> str:
    """The application's own `module:name`."""
    return str(json.loads(os.environ[VARIABLE])["app"])


def lay_over(settings: Settings, servers: str, state_dir: Path, *, ticks: bool = True) -> Settings:
    """The settings with other job servers and another state directory; without `ticks`, with no schedule."""
    addresses, embedded = parse_servers(servers)
    schedule = settings.schedule if ticks else {}
    return replace(settings, servers=addresses, embedded=embedded, state_dir=state_dir, schedule=schedule)


def __getattr__(name: str) -> Any:
    if name != "application":
        raise AttributeError(name)
    try:
        values = json.loads(os.environ[VARIABLE])
    except (KeyError, ValueError) as error:
        raise AppLoadError(f"{VARIABLE} does not say which application") from error
    application, middleware = load_application(values["app"])
    settings = lay_over(middleware.settings, values["servers"], Path(values["state_dir"]), ticks=values["ticks"])
    middleware.settings = settings
    middleware.use(Client(settings))
    globals()[name] = application  # so that it is made only once
    return application


_lock = threading.Lock()
_stacks: dict[int, list[Client]] = {}
"""The clients that each middleware has been given by `swap`: its own first, the one in use last."""


@contextmanager
def swap(middleware: GearmanMiddleware, client: Client) -> Iterator[None]:
    """Have `middleware` queue with another client for the block. Blocks may be nested, also those of other threads."""
    with _lock:
        stack = _stacks.setdefault(id(middleware), [middleware.client])
        stack.append(client)
        middleware.use(client)
    try:
        yield
    finally:
        with _lock:
            stack.remove(client)
            middleware.use(stack[-1])
            if len(stack) == 1:
                del _stacks[id(middleware)]

"""From `module:name` to the application and the middleware in it."""

import importlib
import sys
from collections import deque
from pathlib import Path
from typing import Any

from .errors import AppLoadError
from .middleware import GearmanMiddleware

_MAX_OBJECTS = 5000


def load_application(path: str) -> tuple[Any, GearmanMiddleware]:
    """Import `module:name` with the current folder importable; the WSGI application and its GearmanMiddleware.

    Raises:
        AppLoadError: there is none; the cause, where the import raised, has its traceback.
    """
    module_name, _, name = path.partition(":")
    name = name or "application"
    if not module_name or not all(part.isidentifier() for part in (module_name + "." + name).split(".")):
        raise AppLoadError(f"application {path!r} can't be read: give 'module:name', such as 'mysite.wsgi:application'")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # a module may raise SystemExit while it is imported
        raise AppLoadError(f"application {path!r}: importing {module_name} failed: {type(error).__name__}: {error}") \
            from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppLoadError(f"application {path!r}: module {module_name} has no {name!r}") from None
    if not callable(found):
        raise AppLoadError(f"application {path!r} is {type(found).__name__}, not a WSGI application")
    return found, find_middleware(found, path)


def find_middleware(app: Any, path: str = "") -> GearmanMiddleware:
    """The GearmanMiddleware that `app` is, holds (as Flask's `app.wsgi_app`), or is wrapped around by other middleware.

    Raises:
        AppLoadError: there is none.
    """
    queue: deque[Any] = deque([app])
    seen: set[int] = set()
    while queue and len(seen) < _MAX_OBJECTS:
        current = queue.popleft()
        if isinstance(current, GearmanMiddleware):
            return current
        if id(current) in seen:
            continue
        seen.add(id(current))
        queue.extend(value for value in _parts(current) if callable(value) and not isinstance(value, type))
    raise AppLoadError(
        f"application {path or app!r} has no GearmanMiddleware around it: "
        "`application = GearmanMiddleware(application)`, in Flask `app.wsgi_app = GearmanMiddleware(app.wsgi_app)`"
    )


def _parts(thing: Any) -> list[Any]:
    """What an object holds: its attributes, and a function's or a method's closure."""
    found = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    found += [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    owner = getattr(thing, "__self__", None)
    if owner is not None:
        found.append(owner)
    wrapped = getattr(thing, "__wrapped__", None)
    if wrapped is not None:
        found.append(wrapped)
    for cell in getattr(thing, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    return found

"""Imports an application by `module:name`, and finds the middleware in it."""

import importlib
import sys
from pathlib import Path
from typing import Any

from ..errors import AppLoadError
from ..submit.middleware import GearmanMiddleware, find_middleware


def load_application(path: str) -> tuple[Any, GearmanMiddleware]:
    """Import `module:name`, from the current folder too; returns the WSGI application and its GearmanMiddleware.

    Raises:
        AppLoadError: there is none. Where the import has raised, the cause has the traceback.
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
    except BaseException as error:  # a module may even raise SystemExit while it is imported
        reason = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise AppLoadError(f"application {path!r}: {reason}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise AppLoadError(f"application {path!r}: module {module_name} has no {name!r}") from None
    if not callable(found):
        raise AppLoadError(f"application {path!r} is {type(found).__name__}, not a WSGI application")
    middleware = find_middleware(found) or find_middleware(found, globals_too=True)
    if middleware is None:
        raise AppLoadError(
            f"application {path!r} has no GearmanMiddleware around it: "
            "`application = GearmanMiddleware(application)`, in Flask `app.wsgi_app = GearmanMiddleware(app.wsgi_app)`"
        )
    return found, middleware

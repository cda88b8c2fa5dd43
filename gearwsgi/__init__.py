"""Background work for any WSGI application: requests queued on Gearman, replayed through the same app."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import GearwsgiError, UnknownService
    from .middleware import GearmanMiddleware
    from .replay import Job, Retry
    from .tasks import Task

__all__ = ["GearmanMiddleware", "GearwsgiError", "Job", "Retry", "Task", "UnknownService", "__version__"]

_HOMES = {
    "GearmanMiddleware": "middleware",
    "GearwsgiError": "errors",
    "Job": "replay",
    "Retry": "replay",
    "Task": "tasks",
    "UnknownService": "errors",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the supervisor and the job server need none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

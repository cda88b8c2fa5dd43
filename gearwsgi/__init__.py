"""Background work for any WSGI application: requests queued on Gearman, replayed through the same app."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .app.hooks import on_worker_exit, on_worker_start
    from .app.job import Continue, Job, Retry
    from .errors import GearwsgiError, ResultNotKept, ResultPending, TaskDead, UnknownService, UnknownTask
    from .state.records.model import Record
    from .submit.middleware import GearmanMiddleware
    from .submit.task import Status, Task
    from .submit.tasks import Gearman

__all__ = [
    "Continue",
    "Gearman",
    "GearmanMiddleware",
    "GearwsgiError",
    "Job",
    "Record",
    "ResultNotKept",
    "ResultPending",
    "Retry",
    "Status",
    "Task",
    "TaskDead",
    "UnknownService",
    "UnknownTask",
    "__version__",
    "on_worker_exit",
    "on_worker_start",
]

_HOMES = {
    "Continue": "app.job",
    "Gearman": "submit.tasks",
    "GearmanMiddleware": "submit.middleware",
    "GearwsgiError": "errors",
    "Job": "app.job",
    "Record": "state.records.model",
    "ResultNotKept": "errors",
    "ResultPending": "errors",
    "Retry": "app.job",
    "Status": "submit.task",
    "Task": "submit.task",
    "TaskDead": "errors",
    "UnknownService": "errors",
    "UnknownTask": "errors",
    "on_worker_exit": "app.hooks",
    "on_worker_start": "app.hooks",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: the supervisor and the job server need none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

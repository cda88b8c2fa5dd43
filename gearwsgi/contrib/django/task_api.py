"""Django's Tasks, from wherever they are: from Django itself since 6.0, before from the package django-tasks."""

import importlib
from datetime import datetime
from traceback import format_exception
from typing import Any

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.module_loading import import_string

from ...errors import GearwsgiError

PATH = "/-/django-tasks"
"""The path of a task's message: one that no site has."""
OPTIONS = ("max_attempts", "backoff", "backoff_min", "backoff_max", "timeout", "keep_result", "queues")
"""The keys that `OPTIONS` may have."""

ROOT = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"{ROOT}.{name}" if name else ROOT)
    except ModuleNotFoundError as error:
        if error.name != ROOT:
            raise
        raise ImproperlyConfigured(
            f"Django {django.get_version()} has no Tasks of its own: `pip install django-tasks`"
        ) from error


tasks: Any = _module("")
base: Any = _module("base")
signals: Any = _module("signals")
DEFAULT_QUEUE: str = tasks.DEFAULT_TASK_QUEUE_NAME
BaseTaskBackend: Any = _module("backends.base").BaseTaskBackend
_errors: Any = _module("exceptions")
InvalidTask: Any = getattr(_errors, "InvalidTask", None) or _errors.InvalidTaskError
TaskResultDoesNotExist: Any = _errors.TaskResultDoesNotExist
normalize_json: Any = (
    importlib.import_module("django.utils.json") if ROOT == "django.tasks" else _module("utils")
).normalize_json


class AttemptFailed(GearwsgiError):
    """A task, or an attempt of it, has failed without an exception of its own: say, its process died."""


class NoTask(GearwsgiError, LookupError):
    """A name leads to something that is not a task."""


def moment(value: datetime | str | None) -> datetime | None:
    """A time as Django wants it: naive if the site does not use time zones."""
    if value is None:
        return None
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if settings.USE_TZ or timezone.is_naive(found):
        return found
    naive: datetime = timezone.make_naive(found)
    return naive


def find_task(path: Any) -> Any:
    """The task with this dotted name; anything else of that name is refused.

    Raises:
        ImportError: this release of the site has nothing of that name.
        NoTask: it is not a task.
    """
    if not isinstance(path, str):
        raise NoTask(f"{path!r} is no name of a task")
    found = import_string(path)
    if not isinstance(found, base.Task):
        raise NoTask(f"{path!r} is {type(found).__name__}, no task")
    return found


def to_error(error: BaseException) -> Any:
    """An exception as Django's Tasks keep it."""
    kind = type(error)
    return base.TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback="".join(format_exception(error))
    )

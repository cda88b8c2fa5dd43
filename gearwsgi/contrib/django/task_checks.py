"""Django's system checks for the backend of Tasks: they find, before a task is queued, that nobody would run it."""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import Error, Warning
from django.utils.module_loading import import_string

from ...address import Address
from ...submit.middleware import GearmanMiddleware, find_middleware
from ...submit.walk import walk
from .task_api import OPTIONS
from .task_runs import TaskHandler

_WSGI = "In wsgi.py: `from gearwsgi.contrib.django import get_wsgi_application`."


def check_backend(backend: Any) -> Iterator[Any]:
    """Yield what is missing for this backend."""
    yield from _check_options(backend)
    if not apps.is_installed("gearwsgi.contrib.django"):
        yield Warning(
            "gearwsgi.contrib.django is not in INSTALLED_APPS: `manage.py gearman_worker` is not known",
            hint="Add it to INSTALLED_APPS.", id="gearwsgi.W001",
        )  # fmt: skip
    if "gearwsgi.contrib.django.JobMiddleware" not in settings.MIDDLEWARE:
        yield Warning(
            "gearwsgi.contrib.django.JobMiddleware is not in MIDDLEWARE: a task that is queued in a view has neither "
            "the host nor the headers of its request",
            hint="Make it the first.", id="gearwsgi.W002",
        )  # fmt: skip
    path = getattr(settings, "WSGI_APPLICATION", None)
    if not path:
        yield Error("WSGI_APPLICATION is not set: tasks are run by that application", hint=_WSGI, id="gearwsgi.E001")
        return
    try:
        application = import_string(path)
    except Exception as error:
        text = f"WSGI_APPLICATION can't be loaded: {type(error).__name__}: {error}"
        yield Error(text, hint=_WSGI, id="gearwsgi.E002")
        return
    middleware = find_middleware(application)
    if middleware is None:
        yield Error(f"{path} has no GearmanMiddleware around it", hint=_WSGI, id="gearwsgi.E003")
        return
    yield from _check_application(backend, application, middleware)


def _check_application(backend: Any, application: Any, middleware: GearmanMiddleware) -> Iterator[Any]:
    if not any(isinstance(part, TaskHandler) for part in walk(application)):
        yield Error("WSGI_APPLICATION does not know the tasks' address", hint=_WSGI, id="gearwsgi.E004")
    known = middleware.settings
    if not known.records:
        yield Warning(
            "records are off: results can't be retrieved", hint="GEARWSGI = {'records': 'sqlite'}", id="gearwsgi.W003"
        )
    served = known.queues or (known.queue,)
    missing = [queue for queue in backend.served() if queue not in served]
    if missing:
        yield Warning(
            f"a worker serves {', '.join(served)} where `--queues` does not say, and not {', '.join(missing)}",
            hint="Leave 'queues' out of GEARWSGI, or name them there.", id="gearwsgi.W004",
        )  # fmt: skip
    elif not backend.queues:
        yield Warning(
            "QUEUES is empty, so any queue may be named: where `--queues` does not say, a worker serves "
            f"{', '.join(served)}, and no others",
            hint="Name the queues in QUEUES.", id="gearwsgi.W005",
        )  # fmt: skip
    plain = [queue for queue in backend.served() if queue in known.plain_queues]
    if plain:
        yield Error(
            f"{', '.join(plain)} in plain_queues: no task can go there", hint="Use another queue.", id="gearwsgi.E005"
        )
    if not known.secret_keys and not all(map(_is_near, known.servers)):
        yield Warning(
            "there are no secret_keys, and a job server is not on this machine: whoever reaches it can run any task",
            hint="GEARWSGI_SECRET_KEYS, the same for web processes and workers.", id="gearwsgi.W006",
        )  # fmt: skip


def _is_near(address: Address) -> bool:
    return address.host in ("localhost", "::1") or address.host.startswith("127.")


def _check_options(backend: Any) -> Iterator[Any]:
    for name in sorted(set(backend.options) - set(OPTIONS)):
        yield Error(
            f"OPTIONS of the backend {backend.alias!r} have an unknown key {name!r}",
            hint=f"Known are {', '.join(OPTIONS)}.", id="gearwsgi.E006",
        )  # fmt: skip
    for name, value in backend.options.items():
        if not _fits(name, value):
            yield Error(f"OPTIONS[{name!r}] of the backend {backend.alias!r} can't be {value!r}", id="gearwsgi.E007")


def _fits(name: str, value: Any) -> bool:
    if value is None or name not in ("max_attempts", "backoff", "backoff_min", "backoff_max", "timeout", "keep_result"):
        return True
    if name == "backoff":
        return isinstance(value, list | tuple) and len(value) == 2 and all(_fits("timeout", part) for part in value)
    if isinstance(value, bool) or not isinstance(value, int if name == "max_attempts" else int | float):
        return False
    return bool(0 <= value < 10**9) if name == "keep_result" else bool(0 < value < 10**9)

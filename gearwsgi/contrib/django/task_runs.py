"""The worker's side of Django's Tasks: the view that runs a task, and the handler that finds it.

The view is in no URLconf. The handler resolves its path itself, only for replays, whichever URLconf a middleware may
have chosen. All else about the request is as in the site: middleware, connections, signals.
"""

import json
import logging
import os
import socket
import sys
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import got_request_exception
from django.db import connections
from django.http import Http404, HttpResponse, JsonResponse
from django.urls import ResolverMatch, set_urlconf
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from ...app.job import Continue
from ...app.replay import KEPT_BODY
from ...environ import JOB_KEY
from ...errors import GearwsgiError
from .task_api import PATH, NoTask, base, find_task, moment, normalize_json, signals, tasks, to_error

_log = logging.getLogger("gearwsgi")

MAX_VALUE = KEPT_BODY - 4096
"""Bytes that a task's return value may have in JSON, where it is kept."""


class TaskHandler(WSGIHandler):  # type: ignore[misc]
    """Django's WSGI handler, which also knows the view that runs tasks."""

    def resolve_request(self, request: Any) -> Any:
        """The view that runs tasks, for a replay to its path; for anything else what the URLconf says."""
        if request.path_info != PATH:
            return super().resolve_request(request)
        if JOB_KEY not in request.META:
            raise Http404
        if hasattr(request, "urlconf"):
            set_urlconf(request.urlconf)  # a middleware may have chosen it, for `reverse()` in the task
        request.resolver_match = match = ResolverMatch(run_task, (), {}, url_name=None, route=PATH.lstrip("/"))
        return match


@csrf_exempt  # type: ignore[untyped-decorator, unused-ignore]
def run_task(request: Any) -> Any:
    """Run the task that a replayed message names.

    What it raises is raised here, so that the site's own error handling sees it, and it is tried again as any job is.
    What another attempt would not change (a name that is no task's, a return value that can't be kept) is final.
    """
    job = request.META[JOB_KEY]
    call = job.data
    try:
        task = find_task(call["task"])
        backend = tasks.task_backends[call["backend"]]
        result = _result(backend, _as_queued(task, call), call, job)
    except (NoTask, KeyError, TypeError):
        return _final(request)
    signals.task_started.send(sender=type(backend), task_result=result)
    context = (base.TaskContext(task_result=result),) if task.takes_context else ()
    try:
        returned = task.call(*context, *result.args, **result.kwargs)
    except BaseException as error:
        if job.attempt >= job.max_attempts and not isinstance(error, (Continue, KeyboardInterrupt)):
            _fail(backend, result, error)
        raise
    try:
        value, content = _write(returned, call, keeps=backend.keep_result > 0)
    except (TypeError, ValueError, RecursionError) as error:
        _fail(backend, result, error)
        return _final(request)
    _set(result, status=base.TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)
    signals.task_finished.send(sender=type(backend), task_result=result)
    return HttpResponse(content, content_type="application/json")


run_task.login_required = False  # for Django's LoginRequiredMiddleware: who is trusted here is the queue


def _as_queued(task: Any, call: dict[str, Any]) -> Any:
    """The task with the priority, queue and time that it was queued with."""
    run_after = call.get("run_after")
    return task.using(
        priority=call["priority"],
        queue_name=call["queue_name"],
        run_after=moment(run_after),
        backend=call["backend"],
    )


def _result(backend: Any, task: Any, call: dict[str, Any], job: Any) -> Any:
    """The result object of a task that begins to run."""
    earlier: Any = None
    if job.attempt > 1:
        try:
            earlier = backend.get_result(job.id)
        except (GearwsgiError, LookupError, ValueError) as error:
            _log.warning("id %s: the records don't tell of its earlier attempts: %s", job.id, error)
    workers = list(earlier.worker_ids)[: job.attempt - 1] if earlier is not None else []
    workers += ["unknown"] * (job.attempt - 1 - len(workers))
    now = timezone.now()
    return base.TaskResult(
        task=task, id=job.id, status=base.TaskResultStatus.RUNNING,
        enqueued_at=moment(call["enqueued_at"]),
        started_at=earlier.started_at or now if earlier is not None else now, last_attempted_at=now, finished_at=None,
        args=call["args"], kwargs=call["kwargs"], backend=call["backend"],
        errors=list(earlier.errors) if earlier is not None else [],
        worker_ids=[*workers, f"{socket.gethostname()}:{os.getpid()}"],
    )  # fmt: skip


def _write(returned: Any, call: dict[str, Any], *, keeps: bool) -> tuple[Any, str]:
    """The return value as the task's result will have it, and the text of the response.

    Raises:
        TypeError, ValueError, RecursionError: the value can't be kept.
    """
    text = json.dumps({"return_value": normalize_json(returned), "call": call}, allow_nan=False)
    if keeps and len(text) > MAX_VALUE:
        raise ValueError(
            f"the task's return value can't be kept: as JSON, with its arguments, it has {len(text)} bytes, more than "
            f"{MAX_VALUE}; write it where the site finds it, and return where that is"
        )
    return json.loads(text)["return_value"], text


def _set(result: Any, **values: Any) -> None:
    """Change a result, which is frozen to others."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def _fail(backend: Any, result: Any, error: BaseException) -> None:
    """Note that it has failed for good. In the block that handles the exception, so that receivers can log that."""
    result.errors.append(to_error(error))
    _set(result, status=base.TaskResultStatus.FAILED, finished_at=timezone.now())
    signals.task_finished.send(sender=type(backend), task_result=result)


def _final(request: Any) -> Any:
    """The response, for the exception that is being handled, where another attempt would end in the same way."""
    error = sys.exc_info()[1]
    got_request_exception.send(sender=TaskHandler, request=request)
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and connection.settings_dict["ATOMIC_REQUESTS"]:
            connection.set_rollback(True)  # as Django does when a view raises
    return JsonResponse({"error": str(error)}, status=500, headers={"X-Gearman-Retry": "never"})

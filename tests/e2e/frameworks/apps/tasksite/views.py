import json
import os
import signal
from datetime import datetime

from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from gearwsgi.contrib.django import gearman
from gearwsgi.contrib.django.task_api import TaskResultDoesNotExist, tasks
from tasksite import jobs
from tasksite.shop import note


def shown(result):
    return {
        "id": result.id,
        "status": str(result.status),
        "queue": result.task.queue_name,
        "priority": result.task.priority,
        "args": result.args,
        "kwargs": result.kwargs,
        "attempts": result.attempts,
        "worker_ids": result.worker_ids,
        "errors": [
            [error.exception_class_path, error.exception_class.__name__, error.traceback] for error in result.errors
        ],
        "times": [
            bool(each) for each in (result.enqueued_at, result.started_at, result.last_attempted_at, result.finished_at)
        ],
        "value": result._return_value,
        "enqueued_at": result.enqueued_at.isoformat(),
    }


def enqueue(request):
    task = getattr(jobs, request.GET["task"])
    using = json.loads(request.GET.get("using", "{}"))
    if "run_after" in using:
        using["run_after"] = datetime.fromisoformat(using["run_after"])
    values = json.loads(request.GET.get("args", "[]"))
    return JsonResponse(shown(task.using(**using).enqueue(*values, **json.loads(request.GET.get("kwargs", "{}")))))


def result(request):
    try:
        return JsonResponse(shown(tasks.default_task_backend.get_result(request.GET["id"])))
    except TaskResultDoesNotExist:
        return HttpResponse("no such result", status=404)


@transaction.non_atomic_requests
def order(request):
    """Queue in a transaction of its own, which may come to nothing; many at once, with how=batch, which may fail."""
    how = request.GET["how"]
    ids = []
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO shop VALUES (1)")
            with gearman().batch():
                for _ in range(3 if "batch" in how else 1):
                    ids.append(
                        (jobs.surroundings if how in ("rollback", "commit", "batch") else jobs.at_once).enqueue().id
                    )
                note(kind="in transaction", ids=ids)
                if how == "failed batch":
                    raise LookupError
            if how in ("rollback", "at once"):
                raise LookupError
    except LookupError:
        pass
    return JsonResponse(ids, safe=False)


@transaction.non_atomic_requests
def crash(request):
    """The process is killed when the transaction has been committed and its task is not yet queued."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO shop VALUES (1)")
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        note(kind="crash", id=jobs.add.enqueue(1).id)


@csrf_exempt
def catch_all(request):
    return HttpResponse("a page")

import os
import signal
import time

import django
from django.db import connection
from django.urls import reverse

from tasksite.shop import note, tenant

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def add(a, b=0):
    return a + b


@task(takes_context=True, priority=7, queue_name="mails")
def second_time(context, value):
    if context.attempt == 1:
        raise ValueError("the first attempt fails")
    return {"attempt": context.attempt, "workers": len(context.task_result.worker_ids), "value": value}


@task
async def echo(value):
    return value


@task
def boom():
    raise LookupError("boom on purpose")


@task
def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@task
def returns(size):
    return object() if size is None else "x" * size


@task
def surroundings():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM shop")
        (count,) = cursor.fetchone()
    note(kind="surroundings", tenant=tenant.get(), url=reverse("all"), atomic=connection.in_atomic_block, rows=count)
    return count


@task
def wait(path):
    note(kind="wait")
    while not os.path.exists(path):
        time.sleep(0.01)
    return "waited"


@task(backend="now")
def at_once():
    return "at once"


def no_task():
    note(kind="no task was run")

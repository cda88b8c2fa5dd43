"""The project's middleware, and receivers of signals; each writes down what it saw."""

import contextvars
import json
import os

from django.core.signals import request_started

from gearwsgi.contrib.django.task_api import signals

tenant = contextvars.ContextVar("tenant", default=None)


def note(**what):
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (json.dumps(what) + "\n").encode())
    os.close(fd)


def tenants(get_response):
    def middleware(request):
        request.urlconf = "tasksite.urls"
        tenant.set(request.get_host().partition(".")[0])
        return get_response(request)

    return middleware


def _started(sender, environ, **kwargs):
    if "gearwsgi.job" in environ:
        note(signal="request_started", id=environ["gearwsgi.job"].id)


def _task(name):
    def receive(sender, task_result, **kwargs):
        status = str(task_result.status)
        note(signal=name, id=task_result.id, status=status, attempts=task_result.attempts, sender=sender.__name__)

    return receive


_receivers = [_task(name) for name in ("task_enqueued", "task_started", "task_finished")]
request_started.connect(_started)
signals.task_enqueued.connect(_receivers[0])
signals.task_started.connect(_receivers[1])
signals.task_finished.connect(_receivers[2])

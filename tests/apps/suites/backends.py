"""Our backend in the places of Django's own, which answers what the tests want to see of those.

`ImmediateBackend` runs a task before `enqueue()` returns: `Finished` waits until the worker has run it. `DummyBackend`
keeps what was queued: `Waiting` queues it where no worker is, and looks it up.
"""

import json
import logging
import os
import time

from gearwsgi.contrib.django.task_api import ROOT
from gearwsgi.contrib.django.tasks import GearmanBackend

FINISHED, WAITING = "finished", "waiting"
"""The queue that the worker serves, and one that nobody does."""
PATIENCE = 60.0
"""Seconds that a task may take."""
LOG = os.environ["SUITES_LOG"]
"""Where the worker writes what it logs of tasks, a JSON object a line."""


class _One(dict):
    """Every queue of Django's is one of Gearman's."""

    def __init__(self, queue):
        self._queue = queue

    def get(self, name, default=None):
        return self._queue


class _InPlace(GearmanBackend):
    """In the place of a backend of Django's, none of which waits for a commit."""

    def __init__(self, alias, params):
        super().__init__(alias, {"ENQUEUE_ON_COMMIT": False, **params})


class Finished(_InPlace):
    """In the place of ImmediateBackend."""

    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.gearman_queues = _One(FINISHED)

    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        end = time.monotonic() + PATIENCE
        while not result.is_finished:
            result.refresh()
            if time.monotonic() > end:
                raise AssertionError(f"{task.module_path} has not ended: it is {result.status}")
            time.sleep(0.01)
        _bring_log(result.id)
        return result


class Waiting(_InPlace):
    """In the place of DummyBackend."""

    def __init__(self, alias, params):
        super().__init__(alias, params)
        self.gearman_queues = _One(WAITING)
        self._ids = []

    def enqueue(self, task, args, kwargs):
        result = super().enqueue(task, args, kwargs)
        self._ids.append(result.id)
        return result

    @property
    def results(self):
        """What was queued, as anybody sees it."""
        return [self.get_result(each) for each in self._ids]

    def clear(self):
        self._ids.clear()


class KeepLog(logging.Handler):
    """The worker's handler, which writes what `_bring_log` reads."""

    def emit(self, record):
        kept = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        line = json.dumps({**kept, "msg": self.format(record)}) + "\n"
        fd = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)


def keep_log():
    """Have this process write down what it logs of tasks."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(KeepLog())


def _bring_log(result_id):
    """Log here, too, what the worker has logged of a task."""
    with open(LOG) as lines:
        for line in lines:
            kept = json.loads(line)
            if result_id in kept["msg"]:
                logger = logging.getLogger(kept["name"])
                if logger.isEnabledFor(kept["levelno"]):
                    logger.handle(logging.makeLogRecord(kept))

"""A backend for Django's own Tasks: each task is replayed as a request to the site, and so has all that requests have.

# settings.py
TASKS = {"default": {"BACKEND": "gearwsgi.contrib.django.tasks.GearmanBackend"}}

`wsgi.py` is as `gearwsgi.contrib.django` has it, and `gearwsgi worker mysite.wsgi:application` runs the tasks.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from ...errors import UnknownTask
from ...message import reading
from ...message.response import read_response
from ...state.records import model
from ...submit.lookup import Lookup
from ...wire.payload import is_task_id
from . import gearman, task_api
from .task_api import (
    PATH,
    AttemptFailed,
    BaseTaskBackend,
    InvalidTask,
    TaskResultDoesNotExist,
    base,
    find_task,
    moment,
    signals,
)

_FAILED = f"{AttemptFailed.__module__}.{AttemptFailed.__qualname__}"
_STATUSES = {
    model.RUNNING: "RUNNING", model.DONE: "SUCCESSFUL", model.DEAD: "FAILED", model.CANCELLED: "FAILED",
    model.DISCARDED: "FAILED",
}  # fmt: skip


class GearmanBackend(BaseTaskBackend):  # type: ignore[misc]
    """Django's Tasks on Gearman.

    `OPTIONS` may have, each as `task()` has it: `max_attempts`; `backoff`, a pair of seconds, or `backoff_min` and
    `backoff_max`; `timeout`; `keep_result`, seconds that a return value is kept (else as long as its record); and
    `queues`: further names beside `QUEUES`, or a dict of names and of the Gearman queues that they stand for.
    `ENQUEUE_ON_COMMIT`, beside `OPTIONS`: whether a task that is queued in a transaction waits for its commit (True).
    """

    queues: set[str]

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.enqueue_on_commit = bool(params.get("ENQUEUE_ON_COMMIT", True))
        named = self.options.get("queues") or ()
        self.gearman_queues: Mapping[str, str] = named if isinstance(named, Mapping) else {}
        if self.queues:  # none: any name is a queue
            self.queues = self.queues | set(named)

    @property
    def keep_result(self) -> float:
        """Seconds that a return value is kept."""
        kept = self.options.get("keep_result")
        return float(_client().settings.records_max_age if kept is None else kept)

    def served(self) -> list[str]:
        """The Gearman queues that a worker serves for this backend, where it is not told others."""
        named = self.queues or {task_api.DEFAULT_QUEUE, *(self.options.get("queues") or ())}
        return sorted({self.gearman_queues.get(name, name) for name in named})

    def enqueue(self, task: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
        """Queue a task, and write its record: its result is known at once.

        Raises:
            InvalidTask: Django's, where the task can't be run by a worker.
            TypeError: an argument is none of JSON's types.
            ServerUnavailable, ServerError, SpoolError: as `task()`.
        """
        self.validate_task(task)
        path = task.module_path
        try:
            found = find_task(path)
        except (ImportError, task_api.NoTask) as error:
            raise InvalidTask(f"A worker can't find the task by its name: {error}") from error
        if found.func is not task.func:
            raise InvalidTask(f"A worker finds another task by the name {path!r}.")
        now = timezone.now()
        run_after = task.run_after
        if run_after is not None and timezone.is_naive(run_after):
            run_after = timezone.make_aware(run_after)
        call = {
            "task": path, "args": list(args), "kwargs": dict(kwargs), "backend": self.alias,
            "priority": int(task.priority), "queue_name": task.queue_name,
            "run_after": run_after.isoformat() if run_after is not None else None, "enqueued_at": now.isoformat(),
        }  # fmt: skip
        # As the worker will read it: tuples become lists, and keys of dicts text.
        text = json.dumps(task_api.normalize_json(call), allow_nan=False, separators=(",", ":"))
        call = json.loads(text)
        submits: list[Any] = []
        queued = gearman().task(
            path, None, self.gearman_queues.get(task.queue_name, task.queue_name), target=f"POST {PATH}",
            body=text.encode(), content_type="application/json", priority=_priority(task.priority), at=run_after,
            recorded=True, after=submits.append, **self._limits(),
        )  # fmt: skip
        result = base.TaskResult(
            task=task, id=queued.id, status=base.TaskResultStatus.READY, enqueued_at=now, started_at=None,
            last_attempted_at=None, finished_at=None, args=call["args"], kwargs=call["kwargs"], backend=self.alias,
            errors=[], worker_ids=[],
        )  # fmt: skip

        # In a batch this happens at its end, and never if the block raises.
        queued.on_queued = functools.partial(signals.task_enqueued.send, type(self), task_result=result)
        if self.enqueue_on_commit and transaction.get_connection().in_atomic_block:
            transaction.on_commit(submits[0])
        else:
            submits[0]()
        return result

    def _limits(self) -> dict[str, Any]:
        """The arguments of `task()` that `OPTIONS` sets."""
        options = self.options
        limits = {name: options[name] for name in ("max_attempts", "timeout") if options.get(name) is not None}
        if options.get("backoff") is not None:
            limits["backoff_min"], limits["backoff_max"] = options["backoff"]
        limits |= {name: options[name] for name in ("backoff_min", "backoff_max") if options.get(name) is not None}
        return {**limits, "keep_result": self.keep_result}

    def get_result(self, result_id: str) -> Any:
        """The result of a task, as records and job servers know it.

        Raises:
            TaskResultDoesNotExist: Django's, where nobody knows the task or what became of it, or its return value is
                no longer kept.
            RecordsUnavailable: the records are off, or can't be asked.
            ServerUnavailable: the records don't know it, and no job server answers.
        """
        if not (isinstance(result_id, str) and is_task_id(result_id)):
            raise TaskResultDoesNotExist(result_id)
        try:
            record = gearman().record(result_id)
        except UnknownTask as error:
            raise TaskResultDoesNotExist(result_id) from error
        client = _client()
        if Lookup(client, result_id).is_lost(record):
            raise TaskResultDoesNotExist(result_id)
        with client.open_records() as records:
            payload = records.message(result_id) if records is not None else None
            kept = records.result(result_id) if records is not None and record.state == model.DONE else None
        answer = json.loads(read_response(kept)[2]) if kept is not None else None
        call = _call_of(payload) or (answer or {}).get("call")
        if call is None or (record.state == model.DONE and answer is None):
            raise TaskResultDoesNotExist(result_id)
        return self._result(record, call, answer)

    def _result(self, record: model.Record, call: dict[str, Any], answer: dict[str, Any] | None) -> Any:
        run_after = call["run_after"]
        task = find_task(call["task"]).using(
            priority=call["priority"], queue_name=call["queue_name"], backend=call["backend"],
            run_after=moment(run_after),
        )  # fmt: skip
        history = record.history
        workers = [f"{attempt.host}:{attempt.pid}" for attempt in history]
        if record.state == model.RUNNING and len(workers) < max(1, record.attempts):
            workers.append(f"{record.host or 'unknown'}:{record.pid or 0}")
        last = history[-1].started if history else record.started
        has_ended = record.state in model.ENDED
        status = _STATUSES.get(record.state, "READY")
        errors = [_error(attempt) for attempt in history if attempt.outcome in ("retried", "dead", "cancelled")]
        if status == "FAILED" and not errors:  # it was cancelled, or refused, before its first attempt
            errors.append(base.TaskError(exception_class_path=_FAILED, traceback=record.reason or record.state))
        result = base.TaskResult(
            task=task, id=record.id, status=base.TaskResultStatus[status],
            enqueued_at=moment(call["enqueued_at"]), started_at=moment(record.started),
            last_attempted_at=moment(last), finished_at=moment(record.ended) if has_ended else None, args=call["args"],
            kwargs=call["kwargs"], backend=call["backend"],
            errors=errors, worker_ids=workers,
        )  # fmt: skip
        if answer is not None:
            object.__setattr__(result, "_return_value", answer["return_value"])
        return result

    def check(self, **kwargs: Any) -> list[Any]:
        """Django's system checks: what is missing."""
        from .task_checks import check_backend

        return [*super().check(**kwargs), *check_backend(self)]


def _client() -> Any:
    return gearman().client


def _priority(priority: int) -> str:
    """Gearman's priority for Django's: one of three."""
    return "high" if priority > 0 else "low" if priority < 0 else "normal"


def _call_of(payload: bytes | None) -> dict[str, Any] | None:
    """What a task's message asks for; None where there is no message, or it is not that of a task of Django's."""
    if payload is None:
        return None
    call = reading.read(payload, max_body=len(payload)).json()
    return call if isinstance(call, dict) and {"task", "args", "kwargs", "enqueued_at"} <= call.keys() else None


def _error(attempt: model.Attempt) -> Any:
    """A failed attempt, as Django's Tasks keep it."""
    return base.TaskError(
        exception_class_path=attempt.raised or _FAILED, traceback=attempt.traceback or attempt.reason or ""
    )

"""Submits what `task()` has made: at once, with its batch, at the response's end, or when somebody says so."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..environ import KEYS
from ..errors import GearwsgiError, InvalidTask
from ..wire.payload import Submission
from .batch import OPEN, Batch, Pair, batch_of, is_dropped
from .client import Client
from .request import InHand
from .servers import Receipt
from .task import Task

_log = logging.getLogger("gearwsgi")

_BATCH = "its batch has raised"

After = Callable[[Callable[[], None]], object]
"""Takes a function, to call it when the time has come, or never."""


class Sending:
    """The methods of `Gearman` that submit tasks. `Gearman` sets the attributes, which saves a call in each request."""

    __slots__ = ("_client", "_count", "_environ", "_in_hand", "_sees_response", "_waiting")

    _client: Client
    _count: int
    _environ: dict[str, Any] | None
    _in_hand: InHand | None
    _sees_response: bool
    _waiting: list[Pair]

    def waits(self, task: object) -> bool:
        """Whether this task is yet to be submitted: at the response's end, or at its batch's."""
        batch = batch_of(self)
        return any(task is each for each, _ in (*self._waiting, *(batch.now if batch is not None else ())))

    def _submit(self, task: Task, submission: Submission, after_response: bool, after: After | None) -> None:
        if self._environ is not None:
            self._count += 1
            most = self._client.settings.max_tasks_per_request
            if self._count > most:
                raise InvalidTask(
                    f"this request has queued max_tasks_per_request={most} tasks; queue one task that does them all"
                )
        batch = OPEN.get()
        if batch is not None:
            batch = batch_of(self)
        if after is not None:
            if after_response:
                raise InvalidTask("after_response and after are given together: give one")
            after(lambda: self._submit_later(task, submission, batch))
        elif after_response:
            if not self._sees_response:
                raise InvalidTask("after_response=True after the response, or without a request: call it in a handler")
            if batch is None or not batch.add((task, submission), after_response=True):
                self._waiting.append((task, submission))
        elif batch is None or not batch.add((task, submission)):
            self._submit_now(task, submission)
        if batch is not None:
            batch.tasks.append(task)

    def _submit_later(self, task: Task, submission: Submission, made_in: Batch | None) -> None:
        """Submit a task that was given `after`: its time has come."""
        if is_dropped(made_in):
            _log.info("id %s %s is not queued: its batch has raised", task.id, task.service)
            drop((task,), _BATCH)
            return
        batch = batch_of(self)
        if batch is None or not batch.add((task, submission)):
            self._submit_now(task, submission)

    def _submit_now(self, task: Task, submission: Submission) -> None:
        try:
            if submission.recorded:
                receipt = self._submit_recorded(submission)
            else:
                (receipt,) = self._client.submit((submission,))
        except BaseException as error:
            drop((task,), error)
            raise
        _note(task, receipt)
        if task.on_queued is not None:
            task.on_queued()

    def _submit_recorded(self, submission: Submission) -> Receipt:
        """Submit a job while its record is written: neither waits for the other."""
        is_recorded = False

        def record() -> None:
            nonlocal is_recorded
            if not is_recorded:
                is_recorded = True
                self._client.record((submission,))

        try:
            (receipt,) = self._client.submit((submission,), record)
        except GearwsgiError:
            if is_recorded:
                self._client.forget(submission)
            raise
        record()
        return receipt

    def _send(self, pairs: Sequence[Pair]) -> None:
        """Submit several jobs in one write; one that is refused does not hold up the others."""
        receipts: Sequence[Receipt | None] = ()
        try:
            receipts = self._client.submit([submission for _, submission in pairs])
        except GearwsgiError as error:
            receipts = error.receipts
            raise
        finally:
            queued = [(*pair, receipt) for pair, receipt in zip(pairs, receipts, strict=False) if receipt is not None]
            for task, _, receipt in queued:
                _note(task, receipt)
            drop([task for task, _ in pairs], sys.exception())
            recorded = [submission for _, submission, _ in queued if submission.recorded]
            if recorded:
                self._client.record(recorded)
            for task, _, _ in queued:
                if task.on_queued is not None:
                    task.on_queued()

    @contextmanager
    def batch(self) -> Iterator[list[Task]]:
        """A block whose tasks are queued together, in one write at its end; in none where the block raises.

        `with gearman.batch() as tasks:`: what `task()` and `replay()` of this very object queue inside the block, in
        this thread or what runs in its context, is collected. `tasks` is the list of its tasks; their handles are
        there after the block. Inside of another block of the same object it joins that one.

        A task with `after_response` or `after` waits as it does without a block, unless the block raises.

        Raises:
            ServerUnavailable, ServerError, SpoolError: at the block's end, as `task()`; the tasks that a job server
                took all the same have their handles.
        """
        outer = batch_of(self)
        batch = Batch(self, OPEN.get())
        OPEN.set(batch)
        failed = True
        try:
            yield batch.tasks
            failed = False
        finally:
            OPEN.set(batch.outer)
            batch.close(failed=failed)
            if failed:
                drop(batch.tasks, _BATCH)
        if outer is not None and batch.join(outer):
            return
        self._waiting += batch.later
        if batch.now:
            self._send(batch.now)

    def is_idle(self) -> bool:
        """Whether nothing waits for the response's end; asked when the application has returned.

        Then nothing can come any more, and `finish` need not be called.
        """
        self._sees_response = bool(self._waiting)
        return not self._sees_response

    def finish(self, sent: bool, status: int) -> None:
        """Submit what waits for the end of the response, in one write, or forget it.

        Args:
            sent: whether the response was sent to its end, and closed without an exception.
            status: the status as a number; 0: there is none.
        """
        waiting, self._waiting, self._sees_response = self._waiting, [], False
        if self._environ is not None:
            # A copy without a reference to this object: else each request would wait for the garbage collector.
            self._environ = environ = self._environ.copy()
            self._in_hand = None
            for key in KEYS:
                environ.pop(key, None)
        if not waiting:
            return
        if sent and 0 < status < 400:
            self._send(waiting)
            return
        why = f"the response's status is {status}" if sent else "the response was not sent to its end and closed"
        for task, _ in waiting:
            _log.info("id %s %s is not queued: %s", task.id, task.service, why)
        drop([task for task, _ in waiting], why)


def drop(tasks: Iterable[Task], why: BaseException | str | None) -> None:
    """Note that these tasks are not queued: end their spans, unless those have ended."""
    for task in tasks:
        if task.span is not None:
            task.span.end(error=why)
            task.span = None


def _note(task: Task, receipt: Receipt) -> None:
    task.handle, task.server = receipt.handle, receipt.server
    if task.span is not None:
        task.span.end(task.server)
        task.span = None
    if _log.isEnabledFor(logging.INFO):
        where = f"as {task.handle} on {task.server}" if task.handle else "in the outbox: no job server answers"
        _log.info("queued %s in %s %s, id %s", task.service, task.queue, where, task.id)

"""The part of `environ["gearman"]` that answers about queued tasks (state, record, result), and cancels them."""

from typing import TYPE_CHECKING

from ..message.response import response_class
from . import checks
from .sending import Sending
from .task import Status, Task

if TYPE_CHECKING:
    from webob import Response

    from ..state.records.model import Record
    from .lookup import Lookup


class Asking(Sending):
    """The methods of `Gearman` that ask about tasks."""

    __slots__ = ()

    def status(self, task: Task | str) -> Status:
        """The state of a task, through all its attempts.

        It is `queued`, `scheduled` (delayed), `running` or `running n of m`, `retrying` (waits for its next attempt),
        `done`, `dead`, `cancelled` or `discarded`; or `unknown`.

        Args:
            task: the task; or its id, which may be shortened; or the handle of an attempt, of which only the job
                server is asked: `queued`, `running` or `unknown`.

        Where records are off, what has ended is unknown.

        Raises:
            UnknownTask: several ids begin so.
            ServerUnavailable: the records don't know it, and no job server answers.
            RecordsUnavailable: the records can't be asked, and no job server has it.
        """
        if isinstance(task, str) and ":" in task:
            return self._client.servers.status(task, "")
        return self._lookup(task).status()

    def record(self, task: Task | str) -> "Record":
        """What is known of a task: its state, its times, its attempts.

        One that the records have not seen yet is looked for in the outbox and on the job servers: its record has its
        id and its state, and `-` or None for what is not known.

        Args:
            task: the task, or its id, which may be shortened.

        Raises:
            UnknownTask: nobody knows it, or several ids begin so.
            RecordsUnavailable: the records are off, or their database is away.
            ServerUnavailable: the records don't know it, and no job server answers.
        """
        return self._lookup(task).record()

    def result(self, task: Task | str, timeout: float = 0) -> "Response":
        """The response that a task's handler gave, where it is kept: `task(…, keep_result=3600)`, or the setting.

        Args:
            task: the task, or its id, which may be shortened.
            timeout: seconds to wait for it.

        Raises:
            ResultPending: the task has not ended.
            TaskDead: it did not succeed; `reason` says why.
            ResultNotKept: it is done, and its response is not kept, not any more, or was too large.
            UnknownTask, RecordsUnavailable, ServerUnavailable: as `record()`.
        """
        status, pairs, content = self._lookup(task).result(checks.seconds(timeout, "timeout"))
        return response_class()(status=status, headerlist=pairs, app_iter=[content])

    def cancel(self, task: Task | str) -> Status:
        """Cancel a task: one that waits never runs, one that runs is ended as a time-out ends it.

        There is no retry and no dead letter of it.

        Args:
            task: the task, or its id, which may be shortened.

        Returns:
            `cancelled`; `running` where its supervisor is about to end it; what has ended stays as it is, and this is
            its state.

        Raises:
            UnknownTask, RecordsUnavailable, ServerUnavailable: as `record()`.
        """
        from .actions import Actions  # it imports the records' database, so only where it is used

        return Status(Actions(self._client).cancel(task, waits=self.waits(task)).state)

    def _lookup(self, task: Task | str) -> "Lookup":
        from .lookup import Lookup  # it imports the records' database, so only where it is used

        return Lookup(self._client, task, waits=self.waits(task))

"""Looks up what became of a task: in the records; what those have not seen yet, in the outbox and on the job servers.

Imported only where it is used. Each lookup has a connection to the records of its own, so that threads and forks need
no care.
"""

import math
import re
import time
from dataclasses import replace

from ..errors import RecordsUnavailable, ResultNotKept, ResultPending, ServerUnavailable, TaskDead, UnknownTask
from ..message.response import read_response
from ..state.records import model
from ..state.records.model import Record
from ..wire.payload import is_task_id, make_unique
from .client import Client, Records
from .task import Status, Task

POLL, POLL_MAX = 0.05, 0.5
"""Seconds between two looks: at first, and at most."""
_SETTLED = 10.0
"""Seconds after which a message that was sent is surely on its job server, or in the outbox."""
_WAITING = (model.QUEUED, model.SCHEDULED, model.RETRYING)
_BEGINNING = 1.0
"""Seconds within which a supervisor creates the records, once it has something to write."""
_MAX_ASKED = 20
"""Attempts of one task about which job servers are asked at once."""
_FIRST = re.compile(r":1(?!\d)")


class Lookup:
    """What is known of one task, looked up when it is asked for.

    Args:
        client: the middleware's.
        task: the task, or its id, which may be shortened.
        waits: whether it is yet to be submitted, at the response's end.
    """

    def __init__(self, client: Client, task: Task | str, *, waits: bool = False) -> None:
        self._client = client
        self._task = task if isinstance(task, Task) else None
        self._id = task.id if isinstance(task, Task) else task
        self._waits = waits

    def status(self) -> Status:
        """Its state, as `Gearman.status` has it."""
        found = self.known()
        if found is None:
            return Status(model.UNKNOWN)
        return Status(found.state, *(found.progress or (0, 0)))

    def known(self, *, quick: bool = False) -> Record | None:
        """What records, outbox and job servers know of it, even where records are off; None: nobody knows it.

        Args:
            quick: leave out what takes long: the list of all that job servers have, and waiting for a record that may
                be about to be written. Then None may be wrong.

        Raises:
            ServerUnavailable, RecordsUnavailable, UnknownTask: as `Gearman.status`.
        """
        try:
            if not self._client.settings.records:
                return self._known(None, quick=quick)
            with self._client.open_records() as records:
                found = self._known(records, quick=quick)
            return self._first() if found is None and records is None and not quick else found
        except RecordsUnavailable:
            found = self._known(None, quick=quick)
            if found is None:
                raise  # it may well have been done, or be dead
            return found

    def _first(self) -> Record | None:
        """Look again a while later: there are no records yet, so this may be the first task of all, ended just now."""
        end = time.monotonic() + _BEGINNING
        while time.monotonic() < end:
            time.sleep(POLL)
            with self._client.open_records() as records:
                if records is not None:
                    return self._known(records)
        return None

    def response(self) -> bytes | None:
        """Its last response as a message, where it is kept.

        Raises:
            RecordsUnavailable: their database is away.
        """
        if not self._client.settings.records:
            return None
        with self._client.open_records() as records:
            return records.result(self._id) if records is not None else None

    def record(self) -> Record:
        """Its record, as `Gearman.record` has it."""
        with self._client.open_records() as records:
            return self.found(records)

    def is_lost(self, record: Record) -> bool:
        """Whether nobody has the task any more, so that its record, which says that it waits, will never change.

        This happens when a supervisor is killed after a task has ended and before that is written down, and when a job
        server loses its queue. It is true only where it is certain: where the outbox here is the only one.

        Args:
            record: the task's, as `record()` has it.
        """
        known = [each.timestamp() for each in (record.queued, record.due) if each is not None]
        since = max(known, default=math.inf)  # where neither is known, only a job server knows the task
        if record.state not in _WAITING or self._client.settings.records != "sqlite" or time.time() - since < _SETTLED:
            return False
        try:
            if self._elsewhere(record, quick=False, whole=True).state != model.UNKNOWN:
                return False
        except ServerUnavailable:
            return False
        with self._client.open_records() as records:
            end = time.monotonic() + (records.lag if records is not None else 0.0)
            while (found := self._find(records)) is not None and found.state == record.state:
                if time.monotonic() >= end:
                    return True
                time.sleep(POLL)
        return False

    def result(self, timeout: float) -> tuple[str, list[tuple[str, str]], bytes]:
        """Status, headers and body of its response, as `Gearman.result` has it."""
        deadline = time.monotonic() + timeout
        pause = POLL
        while True:
            with self._client.open_records() as records:  # not kept open while waiting
                record = self.found(records)
                if record.state in model.ENDED:
                    return _response(records, record)
                is_final = records is not None and not records.lag
            left = deadline - time.monotonic()
            if left <= 0 or is_final:
                raise ResultPending(f"task {record.id} is {record.state}: it has no result yet")
            time.sleep(min(pause, left))
            pause = min(2 * pause, POLL_MAX)

    def found(self, records: Records | None) -> Record:
        """Its record, from records that are open.

        Raises:
            UnknownTask, ServerUnavailable: as `Gearman.record`.
        """
        found = self._known(records)
        if found is None:
            raise UnknownTask(f"no task {self._id!r} is known")
        return found

    def _known(self, records: Records | None, *, quick: bool = False) -> Record | None:
        """What the records know, corrected by what job servers and outbox know; None: nobody knows it."""
        record = self._find(records)
        if record is not None and record.state in model.ENDED:
            return record
        if record is None and not is_task_id(self._id):
            return None
        try:
            elsewhere = self._elsewhere(record, quick=quick)
        except ServerUnavailable:
            if record is None:
                raise
            return record
        if elsewhere.state == model.UNKNOWN:
            return record or (None if quick else self._settle(records))
        if record is None:
            return self._made_up(elsewhere)
        if model.RUNNING in (elsewhere.state, record.state):
            progress = (elsewhere.done, elsewhere.total) if elsewhere.total else record.progress
            return replace(record, state=elsewhere.state, progress=progress)
        return record

    def _find(self, records: Records | None) -> Record | None:
        if records is None or not self._id:
            return None
        try:
            return records.find(self._id)
        except UnknownTask as error:
            if error.is_ambiguous:
                raise
            return None

    def _settle(self, records: Records | None) -> Record | None:
        """Look again a while later: nobody has the task, so it may have ended, with its record about to be written."""
        if records is None:
            return None
        end = time.monotonic() + records.lag
        while time.monotonic() < end:
            time.sleep(POLL)
            record = self._find(records)
            if record is not None:
                return record
        return None

    def _elsewhere(self, record: Record | None, *, quick: bool, whole: bool = False) -> Status:
        """What outbox and job servers know of its attempts that have not ended.

        Args:
            record: what the records know.
            quick: as `known()` has it.
            whole: ask for the list of all that job servers have, even if there is a record.
        """
        if self._waits or self._client.outbox.holds(self._id):
            return Status(model.QUEUED)
        task, settings, servers = self._task, self._client.settings, self._client.servers
        tries = [settings.max_attempts, *[entry.max_attempts or 0 for entry in settings.tasks.values()]]
        last = task.max_attempts if task is not None else max(tries)
        first = 1
        if record is not None:
            first, last = max(1, record.attempts), record.max_attempts or last
        further = range(max(2, first), min(last, first + _MAX_ASKED) + 1)
        retries = [make_unique(self._id, attempt) for attempt in further]
        handle, server = (task.handle, task.server) if task is not None else ("", "")
        uniques = [task.unique if task is not None else make_unique(self._id, 1)] if first == 1 and not handle else []
        found = servers.status(handle, server, uniques, retries=retries)
        if found.state == model.UNKNOWN and (record is None or whole) and not quick:
            # It was handed back, or retried from a dead letter: its unique then ends with something random.
            again = servers.find_uniques(f"{self._id}:")
            firsts = [unique for unique in again if _FIRST.match(unique, len(self._id))]
            if again:
                found = servers.status("", "", firsts, retries=[each for each in again if each not in firsts])
        return found

    def _made_up(self, status: Status) -> Record:
        """A record for a task that only job servers or the outbox know."""
        task = self._task
        return Record(
            id=self._id, service=task.service if task is not None else "-", method="-", path="-",
            queue=task.queue if task is not None else "-", priority="normal", state=status.state, queued=None,
            due=None, started=None, ended=None, attempts=0,
            max_attempts=task.max_attempts if task is not None else None,
            progress=(status.done, status.total) if status.total else None, status=None, reason=None, host=None,
            pid=None, request_id=None, traceparent=None,
        )  # fmt: skip


def _response(records: Records | None, record: Record) -> tuple[str, list[tuple[str, str]], bytes]:
    """The response of a task that has ended."""
    if record.state != model.DONE:
        reason = record.reason or record.state
        raise TaskDead(f"task {record.id} is {record.state}: {reason}", reason)
    content = records.result(record.id) if records is not None else None
    if content is None:
        raise ResultNotKept(
            f"task {record.id} is done, and its response is not kept: keep_result was not given or is over, "
            "or the response was too large"
        )
    return read_response(content)

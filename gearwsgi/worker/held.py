"""A job that a supervisor holds, which is one that it has grabbed and not yet answered; and the ways to answer it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from .. import log
from ..errors import BadMessage
from ..state.records.facts import log_fields, read_facts
from ..wire import packets
from ..wire.payload import Grabbed, own_id
from .session import Session


@dataclass(slots=True)
class Notes:
    """What is known of a job's run, beyond what every job has. Most jobs have no `Notes`.

    Attributes:
        status: the status of its response.
        response: the response as a message, where it is to be kept, or somebody waits for it.
        progress: (done, total) as its handler reported it last.
        told: the progress that was last written to the records; False: not even that the job runs.
        route: the pattern of the route that its path matches, where metrics want it.
        entry: the name of the schedule's entry whose tick it is.
    """

    status: int = 200
    response: bytes = b""
    progress: tuple[int, int] | None = None
    told: tuple[int, int] | bool | None = False
    route: bytes = b""
    entry: str = ""


@dataclass(slots=True, eq=False)
class Held:
    """A job that this supervisor holds: grabbed, and not yet answered.

    Attributes:
        job: as the job server has handed it out.
        session: the connection that grabbed it; only that one may answer it.
        grabbed_at: when that was, in Unix time.
        sequence: its number on the pipe of its process.
        since: when it was given to its process; by `time.monotonic`, as are the next ones.
        started: when it began to run; 0.0 while it lies ahead.
        ended: when its attempt ended; 0.0 before.
        limit: seconds that it may run; None until that was looked up.
        alarm_at: when its process is to be told, or told again, that its time is over.
        told_at: when its process was first told so; 0.0 before.
        returned: whether it was queued again, or its connection is gone: it must not run here.
        trusted: whether a worker process has verified it.
        pid: the process that it was given to last.
        notes: more about its run, where there is anything to say.
        cancelled: who has cancelled its task while it runs; "" where that is not known; None: nobody has.
    """

    job: Grabbed
    session: Session
    grabbed_at: float
    sequence: int = 0
    since: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    returned: bool = False
    limit: float | None = None
    alarm_at: float = 0.0
    told_at: float = 0.0
    trusted: bool = False
    pid: int = 0
    notes: "Notes | None" = None
    cancelled: str | None = None

    def task_id(self) -> str:
        """The id of its task; empty where its message can't be read."""
        try:
            return read_facts(self.job.payload, partial(own_id, self.job)).id
        except BadMessage:
            return ""

    def note(self) -> "Notes":
        """Its notes, to write into; made where it has none."""
        if self.notes is None:
            self.notes = Notes()
        return self.notes

    @property
    def handle(self) -> str:
        """The handle that the job server has given it."""
        return self.job.handle_name

    def say(self, event: str, **fields: Any) -> None:
        """Log what has become of it; `fields` are for a line of JSON, beside those of its message."""
        log.write(self.handle, event, {**log_fields(self.job), **fields} if log.is_json else None)

    def complete(self, data: bytes) -> None:
        """Answer WORK_COMPLETE."""
        if not self.session.is_open:
            self.say("done, but its connection to the job server was lost meanwhile: it may run again")
            return
        self.session.unanswered -= 1
        self.session.send(packets.pack(packets.WORK_COMPLETE, self.job.handle, data))

    def fail(self) -> None:
        """Answer WORK_FAIL: a client that waits is told; for a background job nobody is."""
        if self.session.is_open:
            self.session.unanswered -= 1
            self.session.send(packets.pack(packets.WORK_FAIL, self.job.handle))

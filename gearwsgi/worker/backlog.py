"""What a worker process was given and has not answered: the job that runs, those ahead in its pipe, and the fence.

A job that was given is, in this order:

    AHEAD   in the pipe; while no fence stands before it, the process may start it at any time
    RUNNING the first one, from when the process has marked it as started in the shared memory (`Claim`)
    gone    answered; or its process died

The fence, once put behind the job that runs, keeps all others from being started. Whether it was in time is known a
turn of the loop later. Then those others are safe: the process will skip them, and they may be handed back to the job
server. When the process has answered for all that it was given, the fence is taken away, and what it skipped and was
not handed back is given to it again.
"""

import time
from collections import deque
from collections.abc import Iterator
from itertools import islice

from ..errors import ProtocolError
from .channel import Claim
from .held import Held


class Backlog:
    """The jobs that one process was given.

    Args:
        claim: the memory that both sides see.

    Attributes:
        jobs: what lies in the pipe, in its order: the first one runs, or is the next to.
        fenced_at: when the fence was put up, of `time.monotonic`; 0.0 where there is none.
        why_fenced: why it was put up, in words.
        skipped: the jobs that the process did not start because of the fence, and those given while it stood.
    """

    def __init__(self, claim: Claim) -> None:
        self.jobs: deque[Held] = deque()
        self.skipped: list[Held] = []
        self._claim = claim
        self._given = 0
        self._answered = 0
        self.fenced_at = 0.0
        self.why_fenced = ""

    def add(self, held: Held) -> bool:
        """Take in one more job; whether it is to be written into the pipe now.

        While the fence stands it is not: it is kept with those that were skipped.
        """
        self._given = self._given % 255 + 1
        now = time.monotonic()
        held.sequence, held.since, held.limit = self._given, now, None
        held.started, held.ended = 0.0 if self.jobs else now, 0.0
        if self.fenced_at:
            self.skipped.append(held)
            return False
        self.jobs.append(held)
        return True

    def expect(self, sequence: int) -> Held:
        """The job that an answer is for.

        Raises:
            ProtocolError: that job does not run.
        """
        if not self.jobs or self.jobs[0].sequence != sequence:
            raise ProtocolError("an answer for a job that does not run")
        return self.jobs[0]

    def answered(self, sequence: int, now: float) -> Held:
        """Take out the first job, which was answered: the next one runs. Returns the one that was answered.

        Raises:
            ProtocolError: the answer is for another job.
        """
        jobs = self.jobs
        if not jobs or jobs[0].sequence != sequence:
            raise ProtocolError("an answer for a job that does not run")
        held = jobs.popleft()
        held.ended = now
        self._answered = sequence
        if jobs:
            jobs[0].started = now
        return held

    def fence(self, why: str) -> None:
        """Have the process start nothing after the job that runs."""
        if self.jobs and not self.fenced_at:
            self.why_fenced = why
            self.fenced_at = time.monotonic()
            self._claim.fence(self.jobs[0].sequence)

    def request_stop(self) -> None:
        """Let the job that runs see that it had better end (`job.stop_requested`)."""
        self._claim.request_stop()

    def holds_behind(self, now: float) -> bool:
        """Whether the fence was in time, so that nothing behind it was started; known a turn of the loop later."""
        return 0.0 < self.fenced_at < now and self._claim.started() == self.jobs[0].sequence

    def behind(self) -> Iterator[Held]:
        """All jobs but the one that runs."""
        yield from islice(self.jobs, 1, None)
        yield from self.skipped

    def lift_fence(self) -> list[Held]:
        """Take the fence away, now that nothing lies in the pipe any more; returns the jobs that were skipped."""
        self.fenced_at = 0.0
        self._claim.fence(0)
        skipped, self.skipped = self.skipped, []
        return skipped

    def cancel(self, held: Held | None) -> None:
        """Mark this job, which runs, as one to be ended at the process's next signal; None: no job is to be ended."""
        self._claim.cancel(held.sequence if held is not None else 0)

    def is_damaged(self) -> bool:
        """Whether the application has written to the shared memory."""
        return self._claim.started() is None

    def read_stack(self) -> str:
        """The Python stack of the process, where a fatal signal had it write one."""
        return self._claim.read_stack()

    def close(self) -> Held | None:
        """Let go of the memory of a process that is gone. Returns the job that it had started, if any.

        What is left in `jobs` was not started.
        """
        was_started = self.jobs and self._claim.started() != self._answered
        self._claim.close()
        return self.jobs.popleft() if was_started else None

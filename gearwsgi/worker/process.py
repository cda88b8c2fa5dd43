"""One worker process as the supervisor sees it, from its fork to its end: its pipe, and what it was given.

    STARTING -- READY and its pid come --> READY -- --max-jobs, --max-rss, foreign bytes --> RETIRING
    STARTING, READY, RETIRING -- its pipe is closed, by either side --> ENDING
    any -- the fork server says how it ended --> ENDED
    any -- abandon() --> ENDED

It is given jobs while READY; while RETIRING only those that the slot had asked for before. Whatever it answers counts,
until it has ENDED. It answers in the order in which it was given jobs: any other answer is foreign bytes.

When it ends, the fate of at most one job is unknown: of the one that it had started. That job is a failed attempt. The
jobs behind it were not started, and go to the next process.

A process is not trusted. Bytes on its pipe that are no frame are blamed on the job that runs: that job is lost, and the
process ends after it; what it answers until then counts.
"""

import contextlib
import random
import signal
import socket
import time
from enum import Enum
from typing import Protocol

from ..errors import ProtocolError
from ..policy import Outcome
from ..wire import packets
from ..wire.payload import can_be_handed_back
from . import channel
from .backlog import Backlog
from .exits import Exit
from .forks import Forks
from .held import Held
from .loop import Loop, Stream

AHEAD_MAX = 0.5
"""Seconds that a job may wait ahead of its turn: far more than it should take."""
GRACE = 5.0
"""Seconds from the first SIGALRM, which becomes an exception in a job that is over its time limit, to SIGKILL."""
LATER = 0.01
"""Seconds by which the process may begin a job later than the supervisor thinks."""
ALARM_AGAIN = 1.0
"""Seconds until the next SIGALRM, where the process did not take the first one for the job that runs."""
PROGRESS_EVERY = 0.1
"""Seconds between two reports of a job's progress that are passed on; of those in between, only the last one is."""
EXIT_REPORT = 7.0
"""Seconds to wait for the fork server to say how a process ended: more than its exit functions may take."""

TOLD_AFTER = 1.0
"""Seconds that a job runs before it is written to the records that it does; a shorter one is written when it ends."""

_ANSWERS = (channel.DONE, channel.FAILED, channel.SKIPPED)


class State(Enum):
    """The states of a `Process`: see the module."""

    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    ENDING = "ending"
    ENDED = "ended"


_WORKS = (State.READY, State.RETIRING)


class Owner(Protocol):
    """What a process tells its slot."""

    number: int

    @property
    def max_job(self) -> int: ...
    def on_ready(self) -> None: ...
    def on_grown(self, process: "Process") -> None: ...
    def on_answer(self, held: Held, outcome: Outcome | None, data: bytes, seconds: float) -> None: ...
    def on_answers(self) -> None: ...
    def on_not_started(self, jobs: list[Held]) -> None: ...
    def on_running(self, held: Held) -> None: ...
    def on_end(self, process: "Process", reason: str, lost: Held | None, outcome: Outcome | None) -> None: ...
    def time_limit(self, held: Held) -> float: ...
    def hand_back(self, held: Held, why: str) -> None: ...


class Progress:
    """The progress that a job reports, passed on to its job server a few times a second at most.

    Attributes:
        last: the newest report that was not passed on yet: the job's sequence, how much is done, and of how much.
    """

    def __init__(self) -> None:
        self.last: tuple[int, tuple[int, int]] | None = None
        self._next_at = 0.0

    def pass_on(self, running: Held | None, now: float, *, is_last: bool = False) -> None:
        """Pass it on, if it is time; at once where it is the last report, since the job has ended.

        A thread that a job has left behind may report long after the job: that does no harm.
        """
        if self.last is None or (now < self._next_at and not is_last):
            return
        (sequence, progress), self.last = self.last, None
        if running is None or running.sequence != sequence:
            return
        running.note().progress = progress
        if running.session.is_open:
            self._next_at = time.monotonic() + PROGRESS_EVERY
            numbers = [b"%d" % number for number in progress]
            running.session.send(packets.pack(packets.WORK_STATUS, running.job.handle, *numbers))


class Process:
    """One worker process. It is asked for, from the fork server, as this object is made.

    Args:
        owner: the slot.
        forks: where it comes from.
        loop: the supervisor's.
        max_jobs: how many jobs it may do; None: any number. It does up to a tenth less, so that not all processes end
            at the same time.

    Raises:
        NoForkServer: there is no fork server that could be asked.
        OSError: there is no room, or there are too many open files.

    Attributes:
        pid: its process id; 0 while it is not known.
        state: one of the states that the module shows.
        came_up: whether it has ever said that it is ready.
        exit: why it ended.
        backlog: the jobs that it was given and has not answered.
    """

    def __init__(self, owner: Owner, forks: Forks, loop: Loop, max_jobs: int | None) -> None:
        self.pid = 0
        self.state = State.STARTING
        self.came_up = False
        with contextlib.ExitStack() as for_process, contextlib.ExitStack() as for_us:
            memory = for_process.enter_context(channel.Claim.make_file())
            claim = for_us.enter_context(contextlib.closing(channel.Claim(memory.fileno())))
            claim.number = owner.number
            ours, theirs = socket.socketpair()
            for_us.callback(ours.close)
            for_process.callback(theirs.close)
            self._stream = Stream(ours, loop, self._on_pipe, self._on_pipe_closed)
            for_us.callback(self._stream.close)
            forks.fork(self, theirs, memory)
            for_us.pop_all()
        self._owner = owner
        self._forks = forks
        self._frames = channel.from_worker(owner.max_job, self._may_answer_at_length)
        self._progress = Progress()
        self._jobs_left = None if max_jobs is None else max(1, max_jobs - random.randint(0, max_jobs // 10))
        self._ending_since = 0.0
        self._blamed: Held | None = None
        self.exit = Exit()
        self.backlog = Backlog(claim)

    @property
    def running(self) -> Held | None:
        """The job that runs, or is about to; None: it has none."""
        return self.backlog.jobs[0] if self.backlog.jobs else None

    @property
    def works(self) -> bool:
        """Whether it has said that it is ready, and its pipe is open."""
        return self.state in _WORKS

    @property
    def is_over(self) -> bool:
        """Whether it is not waited for any more."""
        return self.state is State.ENDED

    def room(self, hold: int) -> int:
        """How many more jobs may be asked for, where it is to hold `hold` of them."""
        if self.state is not State.READY or self.backlog.fenced_at:
            return 0
        if self._jobs_left is not None:
            hold = min(hold, self._jobs_left)
        return hold - len(self.backlog.jobs)

    def give(self, held: Held) -> bool:
        """Give it a job; whether that could be done."""
        if self.state not in _WORKS:
            return False
        held.pid = self.pid
        if self.backlog.add(held):
            self._stream.send(channel.job_frame(held.sequence, held.job))
            if len(self.backlog.jobs) == 1:
                self._stream.flush()  # the process has nothing else to do, and waits for this
        return True

    def pause(self) -> None:
        """Read its answers when a while has passed, instead of being woken by each of them."""
        self._stream.pause()

    def fence(self, why: str) -> None:
        """Have it start no job after the one that runs; a later tick shows whether that was in time.

        `why` is what the log says of the jobs that are handed back because of it.
        """
        if self.state in _WORKS and (len(self.backlog.jobs) > 1 or self._blamed is not None):
            self.backlog.fence(why)

    def request_stop(self) -> None:
        """Let the job that runs see that the supervisor wants to stop or to reload."""
        if not self.is_over:
            self.backlog.request_stop()

    def cancel(self, held: Held, by: str) -> None:
        """End the job that runs, as if its time were over."""
        held.cancelled, held.limit, held.alarm_at = by, 0.0, 0.0
        self.backlog.cancel(held)

    def retire(self) -> None:
        """Let it end: it has nothing left to do, and reads the end of its pipe."""
        self._stream.close()
        self._end_soon()

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.pid:
            self._forks.kill(self.pid)

    def abandon(self) -> None:
        """Close its pipe, and listen to it no more: its jobs go back to their job servers."""
        self.state = State.ENDED
        self._stream.close()
        self.backlog.close()

    def tick(self, now: float) -> None:
        """Do what is due by now; called a few times a second."""
        gone = self._forks.gone
        if gone and self.state in _WORKS:
            self._on_pipe_closed("")  # where the application has forked, a copy of its end of the pipe may be open
        elif gone or (self.state is State.ENDING and now - self._ending_since > EXIT_REPORT):
            self.kill()
            self.on_exit(None)
        elif self.state in _WORKS and self.backlog.jobs:
            self._progress.pass_on(self.running, now)
            self._watch_running(self.backlog.jobs[0], now)
            self._watch_ahead(self.backlog.jobs[0], now)

    def on_pause(self, seconds: float) -> None:
        """Give it that many seconds more for whatever has a time limit: the supervisor was not there to look."""
        self._ending_since += seconds
        if self.running is not None and self.running.told_at:
            self.running.told_at += seconds

    # -- what the fork server says -----------------------------------------------------------------------------------

    def on_forked(self, pid: int) -> None:
        """Note that it was started."""
        self.pid = pid
        if self.came_up:
            self._on_ready()

    def on_refused(self, reason: str) -> None:
        """Note that it could not be started."""
        self.exit.trouble = reason
        self.on_exit(None)

    def on_exit(self, status: int | None) -> None:
        """Note that it has ended, with this exit status: negative for a signal, None where it is not known."""
        if self.is_over:
            return
        pid, self.pid = self.pid, 0
        self._stream.receive()  # what it has answered before its end counts
        if self.is_over:
            return  # reading that has ended the slot's work, and with it this
        self._stream.close()
        self.exit.judge(status, came_up=self.came_up)
        self.state = State.ENDED
        reason = self.exit.describe(status, self.running)
        stack = self.backlog.read_stack() if status is not None and status < 0 else ""
        outcome = None
        lost = self.backlog.close()
        if lost is not None and lost.returned:
            lost = None  # it died after it had marked the job and before it had looked at the fence: not started
        elif lost is not None:
            lost.ended = time.monotonic()
            lost.say(f"worker process {pid} {reason}", level="error", pid=pid)
            outcome = Outcome("timeout" if self.exit.timed_out else "lost", reason, traceback=stack)
        self._owner.on_end(self, reason, lost, outcome)

    # -- what it says itself -----------------------------------------------------------------------------------------

    def _on_pipe(self, data: bytes) -> None:
        answered = False
        for kind, sequence, payload in self._frames.feed(data):
            try:
                if kind in _ANSWERS:
                    self._on_answer(kind, sequence, payload)
                    answered = True
                elif kind == channel.PROGRESS:
                    self._progress.last = (sequence, channel.read_progress(payload))
                else:
                    self._on_word(kind, sequence, payload)
            except ProtocolError as error:
                self._on_foreign(error)
                answered = True
            if self.is_over:
                return
        if self._progress.last is not None:
            self._progress.pass_on(self.running, time.monotonic())
        if answered:
            self._owner.on_answers()

    def _on_answer(self, kind: int, sequence: int, payload: bytes) -> None:
        outcome = None
        if kind == channel.FAILED:
            try:
                outcome = channel.read_outcome(payload)
            except ProtocolError as error:
                self._on_foreign(error)
        now = time.monotonic()
        if self._progress.last is not None:
            self._progress.pass_on(self.running, now, is_last=True)
        held = self.backlog.answered(sequence, now)
        if held.cancelled is not None:
            self.backlog.cancel(None)
        if held is self._blamed:
            outcome = Outcome("lost", self.exit.describe(None, held))
        if kind == channel.SKIPPED:
            self.backlog.skipped.append(held)
        else:
            if self._jobs_left is not None:
                self._jobs_left -= 1
                if self._jobs_left == 0:
                    self._retire_soon()
            self._owner.on_answer(held, outcome, payload, now - held.started)
        if self.backlog.fenced_at and not self.backlog.jobs:
            self._owner.on_not_started(self.backlog.lift_fence())

    def _on_word(self, kind: int, sequence: int, payload: bytes) -> None:
        """Handle a frame that is no answer to a job."""
        if kind == channel.READY and self.state is State.STARTING:
            self.came_up = True
            if self.pid:
                self._on_ready()
        elif kind == channel.RESPONSE:
            notes = self.backlog.expect(sequence).note()
            notes.status, notes.response = channel.read_response_frame(payload)
        elif kind == channel.ROUTE:
            self.backlog.expect(sequence).note().route = payload
        elif kind == channel.TRANSLATED:
            held = self.backlog.expect(sequence)
            held.job, held.trusted = held.job._replace(payload=payload), True
        elif kind == channel.RETIRING and self.state is not State.STARTING:
            if self.state is State.READY:
                self._owner.on_grown(self)
            self._retire_soon()
        else:
            raise ProtocolError("bytes that are no frame")

    def _on_ready(self) -> None:
        """Be READY once it is, and the fork server has said which process it is: before that, nobody could end it."""
        if self.state is State.STARTING:
            self.state = State.READY
            self._owner.on_ready()

    def _may_answer_at_length(self) -> bool:
        return self.running is not None and not can_be_handed_back(self.running.job.payload)

    def _on_foreign(self, error: ProtocolError) -> None:
        """Handle foreign bytes: the job that runs is lost, and the process ends after it; its answers so far count."""
        self.exit.trouble = f"ended: the application has written to file descriptors that are not its own ({error})"
        self._blamed = self.running
        if self.state is State.STARTING or self.backlog.is_damaged():
            self.kill()
        else:
            self.fence("it lay behind a job that wrote to file descriptors that are not its own")
        self._retire_soon()

    def _on_pipe_closed(self, reason: str) -> None:
        """Handle the end of its pipe: the process has died, or soon will."""
        self._end_soon()
        self.kill()

    def _retire_soon(self) -> None:
        if self.state is State.READY:
            self.state = State.RETIRING

    def _end_soon(self) -> None:
        if self.state is not State.ENDED:
            self.state = State.ENDING
            self._ending_since = time.monotonic()

    # -- what time brings --------------------------------------------------------------------------------------------

    def _watch_running(self, held: Held, now: float) -> None:
        """Enforce the time limit of the job that runs: by SIGALRM, an exception in the process; then by SIGKILL."""
        if self.exit.timed_out or not held.started:
            return
        if now - held.started > TOLD_AFTER:
            notes = held.note()
            if notes.told is not notes.progress:
                notes.told = notes.progress
                self._owner.on_running(held)
        if held.limit is None:
            held.limit = self._owner.time_limit(held)
            held.alarm_at = held.started + held.limit + LATER
        if held.told_at and now > held.told_at + GRACE:
            self.exit.timed_out = True
            self.kill()
        elif now > held.alarm_at and self.pid:
            # Signal once more after a while: by the process's own clock, the job may have had some time left.
            held.told_at = held.told_at or now
            held.alarm_at = now + ALARM_AGAIN
            self._forks.kill(self.pid, signal.SIGALRM)

    def _watch_ahead(self, running: Held, now: float) -> None:
        """Hand back the jobs behind one that takes long."""
        backlog = self.backlog
        if not backlog.fenced_at:
            if len(backlog.jobs) > 1 and now - backlog.jobs[1].since > AHEAD_MAX:
                self.fence("it waited behind a long job")
        elif backlog.holds_behind(now):
            if running is self._blamed:
                self.kill()
                return
            for held in backlog.behind():
                self._owner.hand_back(held, backlog.why_fenced)

"""One worker process as the supervisor sees it, from its fork to its end: its pipe, and what it was given.

    STARTING -- READY and its pid come --> READY -- --max-jobs, --max-rss, foreign bytes --> RETIRING
    STARTING, READY, RETIRING -- its pipe is closed, by either side --> ENDING
    any -- the fork server says how it ended --> ENDED
    any -- abandon() --> ENDED

It is given jobs while READY, and in RETIRING what was asked for before. Whatever it answers counts, until it has ENDED.
It answers in the order of what it was given: an answer to anything else is foreign.

When it ends, at most one job has an unknown fate: the one that it had started. That job is a failed attempt. All that
lay behind it was not started, and goes to the next process.

A process is not trusted. Bytes on its pipe that are no frame are the work of the job that runs: that one is lost, and
the process ends after it; what it answers until then counts.
"""

import contextlib
import math
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
"""Seconds that a job may wait ahead, which is far more than it should."""
GRACE = 5.0
"""Seconds from a job's first SIGALRM, at its time limit, which is an exception there, to SIGKILL."""
LATER = 0.01
"""Seconds that a process may begin its job later than we think."""
ALARM_AGAIN = 1.0
"""Seconds until the next SIGALRM, where a process did not take the one before for its own."""
PROGRESS_EVERY = 0.1
"""Seconds between two reports of a job's progress that are passed on; of those between, the last one is."""
EXIT_REPORT = 7.0
"""Seconds to wait for the fork server's word on how a process ended: more than its exit functions have."""

TOLD_AFTER = 1.0
"""Seconds that a job runs before the records are told of it: a shorter one is told when it has ended."""

_ANSWERS = (channel.DONE, channel.FAILED, channel.SKIPPED)


class State(Enum):
    """See the module."""

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
    """What a job reports of itself, passed on to its job server a few times a second at most.

    Attributes:
        last: the newest report that was not passed on: the job's sequence, how much is done, and of how much.
    """

    def __init__(self) -> None:
        self.last: tuple[int, tuple[int, int]] | None = None
        self._next_at = 0.0

    def pass_on(self, running: Held | None, now: float) -> None:
        """Pass it on if it is time, which it always is at the infinite.

        A thread that a job left behind may report long after, and harms nobody.
        """
        if self.last is None or now < self._next_at:
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
    """A process that is asked for as this is made.

    Args:
        owner: the slot.
        forks: where it comes from.
        loop: the supervisor's.
        max_jobs: how many jobs it may do; None: any number. Up to a tenth less, so that not all end at once.

    Raises:
        NoForkServer: nobody is there to be asked.
        OSError: no room, or too many open files.

    Attributes:
        pid: its process id; 0 while it is not known.
        state: see the module.
        came_up: whether it has said that it is ready.
        exit: why it ended.
        backlog: what it was given.
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
        self._spoiler: Held | None = None
        self.exit = Exit()
        self.backlog = Backlog(claim)

    @property
    def running(self) -> Held | None:
        """The job that runs, or is the next to."""
        return self.backlog.jobs[0] if self.backlog.jobs else None

    @property
    def works(self) -> bool:
        """Whether it has said that it is ready, and its pipe stands."""
        return self.state in _WORKS

    @property
    def is_over(self) -> bool:
        """Whether nothing is expected of it any more."""
        return self.state is State.ENDED

    def room(self, hold: int) -> int:
        """How many more jobs may be asked for, where `hold` are to be held."""
        if self.state is not State.READY or self.backlog.fenced_at:
            return 0
        if self._jobs_left is not None:
            hold = min(hold, self._jobs_left)
        return hold - len(self.backlog.jobs)

    def give(self, held: Held) -> bool:
        """A job for it; whether it could be given."""
        if self.state not in _WORKS:
            return False
        held.pid = self.pid
        if self.backlog.add(held):
            self._stream.send(channel.job_frame(held.sequence, held.job))
            if len(self.backlog.jobs) == 1:
                self._stream.flush()  # the process waits for it
        return True

    def pause(self) -> None:
        """Look for its answers when a while is over, rather than be woken by each."""
        self._stream.pause()

    def fence(self, why: str) -> None:
        """Have it start nothing after the job that runs; whether that was in time shows at a later tick.

        `why` is what the log says of jobs that are handed back for it.
        """
        if self.state in _WORKS and (len(self.backlog.jobs) > 1 or self._spoiler is not None):
            self.backlog.fence(why)

    def request_stop(self) -> None:
        """Have its job know that the supervisor wants to stop or to reload."""
        if not self.is_over:
            self.backlog.request_stop()

    def cancel(self, held: Held, by: str) -> None:
        """End the job that runs, as one whose time is over."""
        held.cancelled, held.limit, held.alarm_at = by, 0.0, 0.0
        self.backlog.cancel(held)

    def retire(self) -> None:
        """Let it end: it has nothing left to do, and reads the end of its pipe."""
        self._stream.close()
        self._end_soon()

    def kill(self) -> None:
        """SIGKILL."""
        if self.pid:
            self._forks.kill(self.pid)

    def abandon(self) -> None:
        """Close its pipe, and hear no more of it: its jobs go back to where they came from."""
        self.state = State.ENDED
        self._stream.close()
        self.backlog.close()

    def tick(self, now: float) -> None:
        """What time brings, a few times a second."""
        gone = self._forks.gone
        if gone and self.state in _WORKS:
            self._on_pipe_closed("")  # it may stand yet: whatever the application has forked has a copy of its end
        elif gone or (self.state is State.ENDING and now - self._ending_since > EXIT_REPORT):
            self.kill()
            self.on_exit(None)
        elif self.state in _WORKS and self.backlog.jobs:
            self._progress.pass_on(self.running, now)
            self._watch_running(self.backlog.jobs[0], now)
            self._watch_ahead(self.backlog.jobs[0], now)

    def on_pause(self, seconds: float) -> None:
        """Nobody looked for so long: what it was to be given time for, it still has."""
        self._ending_since += seconds
        if self.running is not None and self.running.told_at:
            self.running.told_at += seconds

    # -- what the fork server says -----------------------------------------------------------------------------------

    def on_forked(self, pid: int) -> None:
        """It was started."""
        self.pid = pid
        if self.came_up:
            self._on_ready()

    def on_refused(self, reason: str) -> None:
        """It could not be started."""
        self.exit.trouble = reason
        self.on_exit(None)

    def on_exit(self, status: int | None) -> None:
        """It is gone: its exit status, negative for a signal, None where nobody knows."""
        if self.is_over:
            return
        pid, self.pid = self.pid, 0
        self._stream.receive()  # what it answered before its end counts
        if self.is_over:
            return  # with that, the slot's work was done
        self._stream.close()
        self.exit.judge(status, came_up=self.came_up)
        self.state = State.ENDED
        reason = self.exit.describe(status, self.running)
        stack = self.backlog.read_stack() if status is not None and status < 0 else ""
        outcome = None
        lost = self.backlog.close()
        if lost is not None and lost.returned:
            lost = None  # it died between looking at the job and at the fence
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
            self._progress.pass_on(self.running, math.inf)
        held = self.backlog.answered(sequence, now)
        if held.cancelled is not None:
            self.backlog.cancel(None)
        if held is self._spoiler:
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
        """Anything but an answer."""
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
        """It is ready, and its fork server has said which process it is: before, nobody could end it."""
        if self.state is State.STARTING:
            self.state = State.READY
            self._owner.on_ready()

    def _may_answer_at_length(self) -> bool:
        return self.running is not None and not can_be_handed_back(self.running.job.payload)

    def _on_foreign(self, error: ProtocolError) -> None:
        """The application wrote to the pipe: what runs is lost, and its process ends. What that did since counts."""
        self.exit.trouble = f"ended: the application has written to file descriptors that are not its own ({error})"
        self._spoiler = self.running
        if self.state is State.STARTING or self.backlog.is_damaged():
            self.kill()
        else:
            self.fence("it lay behind a job that wrote to file descriptors that are not its own")
        self._retire_soon()

    def _on_pipe_closed(self, reason: str) -> None:
        """Its end closed: it is dead, or as good as."""
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
        """The time limit of what runs: SIGALRM, which the process turns into an exception; then SIGKILL."""
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
            # Once more after a while: by its own clock, which began when it did, it may have had time left.
            held.told_at = held.told_at or now
            held.alarm_at = now + ALARM_AGAIN
            self._forks.kill(self.pid, signal.SIGALRM)

    def _watch_ahead(self, running: Held, now: float) -> None:
        """Hand back what lies behind a job that takes long."""
        backlog = self.backlog
        if not backlog.fenced_at:
            if len(backlog.jobs) > 1 and now - backlog.jobs[1].since > AHEAD_MAX:
                self.fence("it waited behind a long job")
        elif backlog.holds_behind(now):
            if running is self._spoiler:
                self.kill()
                return
            for held in backlog.behind():
                self._owner.hand_back(held, backlog.why_fenced)

"""One slot: a connection to each job server, and one worker process. It grabs, gives, and settles what comes back.

A slot runs one job at a time. While its jobs are short it holds others ahead, already in the process's pipe: that
hides the round trips, and many are answered and fetched at once. What has waited ahead for long is handed back to the
job server.
"""

import contextlib
import itertools
import math
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Any, Protocol

from .. import log
from ..errors import BadMessage, ProtocolError
from ..policy import Outcome
from ..settings import Settings
from ..wire import packets
from ..wire.payload import Grabbed, can_be_handed_back, open_payload
from . import channel
from .channel import read_outcome
from .link import Link
from .loop import Stream
from .options import Options
from .pace import Pace
from .posix import resident
from .settle import Held, Settler

AHEAD_MAX = 0.5
"""Seconds that a job may wait ahead, which is far more than it should."""
UNREAD = 4
"""Jobs ahead from which on the process's answers are looked for at intervals, and do not each wake the supervisor."""
GRACE = 5.0
"""Seconds from a job's time limit, when it gets an exception, to SIGKILL."""
LATER = 0.01
"""Seconds that a process may begin its job later than we think."""
ALARM_AGAIN = 1.0
"""Seconds until the next SIGALRM, where a process did not take the one before for its own."""
EXIT_REPORT = 7.0
"""Seconds to wait for the fork server's word on how a process ended: more than its exit functions have."""
RESPAWN_MAX = 10.0
"""Seconds between two starts of a process that dies while it starts, at most."""


class Yard(Protocol):
    """What a slot needs of its supervisor."""

    settings: Settings
    options: Options
    settler: Settler

    def make_links(self, slot: "Slot") -> list[Link]: ...
    def make_stream(
        self, sock: socket.socket, on_data: Callable[[bytes], None], on_close: Callable[[str], None]
    ) -> Stream: ...
    def fork(self, slot: "Slot", pipe: socket.socket, memory: IO[bytes]) -> bool: ...
    def kill(self, pid: int, number: int = signal.SIGKILL) -> None: ...
    def slot_closed(self, slot: "Slot") -> None: ...
    def job_limit(self) -> int | None: ...
    def link_changed(self, link: Link, reason: str) -> None: ...


class Slot:
    """One worker as the job server sees it.

    Args:
        yard: the supervisor.
        number: for people, from 1.
        queues: the Gearman functions it serves.
    """

    def __init__(self, yard: Yard, number: int, queues: Sequence[str]) -> None:
        self._yard = yard
        self.number = number
        self.queues = tuple(queues)
        self.jobs_done = 0
        self.pid = 0
        self.held: deque[Held] = deque()
        """What the process was given, in its order: the first one runs."""
        self.draining = False
        self.closed = False
        self._links = yard.make_links(self)
        self._turn = 0
        self._sequence = 0
        self._pace = Pace()
        self._again: list[Held] = []
        """What is for the process when the fence is away."""
        self._fenced_at = 0.0
        self._stream: Stream | None = None
        self._claim: channel.Claim | None = None
        self._frames = channel.FrameReader()
        self._ready = self._was_ready = False
        self._retiring = False
        self._jobs_of_process = 0
        self._answered = 0
        self._job_limit = yard.job_limit()
        self._start_failures = 0
        self._spawn_at = 0.0
        self._pipe_lost_at = 0.0
        self._pipe_trouble = ""
        self._culprit: Held | None = None
        """The job that wrote to the pipe what is no frame."""
        self._timed_out = False

    @property
    def running(self) -> Held | None:
        """The job that runs, or is the next to."""
        return self.held[0] if self.held else None

    # -- the worker process ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask the fork server for a process, and connect."""
        for link in self._links:
            link.open()
        self._spawn()

    def _spawn(self) -> None:
        self._spawn_at = 0.0
        with contextlib.ExitStack() as for_process, contextlib.ExitStack() as for_us:
            try:
                memory = for_process.enter_context(channel.Claim.make_file())
                claim = for_us.enter_context(contextlib.closing(channel.Claim(memory.fileno())))
                ours, theirs = socket.socketpair()
                for_us.callback(ours.close)
                for_process.callback(theirs.close)
            except OSError as error:
                self._put_off(str(error))
                return
            if not self._yard.fork(self, theirs, memory):
                self._spawn_at = time.monotonic() + 0.5
                return
            for_us.pop_all()
        self._claim = claim
        self._frames = channel.FrameReader()
        self._stream = self._yard.make_stream(ours, self._on_pipe, self._on_pipe_closed)
        self._ready = self._was_ready = self._retiring = False
        self._jobs_of_process = self._answered = 0
        self._fenced_at = 0.0
        self._job_limit = self._yard.job_limit()
        self._pipe_lost_at = 0.0
        self._pipe_trouble = ""
        self._culprit = None
        self.pid = 0

    def on_forked(self, pid: int) -> None:
        """The fork server has started our process."""
        self.pid = pid

    def on_refused(self, reason: str) -> None:
        """The fork server could not start our process."""
        self._pipe_trouble = reason
        self.on_exit(self.pid, None)

    def on_exit(self, pid: int, status: int | None) -> None:
        """A process of ours is gone: its exit status, negative for a signal, None where nobody knows."""
        if pid != self.pid:
            return  # one that was given up before
        self.pid = 0
        if self._stream is not None:
            stream = self._stream
            stream.receive()  # what it answered before its end counts
            stream.close()
        self._stream = None
        claim, self._claim = self._claim, None
        self._ready = False
        self._pipe_lost_at = 0.0
        now = time.monotonic()
        reason = self._why(status, now)
        held = self.running
        if held is not None and claim is not None and claim.started() != self._answered:
            # Anything else that it had was not started, and goes to the next process as it is.
            self.held.popleft()
            if not held.returned:  # else it died between looking at the job and at the fence
                log.write(held.handle, f"worker process {pid} {reason}")
                self._yard.settler.settle(held, Outcome("timeout" if self._timed_out else "lost", reason))
        self._timed_out = False
        if claim is not None:
            claim.close()
        if not self.closed:
            self._respawn(reason)

    def _respawn(self, reason: str) -> None:
        if not self._was_ready:
            self._put_off(reason)
        if self.draining:
            self._drain()
        elif self._was_ready:
            self._start_failures = 0
            self._spawn()

    def _put_off(self, reason: str) -> None:
        """Try again later to start a process."""
        self._start_failures += 1
        log.note(f"slot {self.number}: a worker process did not start: {reason}")
        self._spawn_at = time.monotonic() + min(RESPAWN_MAX, 0.25 * 2.0 ** min(self._start_failures, 10))

    def _why(self, status: int | None, now: float) -> str:
        took = f" after {now - self.running.started:.1f} s" if self.running and self.running.started else ""
        if self._timed_out and self.running is not None:
            return f"timed out{took} and was killed by SIGKILL: it did not end at its time limit"
        if self._pipe_trouble:
            return f"{self._pipe_trouble}{took}"
        if status is None:
            return f"ended{took}, nobody knows how"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            guess = " (out of memory?)" if name == "SIGKILL" else ""
            return f"killed by {name}{guess}{took}"
        return f"exited with code {status}{took}"

    def _on_pipe_closed(self, reason: str) -> None:
        """Its end closed: it is dead, or as good as."""
        self._stream = None
        self._ready = False
        self._pipe_lost_at = time.monotonic()
        self.kill()

    def kill(self) -> None:
        """SIGKILL to our process."""
        if self.pid:
            self._yard.kill(self.pid)

    def _retire(self) -> None:
        """Let the process end after its last job: it reads the end of its pipe."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._ready = False
            self._pipe_lost_at = time.monotonic()

    # -- what the process says ---------------------------------------------------------------------------------------

    def _on_pipe(self, data: bytes) -> None:
        answered = False
        for kind, sequence, payload in self._frames.feed(data):
            try:
                if kind in (channel.DONE, channel.FAILED, channel.SKIPPED):
                    self._on_answer(kind, sequence, payload)
                    answered = True
                elif kind == channel.READY:
                    self._on_ready()
                elif kind == channel.PROGRESS:
                    self._on_progress(sequence, payload)
                elif kind == channel.TRANSLATED:
                    held = self._expect(sequence)
                    held.job, held.trusted = held.job._replace(payload=payload), True
                elif kind == channel.RETIRING:
                    self._retiring = True
                else:
                    raise ProtocolError("bytes that are no frame")
            except ProtocolError as error:
                self._on_rubbish(error)
                answered = True
            if self._stream is None:
                return
        if answered:
            self._pace.advance()
            self._pump()

    def _on_rubbish(self, error: ProtocolError) -> None:
        """The application wrote to the pipe: what runs is lost, and its process ends. What that did since counts."""
        self._pipe_trouble = f"ended: the application has written to file descriptors that are not its own ({error})"
        self._retiring = True
        self._culprit = self.running
        if not self._ready or self._claim is None or self._claim.started() is None:
            self.kill()
        else:
            self._fence()

    def _on_progress(self, sequence: int, payload: bytes) -> None:
        """Pass it on; a thread that a job left behind may report long after, and harms nobody."""
        numbers = [b"%d" % number for number in channel.read_progress(payload)]
        held = self.running
        if held is not None and held.sequence == sequence and held.can_answer:
            held.link.send(packets.pack(packets.WORK_STATUS, held.job.handle, *numbers))

    def _expect(self, sequence: int) -> Held:
        if not self.held or self.held[0].sequence != sequence:
            raise ProtocolError("an answer for a job that does not run")
        return self.held[0]

    def _on_ready(self) -> None:
        self._ready = self._was_ready = True
        waiting = [*self.held, *self._again]
        self.held.clear()
        self._again.clear()
        self._give_all(waiting)
        self._pump()

    def _on_answer(self, kind: int, sequence: int, payload: bytes) -> None:
        held = self._expect(sequence)
        outcome = None
        if kind == channel.FAILED:
            try:
                outcome = read_outcome(payload)
            except ProtocolError as error:
                self._on_rubbish(error)
        now = time.monotonic()
        if held is self._culprit:
            outcome = Outcome("lost", self._why(None, now))
        self._answered = sequence
        self.held.popleft()
        if self.held:
            self.held[0].started = now
        if kind == channel.SKIPPED:
            self._again.append(held)
        else:
            self._count(held, now)
            if held.can_answer:
                held.link.has_work = True  # or so we assume, until it says NO_JOB
            if outcome is None:
                held.complete(payload)
            else:
                self._yard.settler.settle(held, outcome)
        if self._fenced_at and not self.held:
            self._lift_fence()

    def _count(self, held: Held, now: float) -> None:
        self.jobs_done += 1
        self._jobs_of_process += 1
        # Where some can't be handed back, the next may be such a one, and none of those should wait for another.
        self._pace.count(now - held.started if can_be_handed_back(held.job.payload) else math.inf)
        if self._job_limit is not None and self._jobs_of_process >= self._job_limit:
            self._retiring = True

    # -- what the job servers say ------------------------------------------------------------------------------------

    def on_connected(self, link: Link) -> None:
        """A link stands."""
        self._yard.link_changed(link, "")
        self._pump()

    def on_lost(self, link: Link, reason: str) -> None:
        """A link is gone; what it held is in the job server's queue again, if there still is a job server."""
        self._yard.link_changed(link, reason)
        if any(held.link is link for held in itertools.islice(self.held, 1, None)):
            self._fence()
        self._pump()

    def on_work(self, link: Link) -> None:
        """There may be a job."""
        self._pump()

    def on_no_job(self, link: Link) -> None:
        """There is none."""
        self._pace.ran_dry()
        self._pump()

    def on_job(self, link: Link, job: Grabbed) -> None:
        """We have one."""
        if not job.unique:
            job = job._replace(unique=job.handle)
        held = Held(job, link, link.generation, time.time())
        if job.cut:
            self._yard.settler.settle(held, Outcome("refused"))  # too large for a worker to see
        elif not self.draining:
            self._give(held)
        elif can_be_handed_back(job.payload):
            self._yard.settler.hand_back(held)
        # Otherwise it goes back when the link is closed, which comes with the end of what runs.
        self._pump()

    def _give(self, held: Held) -> None:
        now = time.monotonic()
        self._sequence = self._sequence % 255 + 1
        held.sequence, held.since, held.limit = self._sequence, now, None
        held.started = 0.0 if self.held else now
        if self._fenced_at:
            self._again.append(held)
            return
        self.held.append(held)
        if self._ready and self._stream is not None:
            self._stream.send(channel.job_frame(held.sequence, held.job))
            if len(self.held) == 1:
                self._stream.flush()  # the process waits for it

    def _give_all(self, waiting: Sequence[Held]) -> None:
        """Give the process what it has not started, but for what a job server has again: its connection is lost."""
        for held in waiting:
            if not held.returned and held.can_answer:
                self._give(held)

    # -- what to do next ---------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Grab where there is room and may be work; else sleep; where draining, end when nothing is left."""
        if self.draining:
            self._drain()
            return
        if self._retiring and not self.held:
            self._retire()
            return
        held, links = self.held, self._links
        if len(held) > UNREAD and self._stream is not None:
            self._stream.pause()
        room = 0
        if self._ready and not (self._retiring or self._fenced_at):
            room = self._pace.hold if self._yard.options.lookahead else 1
            if self._job_limit is not None:
                room = min(room, self._job_limit - self._jobs_of_process)
            room -= len(held)
            for link in links:
                room -= link.grabs
        if room <= 0 and held and len(links) == 1:
            return  # its one link asks again with the next answer
        for place in range(len(links) if room > 0 else 0):
            link = links[(self._turn + place) % len(links)]
            if link.is_up and link.has_work:
                self._turn += 1
                link.grab(room)
                break
        for link in links:
            # A link whose own job runs asks again with its answer, and needs no waking.
            rests = link.is_up and not (link.has_work or link.is_asleep or link.grabs)
            if rests and not any(each.link is link for each in held):
                link.sleep(time.monotonic())

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and every job server that answers has said that it has nothing."""
        links = [link for link in self._links if link.is_up]
        quiet = not any(link.has_work or link.grabs or link.awaits for link in links)
        return bool(links) and quiet and self._ready and not self.held and not self._again

    def describe(self, now: float) -> dict[str, Any]:
        """What `gearwsgi status` shows of it."""
        held = self.running
        state = "starting" if not self._ready else "busy" if held else "idle" if self._is_up() else "disconnected"
        return {
            "slot": self.number,
            "pid": self.pid,
            "queues": list(self.queues),
            "state": "draining" if self.draining else state,
            "job": held.handle if held is not None else "",
            "age": round(now - held.started, 1) if held is not None and held.started else 0.0,
            "done": self.jobs_done,
            "memory": resident(self.pid),
        }

    def _is_up(self) -> bool:
        return any(link.is_up for link in self._links)

    def drain(self) -> None:
        """Grab no more, finish what runs, hand back what waits, then end."""
        self.draining = True
        self._fence()
        self._pump()

    def _drain(self) -> None:
        started = self.running is not None and self._ready and not self.running.returned
        # A job server that can't send what was asked for hangs up, and does not read the answers that came behind.
        if self.closed or started or any(link.awaits or link.grabs for link in self._links):
            return
        self.stop()

    def stop(self) -> None:
        """End now: jobs that are held go back into the job servers' queues with their connections."""
        self.closed = True
        for link in self._links:
            link.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._yard.slot_closed(self)

    def tick(self, now: float) -> None:
        """What time brings, a few times a second."""
        for link in self._links:
            link.tick(now)
        if self._spawn_at and now >= self._spawn_at and not self.draining:
            self._spawn()
        if self._pipe_lost_at and now - self._pipe_lost_at > EXIT_REPORT:
            self.kill()
            self.on_exit(self.pid, None)
        self._watch_running(now)
        self._watch_ahead(now)
        if self.draining:
            self._drain()

    def _watch_running(self, now: float) -> None:
        """The time limit of what runs: SIGALRM, which the process turns into an exception; then SIGKILL."""
        held = self.running
        if held is None or not self._ready or self._timed_out or not held.started:
            return
        if held.limit is None:
            held.limit = self._time_limit(held)
            held.alarm_at = held.started + held.limit + LATER
        if now > held.started + held.limit + GRACE:
            self._timed_out = True
            self.kill()
        elif now > held.alarm_at and self.pid:
            # Once more after a while: by its own clock, which began when it did, it may have had time left.
            held.alarm_at = now + ALARM_AGAIN
            self._yard.kill(self.pid, signal.SIGALRM)

    def _time_limit(self, held: Held) -> float:
        settings = self._yard.settings
        try:
            return settings.time_limit(open_payload(held.job, settings, time.time(), trusted=True))
        except BadMessage:
            return settings.job_timeout

    def _watch_ahead(self, now: float) -> None:
        """Hand back what lies behind a job that takes long."""
        running = self.running
        if running is None or self._claim is None or not self._ready:
            return
        if not self._fenced_at:
            if len(self.held) > 1 and now - self.held[1].since > AHEAD_MAX:
                self._fence()
        elif now > self._fenced_at and self._claim.started() == running.sequence:
            # Fenced a turn ago and not started: the process will skip them.
            if running is self._culprit:
                self.kill()
                return
            for held in itertools.islice(self.held, 1, None):
                self._hand_back(held)
            for held in self._again:
                self._hand_back(held)

    def _hand_back(self, held: Held) -> None:
        if not held.returned and can_be_handed_back(held.job.payload):
            held.returned = not held.can_answer or self._yard.settler.hand_back(held)

    def _fence(self) -> None:
        """Have the process start nothing after the job that runs; whether that was in time shows at the next tick."""
        needed = len(self.held) > 1 or self._culprit is not None
        if self.held and needed and self._claim is not None and self._ready and not self._fenced_at:
            self._fenced_at = time.monotonic()
            self._claim.fence(self.held[0].sequence)

    def _lift_fence(self) -> None:
        """The process is behind it, and has nothing. It may have what was not handed back."""
        assert self._claim is not None
        self._fenced_at = 0.0
        self._claim.fence(0)
        if not (self.draining or self._retiring):
            again, self._again = self._again, []
            self._give_all(again)

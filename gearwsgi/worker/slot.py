"""A slot is one worker as the job servers see it. It grabs jobs, gives them to its process, and has them settled.

    SERVING  -- drain() --> DRAINING -- nothing is left --> CLOSED
    SERVING, DRAINING -- stop() --> CLOSED

A slot keeps its connections as long as it lives. Its process (see `process`) is replaced from time to time, and for a
while there may be none. A slot runs one job at a time. While its jobs are short it holds others ahead, already in the
process's pipe: that hides the round trips to the job server, and many jobs are answered and fetched at once. Jobs that
have waited ahead for long are handed back to the job server.

A job that was grabbed is in one of these places. It leaves the last one when it is answered to its job server, if its
connection still stands:

    waiting -- a process is ready --> the process's backlog -- answered, or lost with the process --> the settler
                                      the process's backlog -- not started when it ended, or at a fence --> waiting
                                      the process's backlog -- behind a long job --> handed back by the settler

When a connection is lost, its jobs are in the job server's queue again: the one that runs will run once more, the
others are dropped here.
"""

import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from .. import log
from ..errors import BadMessage
from ..message.model import MAX_HEAD, MAX_OWN
from ..policy import Outcome
from ..settings import Settings
from ..wire.payload import TICK, Grabbed, can_be_handed_back, open_payload
from .forks import Forks, NoForkServer
from .held import Held
from .link import Backoff, Connector, Link
from .loop import Loop
from .options import Options
from .pace import Pace
from .posix import resident
from .process import Process, State
from .servers import JobServers
from .session import Profile, Session
from .settle import Settler
from .steering import Steering

if TYPE_CHECKING:  # only imported where it is used: what is off costs no memory
    from .schedule import Schedule
    from .turnstile import Turnstile

UNREAD = 4
"""From so many jobs ahead on, the process's answers are read at intervals, so that not each wakes the supervisor."""
RESPAWN_MAX = 10.0
"""Seconds between two starts of a process that dies while it starts, at most."""
_ENDS = "this worker ends"
_NOT_OURS = "its key is another supervisor's by now"
_STEERED = "a queue was paused, or a task cancelled"
ASK_AGAIN = 0.5
"""Seconds until a fork server is asked again for a process, where there was none to ask."""
GRAB_ANSWER = 5.0
"""Seconds that a slot which is about to end, with nothing else left, waits for the answers to its grabs."""


class Surroundings(NamedTuple):
    """What the slots of one generation have in common.

    Attributes:
        name: the supervisor's name; with the slot's number it is what the job server's `workers` shows.
        settings: the middleware's.
        options: the options of `gearwsgi worker`.
        loop: the supervisor's.
        connector: connects to job servers.
        servers: is told which job servers can be reached.
        settler: settles jobs.
        forks: where processes come from.
        steering: knows what the supervisors are asked to do.
        get_schedule: answers the schedule, which looks at ticks before they run.
        make_turnstile: makes a slot's turnstile, which says when it may ask for a job of a key; None where there are no
            limits.
    """

    name: str
    settings: Settings
    options: Options
    loop: Loop
    connector: Connector
    servers: JobServers
    settler: Settler
    forks: Forks
    steering: Steering
    get_schedule: "Callable[[Settings], Schedule]"
    make_turnstile: "Callable[[Sequence[str]], Turnstile | None]" = lambda queues: None


class SlotState(Enum):
    """The states of a `Slot`: see the module."""

    SERVING = "serving"
    DRAINING = "draining"
    CLOSED = "closed"


class Slot:
    """One worker as the job servers see it.

    Args:
        around: what it has in common with the other slots.
        number: for people, from 1.
        queues: the Gearman functions it serves.

    Attributes:
        state: one of the states that the module shows.
        process: its worker process; None: there is none just now.
        jobs_done: how many jobs were answered.
    """

    def __init__(self, around: Surroundings, number: int, queues: Sequence[str]) -> None:
        self.number = number
        self.queues = tuple(queues)
        self.state = SlotState.SERVING
        self.process: Process | None = None
        self.jobs_done = 0
        self._around = around
        self._profile = Profile(f"{around.name}:{number}", self.queues, self.max_job)
        self._profile.leave_out(around.steering.paused)
        self.links = [
            Link(address, self._profile, around.loop, around.connector, self) for address in around.settings.servers
        ]
        self.pace = Pace()
        self._turn = 0
        self._turnstile = around.make_turnstile(self.queues)
        self._waiting: list[Held] = []
        self._start_again = Backoff(0.25, RESPAWN_MAX)
        self._end_at = 0.0

    @property
    def max_job(self) -> int:
        """Bytes of a job: a little more than a message may have, so that its reader says what is wrong with it."""
        return self._around.settings.max_body + MAX_HEAD + MAX_OWN + 4096

    # -- the worker process ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for a process, and connect as soon as it is known which queues are paused."""
        if self._around.steering.knows:
            self._connect()
        self._start_process()

    def _connect(self) -> None:
        for link in self.links:
            link.open()

    def _start_process(self) -> None:
        around = self._around
        try:
            self.process = Process(self, around.forks, around.loop, around.options.max_jobs)
        except NoForkServer:
            self._start_again.due_at = time.monotonic() + ASK_AGAIN
        except OSError as error:
            self._put_off(str(error))

    def _put_off(self, reason: str) -> None:
        """Try later to start a process again."""
        log.note(f"slot {self.number}: a worker process did not start: {reason}")
        self._start_again.fail()

    def on_ready(self) -> None:
        """Give the process jobs: it is ready for them."""
        self._start_again.failures = 0
        self._give_waiting()
        self.pump()

    def on_grown(self, process: Process) -> None:
        """Log that the process has grown over --max-rss, and ends after this job."""
        limit = self._around.options.max_rss
        most = f"over --max-rss {limit:g}" if limit is not None else "too large"
        log.note(
            f"slot {self.number}: worker process {process.pid} has {resident(process.pid)}, {most}, and is replaced"
        )

    def on_answer(self, held: Held, outcome: Outcome | None, data: bytes, seconds: float) -> None:
        """Settle a job that the process has answered: by its outcome or, if that is None, with WORK_COMPLETE's data."""
        self.jobs_done += 1
        if can_be_handed_back(held.job.payload):
            self.pace.count(seconds)
        else:
            # The next job may be one of these as well, and none of them should wait behind another.
            self.pace.hold_back()
        if held.session.is_open:
            held.session.has_work = True  # or so it is assumed, until the session says NO_JOB
        if outcome is None:
            self._around.settler.complete(held, data)
        else:
            self._around.settler.settle(held, outcome)

    def on_answers(self) -> None:
        """Go on, now that a batch of the process's answers was read."""
        self.pace.advance()
        self.pump()

    def on_not_started(self, jobs: list[Held]) -> None:
        """Take back the jobs that the process was given and did not start."""
        self._waiting += jobs
        if self.state is SlotState.SERVING and self.process is not None and self.process.state is State.READY:
            self._give_waiting()

    def on_end(self, process: Process, reason: str, lost: Held | None, outcome: Outcome | None) -> None:
        """Note that the process has ended, and settle the job that was lost with it, if any, as a failed attempt."""
        self.process = None
        self._around.settler.recorder.exited(process.exit.kind)
        self._waiting = [*process.backlog.jobs, *process.backlog.skipped, *self._waiting]
        if lost is not None and outcome is not None:
            self._around.settler.settle(lost, outcome)
        if not process.came_up:
            self._put_off(reason)
        if self.state is SlotState.DRAINING:
            self._end_if_done()
        elif process.came_up:
            self._start_process()

    def on_running(self, held: Held) -> None:
        """Record that a job has run for a while, or how far it is."""
        self._around.settler.recorder.running(held)

    def time_limit(self, held: Held) -> float:
        """Seconds that a job may run."""
        settings = self._around.settings
        try:
            return settings.time_limit(open_payload(held.job, settings, time.time(), trusted=True))
        except BadMessage:
            return settings.job_timeout

    def hand_back(self, held: Held, why: str) -> None:
        """Hand back a job that was not started, for this reason, so that other workers can have it."""
        if not held.returned and can_be_handed_back(held.job.payload):
            held.returned = not held.session.is_open or self._around.settler.hand_back(held, why)

    def steer(self) -> None:
        """Go by what the supervisors are asked to do now."""
        steering, process = self._around.steering, self.process
        self._profile.leave_out(steering.paused)
        if process is not None:
            if steering.is_set and any(steering.stops(held) for held in process.backlog.behind()):
                process.fence(_STEERED)
            running = process.running
            by = steering.cancels(running) if running is not None and running.cancelled is None else None
            if running is not None and by is not None:
                process.cancel(running, by)
        if self.state is SlotState.SERVING:
            self._connect()
            self._give_waiting()
            self.pump()

    def _is_stopped(self, held: Held) -> bool:
        """Whether a job must not be started, since its task is cancelled or its queue paused; it is answered then."""
        steering, settler = self._around.steering, self._around.settler
        by = steering.cancels(held)
        if by is not None and settler.cancel(held, by):
            return True
        return steering.pauses(held) and can_be_handed_back(held.job.payload) and settler.hand_back(held, _STEERED)

    def _give(self, held: Held) -> None:
        if self._around.steering.is_set and self._is_stopped(held):
            return
        if self.process is None or not self.process.give(held):
            self._waiting.append(held)

    def _give_soon(self, held: Held) -> None:
        """Give the process a job that was looked at before, which may have taken a while."""
        if self.state is SlotState.SERVING and held.session.is_open:
            self._give(held)
        elif held.session.is_open:
            self.hand_back(held, _ENDS)

    def _give_waiting(self) -> None:
        """Give the process the jobs that wait. Those whose connection is lost are dropped: the job server has them."""
        waiting, self._waiting = self._waiting, []
        for held in waiting:
            if not held.returned and held.session.is_open:
                self._give(held)

    # -- what the job servers say ------------------------------------------------------------------------------------

    def on_connected(self, link: Link) -> None:
        """Go on: a link stands."""
        self._around.servers.came(link.address)
        self.pump()

    def on_refused(self, link: Link, reason: str) -> None:
        """Note that a job server does not know the packet by which jobs are asked for."""
        self._around.servers.refused(link.address, reason)

    def on_lost(self, link: Link, reason: str) -> None:
        """Note that a link is lost; its jobs are in the job server's queue again, if there still is a job server."""
        self._around.servers.went(link.address, reason)
        if self.process is not None and not all(held.session.is_open for held in self.process.backlog.behind()):
            self.process.fence("it lay behind one whose connection was lost")
        self.pump()

    def on_no_job(self) -> None:
        """Note that a job server has no job for this slot."""
        if self._turnstile is None or self._turnstile.no_job():
            self.pace.queue_was_empty()

    def on_job(self, session: Session, job: Grabbed) -> None:
        """Take a job that was grabbed: give it to the process, unless it is not to run."""
        if not job.unique:
            job = job._replace(unique=job.handle)
        held = Held(job, session, time.time())
        if self._turnstile is not None and not self._turnstile.may_start() and can_be_handed_back(job.payload):
            self._around.settler.hand_back(held, _NOT_OURS)
        elif job.cut:
            self._around.settler.settle(held, Outcome("refused"))  # too large to be shown to a worker process
        elif self.state is SlotState.SERVING and job.payload.find(TICK, 0, MAX_HEAD) >= 0:
            schedule = self._around.get_schedule(self._around.settings)
            schedule.take(held, self._around.settler, self._give_soon)
        elif self.state is SlotState.SERVING:
            self._give(held)
        elif can_be_handed_back(job.payload):
            self._around.settler.hand_back(held, _ENDS)
        # Otherwise the job goes back when the link is closed, which is soon: when what runs has ended.

    # -- what to do next ---------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Do what is next: grab, where there is room and may be a job; else sleep; draining, end when all is done."""
        if self._turnstile is not None and self._holds_nothing():
            self._turnstile.leave()
        if self.state is not SlotState.SERVING:
            self._end_if_done()
            return
        process, links = self.process, self.links
        jobs: Collection[Held] = ()
        room = 0
        if process is not None:
            jobs = process.backlog.jobs
            if process.state is State.RETIRING and not jobs:
                process.retire()
                return
            if len(jobs) > UNREAD:
                process.pause()
            room = process.room(self.pace.hold if self._around.options.lookahead else 1)
            if self._turnstile is not None and room > 0:
                room = self._room_left(self._turnstile, room, len(jobs))
        for link in links:
            if link.session is not None:
                room -= link.session.grabs
        if room <= 0 and jobs and len(links) == 1:
            return  # the only link: it asks again when the next job is answered
        if room > 0:
            self._grab(room)
        for link in links:
            session = link.session
            # A session whose own job runs asks again when that one is answered, and needs no waking.
            rests = session is not None and not (session.has_work or session.is_asleep or session.grabs)
            if session is not None and rests and not any(held.session is session for held in jobs):
                session.sleep(time.monotonic())

    def _holds_nothing(self) -> bool:
        """Whether it has no job, neither one that runs nor one that may still run."""
        process = self.process
        return not self._waiting and (process is None or not (process.backlog.jobs or process.backlog.skipped))

    def _room_left(self, turnstile: "Turnstile", room: int, held: int) -> int:
        """How many jobs without a key may be asked for, where there is room for `room` of them."""
        sessions = {link.address: link.session for link in self.links if link.session is not None}
        left = turnstile.room(sessions, held, is_free=self._holds_nothing())
        return room if left is None else min(room, left)

    def _grab(self, room: int) -> None:
        """Ask the next job server that may have jobs for `room` of them."""
        for place in range(len(self.links)):
            session = self.links[(self._turn + place) % len(self.links)].session
            if session is not None and session.has_work:
                if session.served is not self._profile.served and not session.adapt():
                    continue
                self._turn += 1
                session.grab(room)
                return

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.state is SlotState.CLOSED

    @property
    def is_up(self) -> bool:
        """Whether its process is there, and was ever ready."""
        return self.process is not None and self.process.works

    @property
    def is_idle(self) -> bool:
        """Whether no job runs, and every job server that can be reached has said that it has none."""
        sessions = self._sessions()
        busy = (each.has_work or each.grabs or each.awaits or each.unanswered for each in sessions)
        quiet = not any(busy)
        process = self.process
        rests = process is not None and process.works and not (process.backlog.jobs or process.backlog.skipped)
        return bool(sessions) and quiet and rests and not self._waiting

    def _sessions(self) -> list[Session]:
        return [link.session for link in self.links if link.session is not None]

    @property
    def condition(self) -> str:
        """What it does just now, as one word: `starting`, `busy`, `idle`, `disconnected`, `draining`."""
        if self.state is not SlotState.SERVING:
            return "draining"
        if self.process is None or not self.is_up:
            return "starting"
        return "busy" if self.process.running is not None else "idle" if self._sessions() else "disconnected"

    def drain(self) -> None:
        """Grab no more, finish the job that runs, hand back those that wait, then end."""
        if self.state is SlotState.SERVING:
            self.state = SlotState.DRAINING
        if self.process is not None:
            self.process.request_stop()
            self.process.fence(_ENDS)
        self.pump()

    def _end_if_done(self) -> None:
        running = self.process.running if self.process is not None else None
        if self.closed or (running is not None and not running.returned):
            return
        if any(session.awaits for session in self._sessions()):
            return
        # A job server that can't send the answer to a grab hangs up without reading what was sent to it meanwhile. So
        # the answers to jobs wait until all grabs are answered.
        silent = [str(link.address) for link in self.links if link.session is not None and link.session.grabs]
        now = time.monotonic()
        self._end_at = self._end_at or now + GRAB_ANSWER
        if not silent or now >= self._end_at:
            if silent:
                log.note(f"slot {self.number}: {', '.join(silent)} has not answered for {GRAB_ANSWER:g} s, and is left")
            self.stop()

    def stop(self) -> None:
        """End now: the jobs that it holds go back into their job servers' queues as it closes its connections."""
        self.state = SlotState.CLOSED
        if self._turnstile is not None:
            self._turnstile.close()
        for link in self.links:
            link.close()
        if self.process is not None:
            self.process.abandon()
            self._around.settler.recorder.exited(self.process.exit.kind)
            self.process = None

    def kill(self) -> None:
        """Send its process SIGKILL."""
        if self.process is not None:
            self.process.kill()

    def on_pause(self, seconds: float) -> None:
        """Do not count as anyone's delay the seconds in which the supervisor did nothing."""
        for link in self.links:
            if link.session is not None:
                link.session.on_pause()
        if self._end_at:
            self._end_at += seconds
        if self.process is not None:
            self.process.on_pause(seconds)

    def tick(self, now: float) -> None:
        """Do what is due by now; called a few times a second."""
        if self._around.steering.knows:
            for link in self.links:
                link.tick(now)
        if self.process is not None:
            self.process.tick(now)
        elif self.state is SlotState.SERVING and now >= self._start_again.due_at:
            self._start_process()
        if self.state is SlotState.DRAINING:
            self._end_if_done()

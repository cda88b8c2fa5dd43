"""One connection of a worker to a job server, from its connect to its loss: which packets are sent and understood.

A session is open until it is lost or closed, and is never opened again. It may be asleep (PRE_SLEEP was sent, NOOP
will wake it) or wait for the answers to its grabs. It decides nothing about jobs.

Only the session that grabbed a job may answer it. The jobs of a lost session are in the job server's queue again. What
may be lost with it are answers on their way (those jobs run again), and the news whether a submitted job was queued.
"""

import math
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ..address import Address
from ..errors import ProtocolError, ServerError
from ..wire import packets
from ..wire.payload import Grabbed
from .loop import Loop, Stream

SLEEP_AGAIN = 1.0
"""Seconds after which an idle worker sends PRE_SLEEP again: gearmand 1.1.20 wakes no worker when a job comes due."""
ECHO_AFTER = 10.0
"""Seconds of silence after which ECHO_REQ asks whether the job server is alive."""
DEAD_AFTER = 25.0
"""Seconds of silence after which it is taken for dead. That is counted from the question: without one, none is."""

_GRAB = packets.pack(packets.GRAB_JOB_UNIQ)
_GRAB_ANSWERS = (packets.JOB_ASSIGN_UNIQ, packets.JOB_TOO_LARGE, packets.NO_JOB)
_OF_NO_INTEREST = (packets.ECHO_RES, packets.WORK_COMPLETE, packets.WORK_FAIL)
"""Answers that change nothing: to ECHO_REQ, and to responses that were submitted for somebody who waits for them."""
_SLEEP = packets.pack(packets.PRE_SLEEP)
_ECHO = packets.pack(packets.ECHO_REQ, b"gearwsgi")


class Owner(Protocol):
    """The slot, as far as a session needs it."""

    def on_job(self, session: "Session", job: Grabbed) -> None: ...
    def on_no_job(self) -> None: ...
    def pump(self) -> None: ...


class Keeper(Protocol):
    """The link, as far as a session needs it."""

    @property
    def address(self) -> Address: ...
    def refused(self, reason: str) -> None: ...
    def lost(self, reason: str) -> None: ...


class Profile:
    """What a worker tells each job server about itself.

    Args:
        name: shown by the job server's `workers`.
        queues: the functions that it serves; jobs of the first one are taken first.
        max_job: bytes that a job may have.

    Attributes:
        functions: all functions of `queues`.
        served: those of which jobs are taken just now; the set is replaced and never changed.
    """

    def __init__(self, name: str, queues: Sequence[str], max_job: int) -> None:
        self.max_job = max_job
        self._name = name
        self._order = [queue.encode() for queue in queues]
        self.functions = self.served = frozenset(self._order)

    def leave_out(self, paused: frozenset[bytes]) -> None:
        """Take no jobs of these queues, which are paused."""
        served = self.functions - paused
        if served != self.served:
            self.served = served

    def introduce(self) -> bytes:
        """The packets that a job server is sent first."""
        return packets.pack(packets.SET_CLIENT_ID, self._name.encode()) + self._abilities()

    def change(self, before: frozenset[bytes]) -> bytes:
        """The packets for a job server that still has `before`: the functions served now."""
        return b"".join([packets.pack(packets.CANT_DO, each) for each in sorted(before)]) + self._abilities()

    @staticmethod
    def change_to(function: bytes, before: frozenset[bytes]) -> bytes:
        """The packets for a job server that still has `before`: this function, and no other."""
        left = [packets.pack(packets.CANT_DO, each) for each in sorted(before - {function})]
        return b"".join(left) + (b"" if function in before else packets.pack(packets.CAN_DO, function))

    def _abilities(self) -> bytes:
        # Jobs of the function that was added last are taken first by gearmand.
        return b"".join([packets.pack(packets.CAN_DO, each) for each in reversed(self._order) if each in self.served])


class Session:
    """One connection of a link, from its connect to its loss.

    Args:
        sock: a connected socket.
        link: the link that it belongs to.
        owner: the slot.
        profile: what the job server is told.
        loop: the supervisor's.

    Attributes:
        is_open: whether it is connected, so that it may answer for the jobs that it grabbed.
        is_asleep: whether the job server was asked to wake this worker.
        has_work: whether a grab may find a job.
        grabs: how many grabs are not answered yet.
        unanswered: how many jobs it has grabbed and not answered yet.
        served: the functions that the job server was last told.
    """

    def __init__(self, sock: socket.socket, link: Keeper, owner: Owner, profile: Profile, loop: Loop) -> None:
        self._link = link
        self._owner = owner
        self._profile = profile
        self._packets = packets.PacketReader(profile.max_job)
        self._created: deque[Callable[[str, ServerError | None], None]] = deque()
        self._slept_at = 0.0
        self._heard_at = time.monotonic()
        self._asked_at = 0.0
        self.is_open = True
        self.is_asleep = False
        self.has_work = True
        self.grabs = 0
        self.unanswered = 0
        self.served = profile.served
        self._stream = Stream(sock, loop, self._on_data, self._lost)
        self._stream.send(profile.introduce())

    @property
    def server(self) -> str:
        """The job server's name."""
        return str(self._link.address)

    @property
    def awaits(self) -> int:
        """How many submitted jobs the job server has not confirmed yet."""
        return len(self._created)

    def adapt(self) -> bool:
        """Tell the job server of which functions jobs are taken, if that has changed; whether it may be asked now.

        It is told only while no job is held: if a worker can no longer do a function, gearmand queues its jobs again.
        """
        profile = self._profile
        if self.served is not profile.served:
            if self.grabs or self.unanswered or not self.is_open:
                return False
            self._stream.send(profile.change(self.served))
            self.served = profile.served
            self.is_asleep, self.has_work = False, True
        return True

    def grab_of(self, function: bytes) -> None:
        """Ask for one job, of this function alone; only while no job is held or asked for. `adapt` ends that."""
        self.send(self._profile.change_to(function, self.served))
        self.served = frozenset((function,))
        self.grab(1)

    def grab(self, count: int) -> None:
        """Ask for so many jobs."""
        self.grabs += count
        self.is_asleep = False
        self._stream.send(_GRAB * count)

    def sleep(self, now: float) -> None:
        """Ask to be woken when there is a job."""
        self.is_asleep = True
        self._slept_at = now
        self._stream.send(_SLEEP)

    def send(self, data: bytes) -> None:
        """Send packets."""
        self._stream.send(data)

    def submit(self, packet: bytes, then: Callable[[str, ServerError | None], None]) -> None:
        """Submit a job; `then` gets its handle, or the error that the job server answered.

        Where the connection is lost before the answer, the error is CONNECTION_LOST: whether it was queued is not
        known.
        """
        self._created.append(then)
        self._stream.send(packet)

    def close(self) -> None:
        """Send what is written, and close it."""
        self._stream.flush()
        self._end()

    def tick(self, now: float) -> None:
        """Do what is due by now: send PRE_SLEEP again, or find out whether the job server is alive."""
        silent = now - self._heard_at
        if self._asked_at:
            if now - self._asked_at > DEAD_AFTER - ECHO_AFTER:
                self._lost(f"no answer for {silent:.0f} s")
                return
        elif silent > ECHO_AFTER:
            self._ask(now)
        if self.served is not self._profile.served and self.adapt():
            self._owner.pump()
        if self.is_asleep and now - self._slept_at >= SLEEP_AGAIN:
            self.sleep(now)

    def on_pause(self) -> None:
        """Ask again whether the job server is alive: nobody has listened for a while, so its answer may be unread."""
        if self._asked_at:
            self._ask(time.monotonic())

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._stream.send(_ECHO)

    def _on_data(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        self._asked_at = 0.0
        for kind, parameters in self._packets.feed(data):
            self._on_packet(kind, parameters)
            if not self.is_open:
                return
        self._owner.pump()

    def _on_packet(self, kind: int, parameters: list[bytes]) -> None:
        if kind in _GRAB_ANSWERS:
            if not self.grabs:
                # How many jobs such a server would hand out, and have us hold, nobody could say.
                raise ProtocolError(f"packet {kind} that answers no grab")
            self.grabs -= 1
            self.has_work = kind != packets.NO_JOB
            if not self.has_work:
                self._owner.on_no_job()
                return
            handle, function, unique, payload, *size = parameters
            if function not in self._profile.functions and function not in self.served:
                raise ProtocolError(f"a job of queue {function!r}, which nobody asked for")
            self.unanswered += 1
            self._owner.on_job(self, Grabbed(handle, function, unique, payload, int(size[0]) if size else 0))
        elif kind == packets.NOOP:
            self.is_asleep = False
            self.has_work = True
        elif kind == packets.JOB_CREATED:
            if not self._created:
                raise ProtocolError("a JOB_CREATED that answers nothing")
            self._created.popleft()(parameters[0].decode("utf-8", "replace"), None)
        elif kind == packets.ERROR:
            error = packets.parse_error(parameters, str(self._link.address))
            # JOB_NOT_FOUND is about a job that was answered. Any other error is about a submit, or an unknown grab.
            if error.code != "JOB_NOT_FOUND" and self._created:
                self._created.popleft()("", error)
            elif error.code != "JOB_NOT_FOUND" and self.grabs:
                self.grabs -= 1
                # Ask it for nothing more, not even to be woken: it would answer with an error without end.
                self.has_work, self.is_asleep, self._slept_at = False, True, math.inf
                self._link.refused(str(error))
        elif kind not in _OF_NO_INTEREST:
            raise ProtocolError(f"packet {kind} has no place here")

    def _lost(self, reason: str) -> None:
        if not self.is_open:
            return
        unanswered = list(self._created)
        self._end()
        for then in unanswered:
            then("", ServerError("CONNECTION_LOST", reason, str(self._link.address)))
        self._link.lost(reason)

    def _end(self) -> None:
        self.is_open = self.is_asleep = self.has_work = False
        self.grabs = 0
        self._created.clear()
        self._stream.close()

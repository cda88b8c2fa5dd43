"""Jobs held ahead, against every order of events: a real slot between a job server and a process that a rule moves on.

Nothing is lost, and nothing runs more often than its deaths, its failures and its lost connections explain.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from unittest import mock

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gearwsgi import log
from gearwsgi.address import Address
from gearwsgi.message.model import Message
from gearwsgi.policy import Outcome
from gearwsgi.settings import read_settings
from gearwsgi.wire import packets
from gearwsgi.wire.payload import Grabbed
from gearwsgi.worker import channel, link, loop, pace
from gearwsgi.worker import process as worker
from gearwsgi.worker import slot as slots
from gearwsgi.worker.forks import Forked
from gearwsgi.worker.options import Options
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.settle import Settler
from gearwsgi.worker.site import JobServers
from gearwsgi.worker.slot import Slot, Surroundings
from gearwsgi.worker.steering import Steering
from tests.support import Bench, until

HEADER = struct.Struct("!4sII")
SUBMITS = {packets.SUBMIT_BACKGROUND["normal"], packets.SUBMIT_JOB_EPOCH}


def number(payload: bytes) -> int:
    """Which task a payload is."""
    found = re.search(rb'"n": ?(\d+)', payload)
    assert found is not None, payload
    return int(found[1])


class JobServer:
    """One connection's worth of a job server, moved on by `serve`: it loses a job only by an answer to it."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.given: dict[bytes, bytes] = {}
        self._peer: socket.socket | None = None
        self._handles = 0
        self._then: Callable[[socket.socket | None, str], None] | None = None
        self._buffer = b""
        self._asleep = False

    def connect(self, address: Address, then: Callable[[socket.socket | None, str], None]) -> None:
        """As a Connector does it; the connection stands at the next `serve`."""
        self._then = then

    @property
    def connected(self) -> bool:
        return self._peer is not None

    def hang_up(self) -> list[bytes]:
        """Lose the connection; the payloads that go back into the queue."""
        lost = list(self.given.values())
        self.waiting.extend(lost)
        self.given.clear()
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        return lost

    def serve(self) -> None:
        """Take what came and answer it."""
        if self._then is not None:
            then, self._then = self._then, None
            ours, self._peer = socket.socketpair()
            self._peer.setblocking(False)
            self._buffer, self._asleep = b"", False
            then(ours, "")
        if self._peer is None:
            return
        try:
            listens = self._converse(self._peer)
        except ConnectionError:
            listens = False
        if not listens:
            self.hang_up()

    def _converse(self, peer: socket.socket) -> bool:
        """Take what came and answer it; whether the other side still listens."""
        try:
            data = peer.recv(1 << 20)
        except BlockingIOError:
            data = b""
        else:
            if not data:
                return False
        self._buffer += data
        while len(self._buffer) >= 12 and len(self._buffer) >= 12 + HEADER.unpack_from(self._buffer)[2]:
            _, kind, size = HEADER.unpack_from(self._buffer)
            body, self._buffer = self._buffer[12 : 12 + size], self._buffer[12 + size :]
            # As gearmand does it: where an answer can't be sent, what came behind its question is not read.
            if answer := self._answer(kind, body):
                peer.sendall(answer)
        if self._asleep and self.waiting:
            self._asleep = False
            peer.sendall(self._packet(packets.NOOP))
        return True

    def _answer(self, kind: int, body: bytes) -> bytes:
        if kind == packets.GRAB_JOB_UNIQ:
            if not self.waiting:
                return self._packet(packets.NO_JOB)
            handle, payload = self._handle(), self.waiting.popleft()
            self.given[handle] = payload
            return self._packet(packets.JOB_ASSIGN_UNIQ, handle, b"job", b"u" + handle, payload)
        if kind in (packets.WORK_COMPLETE, packets.WORK_FAIL):
            assert self.given.pop(body.partition(b"\0")[0], None) is not None, "answered twice, or never given"
        elif kind in SUBMITS:
            self.waiting.append(body.split(b"\0", 3 if kind == packets.SUBMIT_JOB_EPOCH else 2)[-1])
            return self._packet(packets.JOB_CREATED, self._handle())
        elif kind == packets.PRE_SLEEP:
            self._asleep = True
        else:
            assert kind in (packets.CAN_DO, packets.SET_CLIENT_ID), kind
        return b""

    def _handle(self) -> bytes:
        self._handles += 1
        return b"H:model:%d" % self._handles

    @staticmethod
    def _packet(kind: int, *fields: bytes) -> bytes:
        body = b"\0".join(fields)
        return HEADER.pack(b"\0RES", kind, len(body)) + body


class Process:
    """A worker process that does one small step when it is told to."""

    def __init__(self, pipe: socket.socket, memory: IO[bytes]) -> None:
        self._pipe = pipe
        self._pipe.setblocking(False)
        self._reader = channel.FrameReader()
        self._claim = channel.Claim(memory.fileno())
        self._inbox: deque[tuple[int, Grabbed]] = deque()
        self.taken: tuple[int, Grabbed] | None = None
        self.running: tuple[int, Grabbed] | None = None
        self.has_scribbled = False
        self.ended = False
        self.send(channel.frame(channel.READY, 0))

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._pipe.sendall(frame)

    def step(self) -> Grabbed | None:
        """The next of: take what came, mark a job as started, look for the fence. A job that was begun thereby."""
        try:
            data = self._pipe.recv(1 << 20)
            self.ended = not data
            self._inbox.extend((sequence, channel.read_job(each)) for _, sequence, each in self._reader.feed(data))
        except BlockingIOError:
            pass
        except ConnectionError:
            self.ended = True
        if self.running is not None:
            return None
        if self.taken is None:
            if self._inbox:
                self.taken = self._inbox.popleft()
                self._claim._bytes[1:3] = bytes([self.taken[0], 255 - self.taken[0]])
            return None
        (sequence, job), self.taken = self.taken, None
        if not self._claim.start(sequence):
            self.send(channel.frame(channel.SKIPPED, sequence))
            return None
        self.running, self.has_scribbled = (sequence, job), False
        return job

    def scribble(self, data: bytes, memory: bool) -> None:
        """What an application does that writes to descriptors that are not its own."""
        self.has_scribbled = True
        self.send(data)
        if memory:
            self._claim._bytes[: len(data)] = data

    def notices(self) -> bool:
        """Whether it finds rubbish in its memory, once its job is done."""
        assert self.running is not None
        return self._claim.started() != self.running[0]

    def close(self) -> None:
        self._pipe.close()
        self._claim.close()


class Forks:
    """Where the slot's processes come from: one at a time."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.killed = False
        self.gone = False

    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None:
        self.process = Process(pipe.dup(), memory)
        self.killed = False

    def kill(self, pid: int, number: int = 9) -> None:
        self.killed = True


class Ahead(RuleBasedStateMachine):
    """Rules move each side by a step; `runs` may not exceed what `allowed` explains, and exceeds `spoilt`."""

    max_jobs: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gearwsgi-"))
        self.null = os.open(os.devnull, os.O_WRONLY)
        self.patches = [
            mock.patch.object(loop, "PAUSE", 0.0),
            mock.patch.object(worker, "AHEAD_MAX", 0.0),
            mock.patch.object(slots, "RESPAWN_MAX", 0.0),
            mock.patch.object(link, "RECONNECT_MAX", 0.0),
            mock.patch.object(pace, "SHORT", 60.0),
            mock.patch.object(pace, "AHEAD", 1e6),
            mock.patch.object(pace, "MAX_AHEAD", 12),
            mock.patch.object(log, "_fd", self.null),
        ]
        for patch in self.patches:
            patch.start()
        self.server = JobServer()
        self.forks = Forks()
        self.loop = loop.Loop()
        settings = read_settings({"state_dir": self.folder, "max_attempts": 1000, "servers": "localhost"}, {})
        connector: Any = self.server
        no_ticks: Any = None
        around = Surroundings(
            name="x",
            settings=settings,
            options=Options("no:application", max_jobs=self.max_jobs),
            loop=self.loop,
            connector=connector,
            servers=JobServers(),
            settler=Settler(settings, Recorder()),
            forks=self.forks,
            steering=Steering(Recorder()),
            get_schedule=no_ticks,
        )
        self.slot = Slot(around, 1, ["job"])
        self.count = self.pid = 0
        self.exits: list[int] = []
        self.runs: Counter[int] = Counter()
        self.allowed: Counter[int] = Counter()
        self.spoilt: Counter[int] = Counter()
        self.slot.start()
        self.start_process()
        # As after a while of short jobs.
        for _ in range(20):
            self.slot.pace.count(0.001)

    def start_process(self) -> None:
        self.pid += 1
        assert self.slot.process is not None
        self.slot.process.on_forked(self.pid)

    def held(self) -> int:
        """How many jobs the slot's process has."""
        return len(self.slot.process.backlog.jobs) if self.slot.process is not None else 0

    def exit(self, status: int) -> None:
        """The process ends; the fork server says so when it is asked next."""
        process, self.forks.process = self.forks.process, None
        assert process is not None
        process.close()
        self.exits.append(status)

    @rule()
    def reap(self) -> None:
        if self.forks.killed and self.forks.process is not None:
            self.exit(-9)
        if self.exits:
            status = self.exits.pop()
            if self.slot.process is not None:
                self.slot.process.on_exit(status)
            self.settle()

    def settle(self) -> None:
        """Start what is to be started."""
        if self.forks.process is None and not self.exits and not self.slot.closed:
            self.slot.tick(time.monotonic())
        if self.forks.process is not None and self.slot.process is not None and not self.slot.process.pid:
            self.start_process()

    @rule(count=st.integers(1, 12), plain=st.booleans())
    def queue(self, count: int, plain: bool) -> None:
        for _ in range(count):
            body = json.dumps({"service": "/job", "n": self.count}).encode()
            if not plain:
                task = Message("POST", path="/job", body=body)
                task.id, task.service, task.max_attempts = f"{self.count:032x}", "/job", 1000
                body = task.to_bytes()
            self.server.waiting.append(body)
            self.allowed[self.count] += 1
            self.count += 1

    @rule()
    def serve(self) -> None:
        self.server.serve()

    @rule()
    def turn(self) -> None:
        self.loop.turn(0.0)

    @rule(times=st.integers(1, 3))
    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.slot.tick(time.monotonic())
        self.settle()

    @rule(times=st.integers(1, 4))
    def step(self, times: int) -> None:
        for _ in range(times):
            process = self.forks.process
            if process is None:
                return
            job = process.step()
            if job is not None:
                self.runs[number(job.payload)] += 1
            elif process.ended and process.running is None and process.taken is None:
                self.exit(0)

    @rule(how=st.sampled_from(["done", "done", "done", "failed"]))
    def finish(self, how: str) -> None:
        process = self.forks.process
        if process is None or process.running is None:
            return
        if process.notices():
            self.exit(70)
            return
        (sequence, job), process.running = process.running, None
        if how == "done":
            process.send(channel.frame(channel.DONE, sequence, b"x"))
        else:
            self.allowed[number(job.payload)] += 1
            process.send(channel.failed_frame(sequence, Outcome("exception", "on purpose", retry_in=0.0)))

    @rule(times=st.integers(1, 30))
    def work(self, times: int) -> None:
        """A calm while."""
        for _ in range(times):
            self.serve()
            self.turn()
            self.reap()
            self.step(2)
            self.finish("done")

    @rule()
    def die(self) -> None:
        process = self.forks.process
        if process is None:
            return
        for held in (process.taken, process.running):
            if held is not None:
                self.allowed[number(held[1].payload)] += 1
        self.exit(-9)

    @rule(
        data=st.sampled_from([b"r", b"rubbish" * 100, b"\xfegw", b"\0" * 20, b"uWu"]),
        memory=st.booleans(),
        times=st.integers(1, 3),
    )
    def scribble(self, data: bytes, memory: bool, times: int) -> None:
        """A job does, or several one after the other."""
        for time_ in range(times):
            if time_:
                self.finish("done")
                self.step(3)
            process = self.forks.process
            if process is None or process.running is None:
                return
            if not process.has_scribbled:
                task = number(process.running[1].payload)
                self.allowed[task] += 1
                self.spoilt[task] += 1
            process.scribble(data, memory)

    @rule()
    def lose_connection(self) -> None:
        for payload in self.server.hang_up():
            self.allowed[number(payload)] += 1

    @invariant()
    def runs_are_explained(self) -> None:
        for task, runs in self.runs.items():
            assert runs <= self.allowed[task], task

    def drain(self) -> None:
        """As TERM does it: what the job server has then is for others, and nothing is missing."""
        self.slot.drain()
        for turn in range(2000):
            if self.slot.closed:
                break
            if (turn + 1) % (1 + self.count % 7) == 0:  # the job server may be slow
                self.serve()
            self.turn()
            self.reap()
            self.step(2)
            self.finish("done")
            if (turn + 1) % (1 + self.count % 11) == 0:
                self.tick()
        assert self.slot.closed
        while self.server.connected:
            self.server.serve()  # to the end of the connection
        for task in range(self.count):
            queued = sum(number(payload) == task for payload in self.server.waiting)
            assert self.runs[task] or queued, f"{task} is lost"
            assert self.runs[task] + queued <= self.allowed[task], f"{task} would run too often"

    def teardown(self) -> None:
        try:
            if self.count % 2:
                self.drain()
            else:
                for _ in range(60 * (self.count + 10)):
                    if not (self.server.waiting or self.server.given or list(self.folder.glob("outbox/*"))):
                        break
                    self.work(3)
                    self.tick()
                assert not list(self.folder.glob("dead/*.http"))
                assert all(self.runs[task] > self.spoilt[task] for task in range(self.count)), "taken for done"
            self.runs_are_explained()
        finally:
            for patch in self.patches:
                patch.stop()
            if not self.slot.closed:
                self.slot.stop()
            if self.forks.process is not None:
                self.forks.process.close()
            self.server.hang_up()
            self.loop.close()
            os.close(self.null)
            shutil.rmtree(self.folder)


class AheadAndReplaced(Ahead):
    """The same with processes that are replaced after a few jobs."""

    max_jobs = 7


# `pytest --hypothesis-profile=many` tries far more, and any test of this kind that sets no number of its own.
_many = hypothesis_settings(max_examples=hypothesis_settings().max_examples * 2 // 5, stateful_step_count=80)
TestAhead = Ahead.TestCase
TestAhead.settings = _many
TestAheadAndReplaced = AheadAndReplaced.TestCase
TestAheadAndReplaced.settings = _many


def test_jobs_that_write_to_the_pipe_one_after_the_other_are_all_told() -> None:
    machine = Ahead()
    try:
        machine.queue(40, plain=False)
        while machine.held() < 4:
            machine.work(1)
        while machine.forks.process is not None and machine.forks.process.running is None:
            machine.step(1)
        machine.scribble(b"rubbish" * 100, memory=False, times=3)
        assert machine.spoilt.total() == 3
    finally:
        machine.teardown()


def test_a_drain_waits_for_what_was_asked_for() -> None:
    machine = Ahead()
    try:
        machine.queue(97, plain=False)
        while machine.held() < 2 or not any(
            link.session is not None and link.session.grabs for link in machine.slot.links
        ):
            machine.work(1)
    finally:
        machine.teardown()  # drains: an odd number


def test_short_jobs_are_taken_many_at_a_time_and_each_runs_once(site: Bench) -> None:
    gearman = site.app().gearman
    for n in range(3000):
        gearman.task("/good", {"n": n})
    site.worker("--workers", "2", "--log-level", "warning")
    until(lambda: len(site.lines()) >= 3000)
    until(lambda: site.server.queued() == 0)
    assert site.runs() == {f"good {n} 1": 1 for n in range(3000)}

"""What one task() and one job may cost: counted, not timed, so that no slow machine can fail it.

Counted are the Python functions entered, and the calls of C functions that are a system call. The ceilings leave room
for other versions of Python. Raise one only for something that is worth its microseconds to every task and every job.
"""

import contextlib
import io
import json
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from gearwsgi import GearmanMiddleware, log
from gearwsgi.message.model import Message
from gearwsgi.state.records.pending import Pending
from gearwsgi.state.records.writer import Writer
from gearwsgi.telemetry import tracing
from gearwsgi.telemetry.collector import State
from gearwsgi.wire.payload import Grabbed
from gearwsgi.worker import channel
from gearwsgi.worker.child import Child
from gearwsgi.worker.counting import Counting
from gearwsgi.worker.forks import Forked
from gearwsgi.worker.held import Held
from gearwsgi.worker.link import Connector
from gearwsgi.worker.loop import Loop
from gearwsgi.worker.options import Options
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.recording import Recording
from gearwsgi.worker.settle import Settler
from gearwsgi.worker.site import JobServers
from gearwsgi.worker.slot import Slot, Surroundings
from gearwsgi.worker.steering import Steering

N = 50
HEADER = struct.Struct("!4sII")
NO_JOB, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ, SUBMIT_JOB_BG, JOB_CREATED, NOOP, PRE_SLEEP = 10, 30, 31, 18, 8, 6, 4

# What Python calls the functions that enter the kernel, on sockets, pollers and files.
SYSTEM = frozenset({
    "send", "sendall", "sendmsg", "recv", "recv_into", "recvmsg", "poll", "select", "register", "unregister", "modify",
    "write", "read", "fsync", "open", "close", "stat", "setsockopt", "connect", "urandom", "kill",
})  # fmt: skip
IN_MEMORY = (io.BytesIO, io.StringIO, mmap.mmap, bytes, str, list, dict)


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an application without OpenTelemetry, whatever another test has imported into this process."""
    monkeypatch.delitem(sys.modules, tracing.MODULE, raising=False)


class Counts(Counter[str]):
    """System calls by name, and Python functions entered, of the thread that was watched."""

    python = 0


@contextmanager
def counted() -> Iterator[Counts]:
    counts = Counts()

    def seen(_frame: object, event: str, argument: Any) -> None:
        if event == "call":
            counts.python += 1
        elif event == "c_call" and argument.__name__ in SYSTEM and not isinstance(argument.__self__, IN_MEMORY):
            counts[argument.__name__] += 1

    sys.setprofile(seen)
    try:
        yield counts
    finally:
        sys.setprofile(None)


class FakeJobServer:
    """Just enough of one, in a thread: it takes every job, and hands out those that it was given."""

    def __init__(self, payloads: Iterable[bytes] = ()) -> None:
        self._payloads = list(payloads)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        peer, _ = self._listener.accept()
        with peer, contextlib.suppress(OSError):  # who is served may hang up at any time
            self._serve(peer)

    def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = b""
        while data := peer.recv(65536):
            buffer += data
            answers = []
            while len(buffer) >= 12 and len(buffer) >= 12 + (size := HEADER.unpack_from(buffer)[2]):
                answers.append(self._answer(HEADER.unpack_from(buffer)[1]))
                buffer = buffer[12 + size :]
            if any(answers):
                peer.sendall(b"".join(answers))

    def _answer(self, kind: int) -> bytes:
        if kind == SUBMIT_JOB_BG:
            return self._packet(JOB_CREATED, b"H:fake:1")
        if kind == GRAB_JOB_UNIQ and self._payloads:
            number = len(self._payloads)
            return self._packet(JOB_ASSIGN_UNIQ, b"H:fake:%d" % number, b"job", b"u%d" % number, self._payloads.pop())
        return self._packet(NO_JOB) if kind == GRAB_JOB_UNIQ else b""

    @staticmethod
    def _packet(kind: int, *fields: bytes) -> bytes:
        body = b"\0".join(fields)
        return HEADER.pack(b"\0RES", kind, len(body)) + body

    def stop(self) -> None:
        self._listener.close()
        self._thread.join(10)


def handler(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


def middleware(server: str, state_dir: Path) -> GearmanMiddleware:
    return GearmanMiddleware(handler, servers=server, state_dir=state_dir)


def message() -> bytes:
    """A message as `task()` writes it."""
    headers = [("User-Agent", "gearwsgi/1"), ("Content-Type", "application/json"), ("Idempotency-Key", "a" * 32)]
    written = Message("POST", headers=tuple(headers), path="/job", body=json.dumps({"n": 1}).encode())
    written.id, written.service, written.max_attempts, written.queued = "a" * 32, "/job", 5, 1.79e9
    return written.to_bytes()


def show(what: str, counts: Counts, n: int = N) -> str:
    calls = ", ".join(f"{name} {count / n:.2f}" for name, count in counts.most_common())
    return f"{what}: {counts.python / n:.1f} Python calls, {counts.total() / n:.2f} system calls ({calls})"


def test_what_a_task_costs(tmp_path: Path) -> None:
    server = FakeJobServer()
    application = middleware(server.address, tmp_path)
    gearman = application.gearman
    try:
        gearman.task("/job", {"n": 0})  # connects
        with counted() as counts:
            for number in range(N):
                gearman.task("/job", {"n": number})
    finally:
        application.client.close()
        server.stop()
    said = show("task()", counts)
    print(said)
    # The random id, a look whether the connection still stands, send, wait, receive.
    assert counts.total() <= 5 * N, said
    assert counts.python <= 60 * N, said


def test_what_a_request_that_queues_nothing_costs(tmp_path: Path) -> None:
    application = middleware("127.0.0.1:1", tmp_path)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "localhost", "wsgi.url_scheme": "http"}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        pass

    with counted() as counts:
        for _ in range(N):
            application(environ.copy(), start_response)
    said = show("a request", counts)
    print(said)
    assert counts.total() == 0, said
    assert counts.python <= 7 * N, said


def test_what_a_job_costs_its_worker_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    application = middleware("127.0.0.1:1", tmp_path)
    logged, log_end = os.pipe()
    monkeypatch.setattr(log, "_fd", log_end)
    supervisor, pipe = socket.socketpair()
    with channel.Claim.make_file() as memory:
        claim = channel.Claim(memory.fileno())
    child = Child(application, application.settings, pipe, claim, log.LogStream(), max_rss=None, verbose=True)
    for number in range(N):
        supervisor.sendall(channel.job_frame(number + 1, Grabbed(b"H:fake:1", b"job", b"u", message())))
    supervisor.shutdown(socket.SHUT_WR)
    with counted() as counts:
        child.run()  # until the end of its pipe
    answered = [kind for kind, _, _ in channel.FrameReader().feed(supervisor.recv(1 << 20))]
    for each in (supervisor, pipe):
        each.close()
    for descriptor in (logged, log_end):
        os.close(descriptor)
    said = show("a job in the worker process", counts)
    print(said)
    assert answered.count(channel.DONE) == N
    # The answer and two lines of the log; jobs came in a few reads, where each has one of its own otherwise.
    assert counts.total() <= 4 * N, said
    assert counts.python <= 57 * N, said


class Forks:
    """Worker processes that are threads, and answer at once."""

    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None:
        process.on_forked(1)
        threading.Thread(target=self._work, args=(pipe.dup(),), daemon=True).start()

    @staticmethod
    def _work(pipe: socket.socket) -> None:
        reader = channel.FrameReader()
        with pipe, contextlib.suppress(ConnectionError):  # the slot may end at any time
            pipe.sendall(channel.frame(channel.READY, 0))
            while data := pipe.recv(65536):
                for _kind, sequence, _payload in reader.feed(data):
                    pipe.sendall(channel.frame(channel.DONE, sequence, b"done"))

    def kill(self, pid: int, number: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("lookahead", "system_calls", "python_calls"),
    # One at a time: a read and a write each for the job server and the process, and a wait before each read.
    # Many at a time: at most that, however few jobs a busy machine lets it hold ahead.
    [(False, 6, 53), (True, 7, 53)],
)
def test_what_a_job_costs_the_supervisor(tmp_path: Path, lookahead: bool, system_calls: int, python_calls: int) -> None:
    server = FakeJobServer([message()] * (N + 100))
    settings, loop = middleware(server.address, tmp_path).settings, Loop()
    connector = Connector(loop, 5)
    options = Options("no:application", lookahead=lookahead)
    no_ticks: Any = None
    around = Surroundings(
        "x",
        settings,
        options,
        loop,
        connector,
        JobServers(),
        Settler(settings, Recorder()),
        Forks(),
        Steering(Recorder()),
        no_ticks,
    )
    slot = Slot(around, 1, ["job"])
    slot.start()

    def work(until: int) -> None:
        patience = time.monotonic() + 20
        while slot.jobs_done < until:
            loop.turn(patience)
            assert time.monotonic() < patience, "nothing happened for 20 s"

    try:
        work(20)
        began = slot.jobs_done
        with counted() as counts:
            work(began + N)
        count = slot.jobs_done - began
    finally:
        slot.stop()
        server.stop()
        loop.close()
        connector.close()
    said = show(f"a job in the supervisor, held ahead: {lookahead}", counts, count)
    print(said)
    assert counts.total() <= system_calls * count, said
    assert counts.python <= python_calls * count, said


def test_what_counting_costs_a_job_where_metrics_are_on(tmp_path: Path) -> None:
    state = State()
    state.tallies.use(middleware("127.0.0.1:1", tmp_path).settings)
    counting = Counting(state, Recorder())
    session: Any = None
    held = Held(Grabbed(b"H:fake:1", b"job", b"u", message()), session, 1.79e9, started=time.monotonic())
    with counted() as counts:
        for _ in range(N):
            counting.done(held)
    said = show("counting a job", counts)
    print(said)
    assert counts.total() == 0, said
    # Itself, the count, a glance at the message, and the recorder behind it.
    assert counts.python <= 5 * N, said


def test_what_a_record_costs_a_job_that_went_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "start", lambda self: None)  # its thread's work is done here, to be counted
    recording = Recording(middleware("127.0.0.1:1", tmp_path).settings, "supervisor")
    session: Any = None
    held = Held(Grabbed(b"H:fake:1", b"job", b"u", message()), session, 1.79e9, started=time.monotonic())
    held.ended = held.started
    with counted() as counts:
        for _ in range(N):
            recording.done(held)
    said = show("a record, in the supervisor's thread", counts)
    print(said)
    assert counts.total() == 0 and counts.python <= 3 * N, said
    pending = Pending()
    with counted() as counts:
        recording.writer.happened.gather(pending)
    said = show("a record, in the writer's thread, but for the database", counts)
    print(said)
    assert len(pending) == 1
    assert counts.total() == 0 and counts.python <= 9 * N, said

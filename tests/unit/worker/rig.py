"""A slot without a supervisor: between a job server and worker processes that a test moves on, over socket pairs."""

import socket
import time
from pathlib import Path
from typing import IO, Any

from gearwsgi.address import Address
from gearwsgi.message.model import Message
from gearwsgi.settings import read_settings
from gearwsgi.wire import packets
from gearwsgi.wire.packets import PacketReader
from gearwsgi.worker import channel
from gearwsgi.worker.forks import Forked, NoForkServer
from gearwsgi.worker.loop import Loop
from gearwsgi.worker.options import Options
from gearwsgi.worker.process import Process
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.settle import Settler
from gearwsgi.worker.site import JobServers
from gearwsgi.worker.slot import Slot, Surroundings
from gearwsgi.worker.steering import Steering


def message(number: int) -> bytes:
    """A job's payload."""
    task = Message("POST", path=f"/job/{number}", body=b"x")
    task.id, task.service, task.max_attempts = f"{number:032x}", "/job", 5
    return task.to_bytes()


class Worker:
    """The other side of a process's pipe."""

    def __init__(self, pipe: socket.socket, memory: IO[bytes]) -> None:
        self.pipe = pipe.dup()
        self.pipe.setblocking(False)
        self.claim = channel.Claim(memory.fileno())
        self._reader = channel.FrameReader()

    def say(self, *frames: bytes) -> None:
        self.pipe.sendall(b"".join(frames))

    def jobs(self) -> list[tuple[int, bytes]]:
        """What it was given since: sequence and payload."""
        try:
            data = self.pipe.recv(1 << 20)
        except BlockingIOError:
            return []
        return [(sequence, channel.read_job(payload).payload) for _, sequence, payload in self._reader.feed(data)]

    def close(self) -> None:
        self.pipe.close()
        self.claim.close()


class Rig:
    """Connects, forks, and lets a test say what comes from either side."""

    def __init__(
        self, folder: Path, *, job_timeout: float = 600.0, recorder: Recorder | None = None, **options: Any
    ) -> None:
        self.loop = Loop()
        self.workers: list[Worker] = []
        self.signals: list[tuple[int, int]] = []
        self.has_fork_server = True
        self.gone = False
        self.refused = ""
        self.peer: socket.socket | None = None
        self._reader = PacketReader()
        settings = read_settings({"state_dir": folder, "servers": "localhost", "job_timeout": job_timeout}, {})
        connector: Any = self
        recorder = recorder or Recorder()
        self.steering = Steering(recorder)
        settler = Settler(settings, recorder)
        wanted = Options("no:app", **options)
        servers = JobServers()
        no_ticks: Any = None
        around = Surroundings(
            "x", settings, wanted, self.loop, connector, servers, settler, self, self.steering, no_ticks
        )
        self.slot = Slot(around, 1, ["job"])
        self.outbox = folder / "outbox"
        self.dead = folder / "dead"

    def connect(self, address: Address, then: Any) -> None:
        """As a Connector."""
        if self.refused:
            then(None, self.refused)
            return
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        then(ours, "")

    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None:
        """As a fork server."""
        if not self.has_fork_server:
            raise NoForkServer
        self.workers.append(Worker(pipe, memory))

    def kill(self, pid: int, number: int = 9) -> None:
        self.signals.append((pid, number))

    @property
    def worker(self) -> Worker:
        return self.workers[-1]

    @property
    def process(self) -> Process:
        assert self.slot.process is not None
        return self.slot.process

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.loop.turn(0.0)

    def ready(self) -> None:
        """The newest process is up."""
        self.process.on_forked(100 + len(self.workers))
        self.worker.say(channel.frame(channel.READY, 0))
        self.turn()

    def serve(self, kind: int, *parameters: bytes) -> None:
        """The job server says something."""
        assert self.peer is not None
        body = b"\0".join(parameters)
        self.peer.sendall(b"\0RES" + kind.to_bytes(4, "big") + _size(body) + body)
        self.turn()

    def assign(self, number: int) -> None:
        """The job server hands out a job."""
        self.serve(packets.JOB_ASSIGN_UNIQ, b"H:%d" % number, b"job", b"u%d" % number, message(number))

    def heard(self) -> list[tuple[int, bytes]]:
        """What the job server was told since: kind and parameters."""
        self.turn()
        assert self.peer is not None
        try:
            data = self.peer.recv(1 << 20)
        except BlockingIOError:
            return []
        found = []
        while data:
            size = int.from_bytes(data[8:12], "big")
            found.append((int.from_bytes(data[4:8], "big"), data[12 : 12 + size]))
            data = data[12 + size :]
        return found

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.heard()]

    def tick(self, later: float = 0.0) -> None:
        self.slot.tick(time.monotonic() + later)
        self.turn()

    def close(self) -> None:
        self.slot.stop()
        for worker in self.workers:
            worker.close()
        if self.peer is not None:
            self.peer.close()
        self.loop.close()


def _size(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big")

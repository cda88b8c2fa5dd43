"""An attacker: whoever reaches the job server's port, and looks afterwards at what came of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gearwsgi.address import parse_address
from gearwsgi.message.model import Message
from gearwsgi.settings import read_settings
from gearwsgi.state.dead import DeadLetter, DeadLetters
from gearwsgi.submit.tasks import Task
from gearwsgi.wire import packets
from gearwsgi.wire.connection import Connection
from tests.conftest import KINDS, require
from tests.support import Bench, bench, until

KEY, OLDER, FOREIGN = "k" * 16 + "-hush", "o" * 16 + "-hush", "f" * 16 + "-hush"


class Attacker:
    """Puts bytes into a bench's queues, and sees what runs.

    Args:
        bench: with a worker.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.app = bench.app(secret_keys=[KEY])
        self._count = 0

    def push(self, payload: bytes, queue: str = "job", unique: bytes | None = None) -> str:
        """Submit a background job; its handle."""
        self._count += 1
        connection = Connection(parse_address(self.bench.server.address), 5)
        try:
            key = b"attack-%d-%d" % (os.getpid(), self._count) if unique is None else unique
            connection.send(packets.pack(packets.SUBMIT_BACKGROUND["normal"], queue.encode(), key, payload), 5)
            return connection.expect(packets.JOB_CREATED, 10)[0].decode()
        finally:
            connection.close()

    def pid(self) -> str:
        """The worker process that runs jobs; when it answers, all that was pushed before is through."""
        self._count += 1
        before = len(self._pids())
        self.app.gearman.task("/pid")
        until(lambda: len(self._pids()) > before, "the pid of the worker process")
        return self._pids()[-1]

    def _pids(self) -> list[str]:
        return [line for line in self.bench.lines() if line.startswith("pid ") and line[4:].isdigit()]

    def ran(self) -> list[str]:
        """What handlers have recorded, the attacker's own questions aside."""
        return [line for line in self.bench.lines() if not line.startswith("pid ")]

    def cli(self, *arguments: str, ok: bool = True, **settings: object) -> str:
        """What `gearwsgi` prints with these settings."""
        done = subprocess.run(
            [sys.executable, "-m", "gearwsgi", *arguments, "--app", "kitchen:application"],
            cwd=self.bench.folder,
            env={**os.environ, **self.bench.env, "SETTINGS": json.dumps(settings)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode == 0) is ok, done.stderr + done.stdout
        return done.stdout + done.stderr

    def letters(self) -> list[DeadLetter]:
        """The dead letters."""
        return list(DeadLetters(read_settings({"state_dir": self.bench.state_dir}, {})).all())

    def count(self) -> int:
        """How many dead letters there are."""
        return len(DeadLetters(self.app.settings).spool.names())

    def letter_of(self, handle: str) -> DeadLetter:
        """The one dead letter of this job, waited for."""

        def found() -> list[DeadLetter]:
            letters = DeadLetters(read_settings({"state_dir": self.bench.state_dir}, {}))
            return [each for each in letters.all() if letters.spool.get(each.name).fields["handle"] == handle]

        (letter,) = until(found, f"the dead letter of {handle}")
        return letter

    def wait_until_run(self, task: Task) -> None:
        """Wait until the log tells of a task's end."""
        worker = self.bench.workers[-1]
        until(lambda: any(task.id in line and " result " in line for line in worker.log.splitlines()), "the result")


def a_message(**fields: object) -> bytes:
    """A message to `/good`, unsigned."""
    return Message("POST", path="/good", **fields).to_bytes()  # type: ignore[arg-type]


def start(made: Bench, **settings: object) -> Attacker:
    """A worker of all queues with these settings, and the attacker before it."""
    env = {"SETTINGS": json.dumps(settings)}
    made.worker("--workers", "1", "--queues", "job,legacy,admin", env=env)
    return Attacker(made)


@pytest.fixture(scope="module", params=KINDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """A worker with keys, and a queue that PHP may still feed."""
    require(request.param)
    with bench(request.param) as made:
        yield start(made, secret_keys=[KEY, OLDER], accept_unsigned=["legacy"], max_age=1000)


@pytest.fixture(scope="module", params=KINDS)
def unguarded(request: pytest.FixtureRequest) -> Iterator[Attacker]:
    """A worker without keys: it runs what anyone sends, and must survive it."""
    require(request.param)
    with bench(request.param) as made:
        attacker = start(made)
        attacker.app = made.app()
        yield attacker

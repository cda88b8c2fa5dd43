"""The embedded job server as a process: the one way to start it, and to end it.

Starting it does not wait. It is asked later whether it answers: loading a large queue takes a while.

    not started -- start() --> starting -- its line is read --> ready
         ^                        |                              |
         '----- stop(), kill() ---+--- exit_code() is a number --'   (start() begins anew from here, too)
"""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ..address import Address
from ..errors import GearwsgiError, ServerUnavailable, StartError
from . import packets
from .connection import Connection

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 20.0
_READY = re.compile(r"listening on (\S+), pid \d+")


def command(listen: str | Address, state_dir: Path, lifeline: int, options: Sequence[str] = ()) -> list[str]:
    """The command line of a job server that ends when nobody holds the other end of `lifeline` any more."""
    where = ["--listen", str(listen), "--state-dir", str(state_dir), "--parent-fd", str(lifeline)]
    return [sys.executable, "-m", "gearwsgi", "server", *where, *options]


def read_address(line: str) -> str:
    """The `host:port` in the line with which a job server says that it is ready; empty in any other line."""
    found = _READY.search(line)
    return found[1] if found else ""


class EmbeddedProcess:
    """An embedded job server, as a process that ends with this one, or when it is told to.

    Args:
        listen: `host:port`; port 0 takes a free one.
        state_dir: where its queue is.
        options: further command-line options, such as `--job-retries=3`.
        stderr: a file for its log; None: our standard error.

    Attributes:
        address: `host:port`, once it is ready.
    """

    def __init__(
        self, listen: str | Address, state_dir: Path, options: Sequence[str] = (), stderr: IO[bytes] | None = None
    ) -> None:
        self.address = ""
        self._listen = listen
        self._state_dir = state_dir
        self._options = options
        self._stderr = stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._said = b""

    def start(self) -> None:
        """Start it, without waiting until it answers; one that still runs is killed first.

        Raises:
            StartError: there is no process or descriptor to be had; it may be tried again.
        """
        self.kill()
        try:
            theirs, self._lifeline = os.pipe()
            try:
                self._process = subprocess.Popen(
                    command(self._listen, self._state_dir, theirs, self._options),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr,
                    pass_fds=[theirs], start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(theirs)
        except OSError as error:
            self._release()
            raise StartError(f"the embedded job server can't be started: {error}") from error
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    def is_ready(self) -> bool:
        """Whether it has loaded its queue and answers. Returns at once."""
        if not self.address and self._process is not None and self._process.stdout is not None:
            self._said += self._process.stdout.read() or b""
            self.address = read_address(self._said.decode(errors="replace"))
        return bool(self.address)

    def wait(self, timeout: float = _START_TIMEOUT) -> None:
        """Wait until it is ready, but no longer than `timeout` seconds.

        Raises:
            StartError: it did not get ready; it is ended then.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                raise StartError(f"the embedded job server did not start on {self._listen} within {timeout:g} s")
            self._watch(left)

    def ensure(self) -> bool:
        """Start it and wait until it listens, unless a job server is there already; whether it was started.

        It listens long before it is ready, if its queue is large: who asks it something waits until then.

        Raises:
            StartError: something else holds the port, or it did not start.
        """
        assert isinstance(self._listen, Address)
        if is_gearman(self._listen):
            return False
        self.start()
        while not (self.is_ready() or is_gearman(self._listen)):
            self._watch(0.05)
        return True

    def _watch(self, seconds: float) -> None:
        """Read what it prints for so many seconds, to see whether it is ready.

        Raises:
            StartError: it has ended.
        """
        assert self._process is not None and self._process.stdout is not None
        select.select([self._process.stdout], [], [], seconds)
        if self._process.poll() is not None and not self.is_ready():
            code = self._process.returncode
            self._release()
            raise StartError(f"the embedded job server did not start on {self._listen} (exit code {code})")

    @property
    def pid(self) -> int:
        """Its process id, 0 where we started none."""
        return self._process.pid if self._process is not None else 0

    def exit_code(self) -> int | None:
        """How it ended, None while it runs or where we started none."""
        return self._process.poll() if self._process is not None else None

    def stop(self, timeout: float = _STOP_TIMEOUT) -> int:
        """End it cleanly, and wait for that; its exit code. After `timeout` seconds it is killed."""
        if self._process is not None:
            self._process.terminate()
        return self.wait_for_end(timeout)

    def wait_for_end(self, timeout: float = _STOP_TIMEOUT) -> int:
        """Wait until it has ended; its exit code. After `timeout` seconds it is killed."""
        if self._process is None:
            return 0
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        self._release()
        return code

    def kill(self) -> None:
        """End it by SIGKILL, as a crash would; what it has answered JOB_CREATED to is on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def _release(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
        self._process, self._lifeline, self._said, self.address = None, -1, b"", ""


def is_gearman(address: Address) -> bool:
    """Whether a job server answers there; False where nothing listens.

    Raises:
        StartError: something listens that is no job server.
    """
    try:
        connection = Connection(address, 2.0)
    except ServerUnavailable:
        return False
    try:
        connection.send(packets.pack(packets.ECHO_REQ, b"gearwsgi"), 2.0)
        answer = connection.expect(packets.ECHO_RES, 3.0)
    except GearwsgiError as error:
        raise StartError(
            f"{address} is taken by something that does not speak Gearman ({error}); "
            "stop it, or set servers to another port, as embedded://127.0.0.1:4731"
        ) from error
    finally:
        connection.close()
    return answer == [b"gearwsgi"]

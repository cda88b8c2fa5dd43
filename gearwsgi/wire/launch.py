"""The embedded job server as a process of the supervisor's: started where nothing answers, ended with it."""

import os
import subprocess
import sys
from pathlib import Path

from ..address import Address
from ..errors import GearwsgiError, ServerUnavailable, StartError
from . import packets
from .connection import Connection

_START_TIMEOUT = 20.0


class EmbeddedProcess:
    """A job server on `address`, run for as long as this process lives and wants it.

    Args:
        address: where it listens.
        state_dir: where its queue is.
    """

    def __init__(self, address: Address, state_dir: Path) -> None:
        self._address = address
        self._state_dir = state_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def ensure(self) -> bool:
        """Start it unless something there speaks Gearman already; whether it was started.

        Raises:
            StartError: something else holds the port, or it did not start.
        """
        if is_gearman(self._address):
            return False
        # It ends when the other end of this pipe closes: with us, however we end.
        theirs, self._lifeline = os.pipe()
        command = [
            sys.executable, "-m", "gearwsgi", "server",
            "--listen", str(self._address),
            "--state-dir", str(self._state_dir),
            "--parent-fd", str(theirs),
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, pass_fds=[theirs], start_new_session=True
        )
        os.close(theirs)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        self._process.stdout.close()
        if not ready:
            code = self._process.wait()
            self._process = None
            raise StartError(f"the embedded job server did not start on {self._address} (exit code {code})")
        return True

    @property
    def pid(self) -> int:
        """Its process id, 0 where we started none."""
        return self._process.pid if self._process is not None else 0

    def exit_code(self) -> int | None:
        """How it ended, None while it runs or where we started none."""
        return self._process.poll() if self._process is not None else None

    def stop(self) -> None:
        """End it cleanly, and wait until it has."""
        if self._process is None:
            return
        os.close(self._lifeline)
        self._process.terminate()
        try:
            self._process.wait(_START_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


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

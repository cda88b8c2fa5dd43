"""A job server for an application's own tests: a process that ends with the test."""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import StartError
from ..wire.launch import EmbeddedProcess

__all__ = ["EmbeddedServer"]


class EmbeddedServer:
    """A job server in a process of its own; it ends with the `with` block, or with this process.

    Args:
        listen: `host:port`; port 0 takes a free one.
        state_dir: where its file is; None is a temporary directory that goes with it.
        options: further command-line options, such as `--job-retries=3`.

    Attributes:
        address: `host:port`, once it is started.
        pid: its process.
    """

    def __init__(self, listen: str = "127.0.0.1:0", state_dir: str | Path | None = None, *options: str) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="gearwsgi-") if state_dir is None else None
        self.state_dir = Path(self._temporary.name if self._temporary else state_dir or "")
        self._listen = listen
        self._options = options
        self._process: EmbeddedProcess | None = None
        self._log: IO[bytes] | None = None
        self.address = ""
        self.pid = 0

    def start(self, timeout: float = 10.0) -> "EmbeddedServer":
        """Start it and wait until it answers.

        Raises:
            StartError: it did not start within `timeout` seconds; the text is what it said.
        """
        self.kill()  # one that has ended by itself is still to be put away
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the process is gone
        process = EmbeddedProcess(self._listen, self.state_dir, self._options, stderr=self._log)
        try:
            process.start()
            process.wait(timeout)
        except StartError as error:
            said = self.log().strip()
            self._log.close()
            self._clean_up()
            raise StartError(said or str(error)) from error
        self._process = process
        self.address, self.pid = process.address, process.pid
        return self

    def log(self) -> str:
        """What it has logged since its start."""
        assert self._log is not None
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def stop(self, timeout: float = 10.0) -> int:
        """End it as SIGTERM does; answers its exit code."""
        return self._put_away(self._process.stop(timeout)) if self._process else 0

    def wait(self, timeout: float = 10.0) -> int:
        """Wait until it has ended; answers its exit code. It is killed after `timeout` seconds."""
        return self._put_away(self._process.wait_for_end(timeout)) if self._process else 0

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL; `start` brings back what was on disk."""
        if self._process is not None:
            self._process.kill()
            self._put_away(0)

    def _put_away(self, code: int) -> int:
        assert self._log is not None
        self._log.close()
        self._process = None
        return code

    def _clean_up(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> "EmbeddedServer":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._clean_up()

"""A job server for the tests of one's own application: a process of its own, gone with the test."""

import contextlib
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from gearwsgi.errors import StartError

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
        self._listen = listen
        self._options = options
        self._temporary = tempfile.TemporaryDirectory(prefix="gearwsgi-") if state_dir is None else None
        self.state_dir = Path(self._temporary.name if self._temporary else state_dir or "")
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._said: IO[bytes]
        self.address = ""
        self.pid = 0

    def start(self, timeout: float = 10.0) -> "EmbeddedServer":
        """Start it and wait until it listens.

        Raises:
            StartError: it did not start within `timeout` seconds; the text is what it said.
        """
        self.kill()  # one that ended by itself is still to be put away
        theirs, self._lifeline = os.pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the process is gone
        command = [sys.executable, "-m", "gearwsgi.server", "--listen", self._listen]
        command += ["--state-dir", str(self.state_dir), "--parent-fd", str(theirs), *self._options]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, pass_fds=(theirs,)
            )
        finally:
            os.close(theirs)
        found = re.search(r"listening on (\S+), pid (\d+)", self._first_line(timeout))
        if found is None:
            text = self.log().strip()
            self.kill()
            self._clean_up()
            raise StartError(text or f"the job server did not start within {timeout} s")
        self.address, self.pid = found[1], int(found[2])
        return self

    def log(self) -> str:
        """What it has logged since its start."""
        descriptor = self._said.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def _first_line(self, timeout: float) -> str:
        assert self._process is not None and self._process.stdout is not None
        pipe, line, deadline = self._process.stdout.fileno(), b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            ready = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]
            part = os.read(pipe, 4096) if ready else b""
            if not part:
                break
            line += part
        return line.decode()

    def stop(self, timeout: float = 10.0) -> int:
        """End it as SIGTERM does; answers its exit code."""
        if self._process is not None:
            self._process.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait until it has ended; answers its exit code. It is killed after `timeout` seconds."""
        if self._process is None:
            return 0
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._release()
        return code

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL; `start` brings back what was on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._release()

    def _release(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.stdout.close()
        self._said.close()
        self._process = None
        with contextlib.suppress(OSError):
            os.close(self._lifeline)

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

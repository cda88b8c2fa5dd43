"""`gearwsgi status` in a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from tests.support import Bench, until


class Terminal:
    """`gearwsgi` in a terminal of this size."""

    def __init__(self, site: Bench, rows: int, columns: int, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        usual = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gearwsgi", *arguments],
            cwd=site.folder, env={**usual, **site.env, "TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.shown = b""

    def read(self) -> bytes:
        """All that it has shown; waits until there is more, or its end."""
        try:
            self.shown += os.read(self._master, 65536)
        except OSError:  # its end, on Linux
            self.process.wait(20)
        return self.shown

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._master, key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.mark.parametrize("rows", [24, 6])
def test_watch_fits_any_height_and_ends_at_q(site: Bench, rows: int) -> None:
    worker = site.worker("--workers", "8")
    until(lambda: len(worker.children()) == 8)
    terminal = Terminal(site, rows, 80, "status", "--watch")
    try:
        until(lambda: terminal.read().count(b"last hour") >= 2)
        frame = terminal.shown.split(b"\x1b[H")[1]
        assert frame.count(b"\n") < rows
        terminal.press(b"q")
        until(lambda: terminal.read() and terminal.process.poll() is not None)
        assert terminal.process.returncode == 0
        assert terminal.shown.endswith(b"\x1b[?25h\x1b[?1049l")  # the cursor, and what was there before
    finally:
        terminal.close()


def test_status_fits_a_terminal_of_80_by_24(site: Bench) -> None:
    for number in range(40):
        site.app().gearman.task("/ok", queue=f"queue-{number}")
    terminal = Terminal(site, 24, 80, "status", "--check")
    try:
        until(lambda: terminal.read() and terminal.process.poll() is not None)
        lines = terminal.shown.decode().splitlines()
        assert len(lines) <= 23 and all(len(line) <= 80 for line in lines)
        assert lines[0].startswith("WARNING: no worker for queue queue-0, ")
        assert any(line.startswith("… and ") for line in lines)
        assert terminal.process.returncode == 1
    finally:
        terminal.close()

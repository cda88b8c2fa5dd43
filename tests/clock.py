"""A clock that a test holds, for processes that run Python: the time of day, and so many seconds."""

import os
from pathlib import Path

_SITE = """
import os, time
path = os.environ.get("CLOCK")
if path:
    now, now_ns = time.time, time.time_ns
    def ahead():
        with open(path) as file:
            return float(file.read())
    time.time = lambda: now() + ahead()
    time.time_ns = lambda: now_ns() + int(ahead() * 1e9)
"""


class Clock:
    """See the module.

    Args:
        folder: where its file is; each clock needs one of its own.
        ahead: seconds that it is ahead of the time of day.
    """

    def __init__(self, folder: Path, ahead: float = 0.0) -> None:
        folder.mkdir()
        self._file = folder / "ahead"
        (folder / "sitecustomize.py").write_text(_SITE)
        path = os.environ.get("PYTHONPATH")
        self.env = {"CLOCK": str(self._file), "PYTHONPATH": f"{folder}:{path}" if path else str(folder)}
        self.move(ahead)

    def move(self, ahead: float) -> None:
        """Be so far ahead from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead))
        new.replace(self._file)

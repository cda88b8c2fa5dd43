"""A file in the state directory in which a supervisor reports what it does: for `status` and `check --live`."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .spool import make_private_folder

FRESH = 15.0
"""Seconds after which a file that was not written again belongs to a supervisor that is dead or stuck."""


class StatusFile:
    """The file `state_dir/run/<pid>.json`. It is written when it changes, and as a sign of life.

    Args:
        state_dir: the state directory.
    """

    def __init__(self, state_dir: Path) -> None:
        make_private_folder(state_dir)
        make_private_folder(state_dir / "run")
        self._path = state_dir / "run" / f"{os.getpid()}.json"

    def write(self, values: dict[str, Any]) -> None:
        """Replace what the file says.

        Raises:
            OSError: it can't be written. The old text stays, and gets older.
        """
        temporary = self._path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump({**values, "at": time.time()}, file)
        temporary.replace(self._path)

    def remove(self) -> None:
        """Remove the file: the supervisor ends.

        Raises:
            OSError: it can't be removed. Whoever reads it sees that no process has this pid.
        """
        self._path.unlink(missing_ok=True)


def read_all(state_dir: Path) -> Iterator[dict[str, Any]]:
    """What the supervisors of this state directory report, if they are alive; the files of dead ones are removed."""
    for path in sorted((state_dir / "run").glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # just being removed, or written
        if not _is_whole(values):
            continue
        if not _is_alive(values["pid"]):
            path.unlink(missing_ok=True)
            continue
        values["fresh"] = time.time() - values["at"] < FRESH
        yield values


_FIELDS = {"pid": int, "at": int | float, "app": str, "stopping": bool, "workers": list}


def _is_whole(values: Any) -> bool:
    """Whether it is what a supervisor of this version writes."""
    return isinstance(values, dict) and all(isinstance(values.get(name), kind) for name, kind in _FIELDS.items())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""What supervisors are asked to do, as one of them has read it last: a file in the state directory.

Who starts while the database is away goes by it.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from ...errors import SpoolError
from ..spool import make_private_folder, open_private
from .steering import FORGET, Request

_log = logging.getLogger("gearwsgi")

NAME = "requests.json"
MAX_KEPT = 1000
"""The latest are kept: there are a few pauses and limits, and of cancelled tasks the file is no archive."""


def remember(state_dir: Path, requests: Iterable[Request]) -> None:
    """Write them, in place of what was there; where that fails, a line in the log says so."""
    kept = sorted((each for each in requests if each.kind != FORGET), key=lambda each: each.made)[-MAX_KEPT:]
    path = state_dir / NAME
    new = state_dir / f".{NAME}-{secrets.token_hex(4)}"
    try:
        if not kept:
            path.unlink(missing_ok=True)
            return
        make_private_folder(state_dir)
        try:
            with open(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="utf-8") as file:
                json.dump([each[:-1] for each in kept], file)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
    except (OSError, SpoolError) as error:
        _log.warning("records: what is paused and cancelled can't be remembered in %s: %s", path, error)


def recall(state_dir: Path) -> list[Request]:
    """What was remembered last and is not over; nothing where there is nothing that can be read."""
    path = state_dir / NAME
    now = time.time()
    here = time.monotonic() - now
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        found = [
            Request(str(kind), str(name), float(made), until, str(about), None if until is None else until + here)
            for kind, name, made, until, about in rows
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        _log.warning("records: what was paused and cancelled is not known: %s: %s", path, error)
        return []
    return [each for each in found if each.until is None or each.until > now]

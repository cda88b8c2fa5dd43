"""A file in the state directory with the requests to supervisors, as one of them has last read them in the records.

A supervisor that starts while the database is away goes by it.
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
"""Only the latest are kept: pauses and limits are few, and the file need not archive cancelled tasks."""


def remember(state_dir: Path, requests: Iterable[Request]) -> None:
    """Write these requests in place of the old ones; a failure is logged."""
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
    """The remembered requests that are not over; none where the file can't be read."""
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

"""What a supervisor says of itself, for `gearwsgi status` and the dashboard."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..errors import BadMessage
from ..state.records.facts import read_facts
from ..wire.payload import own_id
from .generation import Generation
from .held import Held
from .posix import resident
from .slot import Slot


def describe(app: str, generations: Sequence[Generation], now: float, *, is_stopping: bool) -> dict[str, Any]:
    """What the supervisor is and does just now, as JSON's types.

    Args:
        app: the application, `module:name`.
        generations: all that have not ended, the newest last.
        now: the time, of `time.monotonic`.
        is_stopping: whether the supervisor is about to end.
    """
    around = next((each.around for each in reversed(generations) if each.around is not None), None)
    slots = [slot for generation in generations for slot in generation.open_slots()]
    return {
        "pid": os.getpid(),
        "app": app,
        "servers": [str(address) for address in around.settings.servers] if around is not None else [],
        "stopping": is_stopping,
        "limits": list(around.settings.limits) if around is not None else [],
        "workers": [_describe_slot(slot, now) for slot in slots],
    }


def _describe_slot(slot: Slot, now: float) -> dict[str, Any]:
    process = slot.process
    held = process.running if process is not None else None
    pid = process.pid if process is not None else 0
    return {
        "slot": slot.number,
        "pid": pid,
        "queues": list(slot.queues),
        "state": slot.condition,
        "job": held.handle if held is not None else "",
        **(_describe_job(held) if held is not None else {}),
        "age": round(now - held.started, 1) if held is not None and held.started else 0.0,
        "done": slot.jobs_done,
        "memory": resident(pid),
    }


def _describe_job(held: Held) -> dict[str, Any]:
    try:
        facts = read_facts(held.job.payload, partial(own_id, held.job))
    except BadMessage:
        return {}  # the worker process will report it in a moment
    return {"id": facts.id, "service": facts.service, "queue": held.job.base_queue, "attempt": facts.attempt}

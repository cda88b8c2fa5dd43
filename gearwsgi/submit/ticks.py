"""Turns an entry of the schedule into the task of one of its ticks.

In a process with the application, each entry is composed once, by `task()` itself: the result is a `Plan`. It travels
to the supervisor, which has no application code, and which makes the task of each tick from it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from ..errors import ConfigError, InvalidTask, UnknownService
from ..kinds import BaseURL
from ..message import plain, reading
from ..schedule.cron import Cron
from ..schedule.entries import Entry
from ..settings import Settings
from ..wire.payload import Submission, make_unique, seal
from .client import Client
from .sending import After
from .task import Task
from .tasks import Gearman

_PLACES = slice(16, 24), slice(24, 32)
"""Which digits of a tick's id name the entry, and which the tick: see `Plan.id`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An entry of the schedule, composed.

    Attributes:
        name: the entry's.
        service: what is called.
        cron: when.
        missed: as the entry has it.
        overlap: as the entry has it.
        queue: the queue.
        priority: `high`, `normal` or `low`.
        payload: the message of the task, without what differs from tick to tick; or a plain call.
        fingerprint: tells the entry from a changed one; the host makes no difference.
    """

    name: str
    service: str
    cron: Cron
    missed: Literal["skip", "once"]
    overlap: bool
    queue: str
    priority: str
    payload: bytes
    fingerprint: str

    def id(self, tick: datetime, settings: Settings) -> str:
        """The id of a tick's task, which is the same whoever makes it.

        It begins with a digest of entry and tick, which no stranger can compute where there are keys. Eight digits that
        name the entry follow, and eight that name the tick, so that job servers can be asked for earlier tasks of the
        entry.
        """
        return tick_id(self.name, self.fingerprint, tick, settings)

    def submission(self, tick: datetime, settings: Settings, now: float, *, is_due: bool = False) -> Submission:
        """The task of a tick, as it is queued.

        Args:
            tick: the tick, in the entry's zone.
            settings: the middleware's.
            now: Unix time.
            is_due: whether it is due at once, and not at the tick.
        """
        task_id = self.id(tick, settings)
        at = 0.0 if is_due else tick.timestamp()
        payload = self.payload
        if not plain.is_plain(payload):
            task = reading.read(payload, max_body=len(payload))
            headers = list(task.headers)
            if task.header("idempotency-key") is None:
                headers.append(("Idempotency-Key", task_id))
            task = replace(task, id=task_id, headers=headers, scheduled=tick, entry=self.name, queued=now, due=at)
            payload = seal(task, self.queue, settings, at or now)
        return Submission(self.queue, make_unique(task_id, 1), payload, self.priority, at, task_id)

    def is_mine(self, task_id: str, tick: datetime, settings: Settings) -> bool:
        """Whether the task of a tick belongs to this entry as it is now."""
        return task_id == self.id(tick, settings)

    def earlier(self, uniques: Iterable[str], tick: datetime, settings: Settings) -> str:
        """The first of these uniques that is of an earlier tick of this entry, in any attempt; empty: none is."""
        which, when = _PLACES
        tag, moment = _digest(self.name, settings, 4), f"{int(tick.timestamp()):08x}"
        return next((each for each in uniques if each[which] == tag and each[32:33] == ":" and each[when] < moment), "")

    def dump(self) -> dict[str, Any]:
        """As JSON's types."""
        values = {name: getattr(self, name) for name in self.__slots__}
        cron = [self.cron.expression, self.cron.timezone]
        return {**values, "cron": cron, "payload": base64.b64encode(self.payload).decode()}

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> "Plan":
        """What `dump` wrote."""
        payload = base64.b64decode(values["payload"])
        return cls(**{**values, "cron": Cron(*values["cron"]), "payload": payload})


def tick_id(name: str, fingerprint: str, tick: datetime, settings: Settings) -> str:
    """The id of the task of an entry's tick: see `Plan.id`."""
    moment = f"{int(tick.timestamp()):08x}"
    return _digest(f"{name}\0{fingerprint}\0{moment}", settings, 8) + _digest(name, settings, 4) + moment


def _digest(text: str, settings: Settings, size: int) -> str:
    # The oldest key, because new ones are added in front, and must change no id.
    key = settings.secret_keys[-1][:64] if settings.secret_keys else b""
    return hashlib.blake2b(text.encode(), digest_size=size, key=key).hexdigest()


class _Composer(Gearman):
    """A `Gearman` whose `task()` queues nothing: `found` is the job that it would submit."""

    __slots__ = ("found",)
    traces = False

    def _submit(self, task: Task, submission: Submission, after_response: bool, after: After | None) -> None:
        self.found = submission


def plan_all(settings: Settings, base: BaseURL | None = None) -> dict[str, Plan]:
    """The entries of the schedule, composed.

    Args:
        settings: the middleware's, where the application is.
        base: what the application's URLs begin with; the setting `base_url`, or what its framework says, where it is
            not given.

    Raises:
        ConfigError: one of them can't be queued; the text says why.
    """
    return {name: _plan(entry, settings, base) for name, entry in settings.schedule.items()}


def _plan(entry: Entry, settings: Settings, base: BaseURL | None) -> Plan:
    what = f"schedule[{entry.name!r}]"
    if entry.missed == "once" and not settings.records:
        raise ConfigError(
            f"{what}['missed'] is 'once', which needs records to know the last tick: set records='sqlite'"
        )
    composer = _Composer(Client(settings), None, base=base)
    try:
        composer.task(entry.service, **entry.options)
    except UnknownService as error:
        hint = "" if entry.service != entry.name else "; an entry without a 'service' calls what it is named"
        raise ConfigError(f"{what}: {error}{hint}") from error
    except InvalidTask as error:
        raise ConfigError(f"{what}: {error}") from error
    found = composer.found
    payload = found.payload
    if not plain.is_plain(payload):
        task = reading.read(payload, max_body=len(payload))
        headers = [pair for pair in task.headers if pair != ("Idempotency-Key", task.id)]
        payload = replace(task, id="", queued=0.0, headers=headers).to_bytes()
    return Plan(
        entry.name, entry.service, entry.cron, entry.missed, entry.overlap, found.queue, found.priority, payload,
        _fingerprint(entry, replace(found, payload=payload)),
    )  # fmt: skip


def _fingerprint(entry: Entry, found: Submission) -> str:
    """A digest of all that makes up the entry, except the host, which may differ between machines."""
    payload = found.payload
    if not plain.is_plain(payload):
        task = reading.read(payload, max_body=len(payload))
        # The User-Agent has our version: an upgrade must not change an entry.
        headers = [pair for pair in task.headers if pair[0] != "User-Agent"]
        payload = replace(task, headers=headers, scheme="", host="", script_name="").to_bytes()
    cron = entry.cron
    parts = [cron.expression, cron.timezone, entry.missed, entry.overlap, found.queue, found.priority]
    return hashlib.blake2b(json.dumps(parts).encode() + b"\0" + payload, digest_size=8).hexdigest()

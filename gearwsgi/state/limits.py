"""Limits by key as they hold just now: the setting's, as supervisors know it, and what was changed at run time."""

from collections.abc import Iterable, Mapping
from typing import Any

from ..message.limits import Limit, find_limit, load_change, split_queue
from ..settings import Settings
from .records.steering import LIMIT
from .records.store import FRESH, Store

MOST_KEYS = 100
"""How many keys are shown, at most: those of which most tasks wait."""


def given(settings: Settings, supervisors: Iterable[Mapping[str, Any]]) -> tuple[Limit, ...]:
    """The limits as the setting `limits` has them.

    Args:
        settings: the middleware's, where the application is known.
        supervisors: what supervisors report of themselves: used where the application is not known.
    """
    if settings.limits:
        return settings.limits
    told = next((each["limits"] for each in supervisors if each.get("limits")), ())
    return tuple(Limit(*each) for each in told)


def changes(store: Store) -> dict[str, tuple[Limit, str]]:
    """The limits that were changed at run time, by their patterns, and who has changed each.

    Raises:
        RecordsUnavailable: the database is away.
    """
    return {each.name: load_change(each.name, each.about) for each in store.steering.pauses(LIMIT)}


def in_use(settings: Settings, store: Store) -> dict[str, tuple[Limit, str | None]]:
    """The limits that hold now, by their patterns, and who has changed each; None: it is as the setting says.

    Raises:
        RecordsUnavailable: the database is away.
    """
    supervisors = [each.about for each in store.fleet() if each.silent < FRESH]
    changed = changes(store)
    return {limit.pattern: changed.get(limit.pattern, (limit, None)) for limit in given(settings, supervisors)}


def describe(
    limits: Iterable[Limit], changed: Mapping[str, tuple[Limit, str]], rows: Iterable[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The limits, and the keys of which most tasks wait, as JSON's types.

    Args:
        limits: as the setting has them.
        changed: those that were changed at run time.
        rows: the queues of the job servers.
    """
    held = [(*changed.get(limit.pattern, (limit, None)),) for limit in limits]
    shown: dict[str, dict[str, Any]] = {
        limit.pattern: {**limit._asdict(), "changed_by": by, "keys": 0, "waiting": 0, "running": 0}
        for limit, by in held
    }
    keys: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = split_queue(row["queue"])[1]
        waiting, running = row["waiting"] + (row["later"] or 0), row["running"]
        if not key or not (waiting or running):
            continue
        limit = find_limit((each for each, _ in held), key) or Limit("")
        if key not in keys:
            keys[key] = {"key": key, **limit._asdict(), "waiting": 0, "running": 0}
            if limit.pattern:
                shown[limit.pattern]["keys"] += 1
        for each in (keys[key], shown.get(limit.pattern, {"waiting": 0, "running": 0})):
            each["waiting"] += waiting
            each["running"] += running
    most = sorted(keys.values(), key=lambda each: (-each["waiting"], -each["running"], each["key"]))
    return list(shown.values()), most[:MOST_KEYS]

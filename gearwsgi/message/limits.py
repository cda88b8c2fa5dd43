"""Limits by key: how many tasks of a key may run at once, and how many may start within a time. Pure.

A key has a queue of its own on the job server, `job#stripe:42`. Tasks that are over the limit wait there, and only
there.
"""

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

SEPARATOR = "#"
"""Between a queue and a key in the name of a key's own queue."""
MAX_QUEUE = 200
"""Bytes of a queue's name."""
MAX_KEY = 100
"""Bytes of a key."""
MAX_CONCURRENCY = 10_000


class Limit(NamedTuple):
    """One entry of the setting `limits`.

    Attributes:
        pattern: the keys that it is for, as the shell matches names.
        concurrency: how many tasks of a key may run at once; 0: as many as there are workers.
        rate: how many tasks of a key may start, such as `100/minute`; empty: any number.
    """

    pattern: str
    concurrency: int = 0
    rate: str = ""

    @property
    def text(self) -> str:
        """The limit in words, for people."""
        most = [f"{self.concurrency} at once"] if self.concurrency else []
        return ", ".join([*most, self.rate] if self.rate else most) or "lifted"


def find_limit(limits: Iterable[Limit], key: str) -> Limit | None:
    """The first limit whose pattern a key matches."""
    return next((limit for limit in limits if fnmatchcase(key, limit.pattern)), None)


def unmatched(limits: Iterable[Limit], key: str) -> str:
    """The error's text for a key that no pattern matches."""
    known = ", ".join(repr(each.pattern) for each in limits) or "there is none"
    return f"limit {key!r} matches no pattern of the setting limits: {known}"


def change(limits: Iterable[Limit], changed: Mapping[str, Limit]) -> tuple[Limit, ...]:
    """The limits that hold: these, except where they were changed at run time (`changed`, by pattern)."""
    return tuple(changed.get(limit.pattern, limit) for limit in limits)


def dump_change(limit: Limit, by: str) -> str:
    """A limit that was changed at run time, and who has changed it, as text."""
    return json.dumps([limit.concurrency, limit.rate, by])


def load_change(pattern: str, text: str) -> tuple[Limit, str]:
    """What `dump_change` wrote."""
    concurrency, rate, by = json.loads(text)
    return Limit(pattern, concurrency, rate), by


def checked_key(key: Any) -> str:
    """The key, checked.

    Raises:
        ValueError: it can't be a key.
    """
    if not isinstance(key, str) or not key or not key.isprintable() or " " in key or len(key.encode()) > MAX_KEY:
        raise ValueError(f"give up to {MAX_KEY} bytes without spaces and control characters, such as 'stripe:42'")
    return key


def key_queue(queue: str, key: str) -> str:
    """The name of a key's own queue."""
    return f"{queue}{SEPARATOR}{key}"


def split_queue(name: str) -> tuple[str, str]:
    """The queue in a name, and the key whose own queue it is; the key is empty where there is none."""
    queue, _, key = name.partition(SEPARATOR)
    return queue, key


def read_limit(pattern: str, given: Mapping[str, Any]) -> Limit:
    """A limit from what was given for a pattern.

    Raises:
        ValueError: it can't be a limit.
    """
    unknown = sorted(set(map(str, given)) - {"concurrency", "rate"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: give concurrency, rate or both")
    concurrency, rate = given.get("concurrency") or 0, given.get("rate") or ""
    if not concurrency and not rate:
        raise ValueError("give concurrency, rate or both")
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 0 <= concurrency <= MAX_CONCURRENCY:
        raise ValueError(f"concurrency is {concurrency!r}: give a whole number from 1 to {MAX_CONCURRENCY:,}")
    if rate:
        check_rate(rate)
    return Limit(pattern, concurrency, str(rate))


def check_rate(rate: Any) -> None:
    """Raise `ValueError` unless it is a rate."""
    from limits import parse_many  # only where there are limits

    try:
        found = parse_many(rate) if isinstance(rate, str) else []
    except ValueError:
        found = []
    if len(found) != 1 or found[0].amount < 1:
        raise ValueError(f"rate is {rate!r}: give one such as '100/minute', '10/second' or '5 per 2 hours'")

"""Which keys of limits this supervisor owns, as the records say: it renews its leases through the records' thread."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, repeat

from ..state.records import leases
from ..state.records.leases import Owned, Share
from ..state.records.starts import LASTS, Count, condense
from ..state.records.store import Store
from .keys import Key, Keys, Line
from .limits import Booked
from .recorder import Recorder

EVERY = 1.0
"""Seconds between two renewals."""
ASK_AGAIN = 10.0
"""Seconds after which a renewal that nobody has answered is asked for once more."""


class Leases:
    """Says which keys are this supervisor's: the gate's `Ownership`, by leases in the records.

    Args:
        recorder: does what is to be done with the records, in a thread.
        name: this supervisor's name, which no other one that shares the records has.
        tell: has a function called in the loop.
    """

    def __init__(self, recorder: Recorder, name: str, tell: Callable[[Callable[[], None]], None]) -> None:
        self._recorder = recorder
        self._name = f"{name}:{time.time_ns():x}"
        self._tell = tell
        self._since: dict[Share, float] = {}
        self._unwanted: frozenset[Share] = frozenset()
        self._until = 0.0
        self._ask_at = 0.0
        self._asks = 0
        self._wanted: list[tuple[Line, int, Booked]] = []
        self._booking: list[tuple[Line, int, Booked]] = []
        self._book_again_at = 0.0
        self.is_settled = False

    def since(self, queue: str, key: str) -> float | None:
        """Since when a key's queue is ours; None: it is not, or the lease was not renewed for too long."""
        share = queue, leases.share_of(key)
        if time.monotonic() >= self._until or share in self._unwanted:
            return None
        return self._since.get(share)

    def tend(self, queues: Collection[str], keys: Keys) -> None:
        """Renew the leases where it is time. Keys that others are to have are given up once none of them runs."""
        now = time.monotonic()
        if self._booking and now >= self._book_again_at:
            self._book()
        if now < self._ask_at or not queues:
            return
        self._ask_at = now + ASK_AGAIN
        given_up: set[Share] = set()
        # An earlier question that is still on its way could be answered by an older state of things.
        if self._unwanted and not self._asks:
            used = {leases.share_of(key.name) for key in keys if key.out}
            given_up = {share for share in self._unwanted if share[1] not in used}
        self._asks += 1
        counts = _unsaved(keys, given_up) if given_up else []
        self._recorder.do(partial(self._renew, tuple(queues), given_up, counts, keys))

    def book(self, line: Line, number: int, then: Booked) -> None:
        """Write ahead that so many tasks are about to start. What is asked for meanwhile is written together, next."""
        self._wanted.append((line, number, then))
        if not self._booking:
            self._book()

    def close(self, keys: Keys) -> None:
        """Give up all leases; nothing of these keys runs here any more."""
        self._until = 0.0
        counts = _unsaved(keys, None)
        self._recorder.do(lambda store: leases.leave(store.database, self._name, _ago(counts)))

    def _renew(
        self, queues: Collection[str], given_up: Collection[Share], counts: Sequence[Count], keys: Keys, store: Store
    ) -> None:
        """Renew the leases. Runs in the records' thread."""
        began = time.monotonic()
        owned = leases.renew(store.database, self._name, queues, given_up, _ago(counts))
        self._tell(partial(self._renewed, keys, began, owned))

    def _renewed(self, keys: Keys, began: float, owned: Owned) -> None:
        now = time.monotonic()
        before: Mapping[Share, float] = self._since
        self._since = {share: before.get(share, now) for share in owned.shares}
        self._unwanted = owned.unwanted
        self._until = began + LASTS
        self._ask_at = began + EVERY
        self._asks = 0
        self.is_settled = True
        if owned.taken:
            _learn(keys, owned, now)

    def _book(self) -> None:
        """Write all that was asked for by now."""
        self._booking, self._wanted = [*self._booking, *self._wanted], []
        self._book_again_at = time.monotonic() + ASK_AGAIN
        counts = []
        for line, number, _ in self._booking:
            line.key.unsaved |= {line.queue}
            counts.append((_count(line.key, line.queue), line.asked + number))
        self._recorder.do(partial(self._write_ahead, self._booking, counts))

    def _write_ahead(
        self, booking: list[tuple[Line, int, Booked]], counts: Sequence[tuple[Count, int]], store: Store
    ) -> None:
        """Write the starts. Runs in the records' thread."""
        began = time.monotonic()
        ahead = [count._replace(starts=[*count.starts, (began + LASTS, number)]) for count, number in counts]
        ours = leases.book(store.database, self._name, _ago(ahead))
        self._tell(partial(self._written, booking, began, ours))

    def _written(self, booking: list[tuple[Line, int, Booked]], began: float, ours: Collection[Share]) -> None:
        if booking is not self._booking:
            return  # the same was asked for once more since
        self._booking = []
        for line, number, then in booking:
            is_ours = (line.queue, leases.share_of(line.key.name)) in ours
            then(line, number if is_ours else 0, began + LASTS)
        if self._wanted:
            self._book()


def _count(key: Key, queue: str) -> Count:
    """The starts of a key's tasks in a queue, by `time.monotonic`."""
    window = float(key.rate.get_expiry()) if key.rate is not None else 0.0
    starts = condense([at for at, where in key.starts if where == queue], window or 1.0)
    return Count(queue, leases.share_of(key.name), key.name, window, starts)


def _unsaved(keys: Keys, shares: Collection[Share] | None) -> list[Count]:
    """The starts that the records do not know exactly, of these shares' keys; None: of all keys."""
    found = (_count(key, queue) for key in keys for queue in key.unsaved)
    return [count for count in found if shares is None or (count.queue, count.share) in shares]


def _ago(counts: Sequence[Count]) -> list[Count]:
    """The same counts, with times in seconds from now."""
    now = time.monotonic()
    return [count._replace(starts=[(at - now, number) for at, number in count.starts]) for count in counts]


def _learn(keys: Keys, owned: Owned, now: float) -> None:
    """Take the starts of keys that were another supervisor's from the records, in place of what is remembered."""
    for key in keys:
        share = leases.share_of(key.name)
        for queue in {queue for _, queue in key.starts if (queue, share) in owned.taken}:
            key.learn(queue, ())
    for count in owned.counts:
        times = chain.from_iterable(repeat(now + at, number) for at, number in count.starts)
        keys.find(count.key).learn(count.queue, times)

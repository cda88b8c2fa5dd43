"""Which keys of limits are this supervisor's, where records say so: renewed by the thread that writes them."""

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
"""Seconds after which a renewal that has not been answered is asked for once more."""


class Leases:
    """See the module; an `Owner` of the gate.

    Args:
        recorder: what works on the records, in a thread.
        name: this supervisor's, among all that share the records.
        tell: has the loop call something.
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
        """Since when a key's queue is ours; None: it is not, or nobody has said so for too long."""
        share = queue, leases.share_of(key)
        if time.monotonic() >= self._until or share in self._unwanted:
            return None
        return self._since.get(share)

    def tend(self, queues: Collection[str], keys: Keys) -> None:
        """Renew, where it is time; what is another's by right is given up when nothing of it runs."""
        now = time.monotonic()
        if self._booking and now >= self._book_again_at:
            self._book()
        if now < self._ask_at or not queues:
            return
        self._ask_at = now + ASK_AGAIN
        given_up: set[Share] = set()
        if self._unwanted and not self._asks:  # what was asked before may still come, and see another state of things
            used = {leases.share_of(key.name) for key in keys if key.out}
            given_up = {share for share in self._unwanted if share[1] not in used}
        self._asks += 1
        counts = _unsaved(keys, given_up) if given_up else []
        self._recorder.do(partial(self._renew, tuple(queues), given_up, counts, keys))

    def book(self, line: Line, number: int, then: Booked) -> None:
        """Have it written that so many are about to begin: while that is done, what else is wanted is gathered."""
        self._wanted.append((line, number, then))
        if not self._booking:
            self._book()

    def close(self, keys: Keys) -> None:
        """Nothing is ours any more, and nothing of ours runs."""
        self._until = 0.0
        counts = _unsaved(keys, None)
        self._recorder.do(lambda store: leases.leave(store.database, self._name, _ago(counts)))

    def _renew(
        self, queues: Collection[str], given_up: Collection[Share], counts: Sequence[Count], keys: Keys, store: Store
    ) -> None:
        """In the records' thread."""
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
        """Have written what is wanted by now."""
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
        """In the records' thread."""
        began = time.monotonic()
        ahead = [count._replace(starts=[*count.starts, (began + LASTS, number)]) for count, number in counts]
        ours = leases.book(store.database, self._name, _ago(ahead))
        self._tell(partial(self._written, booking, began, ours))

    def _written(self, booking: list[tuple[Line, int, Booked]], began: float, ours: Collection[Share]) -> None:
        if booking is not self._booking:
            return  # it was asked for once more since
        self._booking = []
        for line, number, then in booking:
            is_ours = (line.queue, leases.share_of(line.key.name)) in ours
            then(line, number if is_ours else 0, began + LASTS)
        if self._wanted:
            self._book()


def _count(key: Key, queue: str) -> Count:
    """What began of a key, by `time.monotonic`."""
    window = float(key.rate.get_expiry()) if key.rate is not None else 0.0
    starts = condense([at for at, where in key.starts if where == queue], window or 1.0)
    return Count(queue, leases.share_of(key.name), key.name, window, starts)


def _unsaved(keys: Keys, shares: Collection[Share] | None) -> list[Count]:
    """What the records do not know exactly of these shares' keys; None: of any."""
    found = (_count(key, queue) for key in keys for queue in key.unsaved)
    return [count for count in found if shares is None or (count.queue, count.share) in shares]


def _ago(counts: Sequence[Count]) -> list[Count]:
    """The same by seconds from now."""
    now = time.monotonic()
    return [count._replace(starts=[(at - now, number) for at, number in count.starts]) for count in counts]


def _learn(keys: Keys, owned: Owned, now: float) -> None:
    """Of keys that were another's, what the records know holds, and nothing that is remembered."""
    for key in keys:
        share = leases.share_of(key.name)
        for queue in {queue for _, queue in key.starts if (queue, share) in owned.taken}:
            key.learn(queue, ())
    for count in owned.counts:
        times = chain.from_iterable(repeat(now + at, number) for at, number in count.starts)
        keys.find(count.key).learn(count.queue, times)

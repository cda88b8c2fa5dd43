"""Which keys of limits are this supervisor's, where records say so: renewed by the thread that writes them."""

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from ..state.records import leases
from ..state.records.leases import Owned, Share
from ..state.records.store import Store
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
        self.is_settled = False

    def since(self, queue: str, key: str) -> float | None:
        """Since when a key's queue is ours; None: it is not, or nobody has said so for too long."""
        share = queue, leases.share_of(key)
        if time.monotonic() >= self._until or share in self._unwanted:
            return None
        return self._since.get(share)

    def tend(self, queues: Collection[str], busy: Callable[[], Collection[str]]) -> None:
        """Renew, where it is time; what is another's by right is given up when nothing of it runs."""
        now = time.monotonic()
        if now < self._ask_at or not queues:
            return
        self._ask_at = now + ASK_AGAIN
        given_up: list[Share] = []
        if self._unwanted and not self._asks:  # what was asked before may still come, and see another state of things
            used = set(map(leases.share_of, busy()))
            given_up = [share for share in self._unwanted if share[1] not in used]
        self._asks += 1
        self._recorder.do(partial(self._renew, tuple(queues), given_up))

    def close(self) -> None:
        """Nothing is ours any more, and nothing of ours runs."""
        self._until = 0.0
        self._recorder.do(lambda store: leases.leave(store.database, self._name))

    def _renew(self, queues: Collection[str], given_up: Collection[Share], store: Store) -> None:
        """In the records' thread."""
        began = time.monotonic()
        owned = leases.renew(store.database, self._name, queues, given_up)
        self._tell(partial(self._renewed, began, owned))

    def _renewed(self, began: float, owned: Owned) -> None:
        now = time.monotonic()
        before: Mapping[Share, float] = self._since
        self._since = {share: before.get(share, now) for share in owned.shares}
        self._unwanted = owned.unwanted
        self._until = began + leases.LASTS
        self._ask_at = began + EVERY
        self._asks = 0
        self.is_settled = True

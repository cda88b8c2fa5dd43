"""The metrics of a supervisor (`--metrics`): what it counts and measures for them, and the server that shows them."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence

from .. import log
from ..address import Address
from ..message.glance import glance
from ..settings import Settings
from ..telemetry.collector import Snapshot, State
from ..telemetry.endpoint import Endpoint
from .counting import Counting
from .exits import EXITS
from .recorder import Recorder
from .slot import Slot


class Metering:
    """Measures a supervisor and serves its metrics.

    Args:
        address: where to serve them.

    Raises:
        OSError: that address can't be listened on.
    """

    def __init__(self, address: Address) -> None:
        self._state = State(exits=dict.fromkeys(EXITS, 0))
        self._endpoint = Endpoint(address, self._state)
        self._recorder = Recorder()

    def start(self) -> None:
        """Begin to serve."""
        self._endpoint.start()
        log.note(f"metrics are served on http://{self._endpoint.address}/metrics")

    def count(self, recorder: Recorder) -> Recorder:
        """The recorder to use in place of this one: it also counts what it is told."""
        self._recorder = Counting(self._state, recorder)
        return self._recorder

    def use(self, settings: Settings) -> None:
        """Go by these settings: the application was loaded with them."""
        self._state.tallies.use(settings)
        self._state.settings = settings

    def tick(self, now: float, slots: Sequence[Slot], is_ready: bool) -> None:
        """Measure what goes on; called a few times a second.

        Args:
            now: of `time.monotonic`.
            slots: all that have not ended.
            is_ready: whether the supervisor serves, and all its worker processes are up.
        """
        paused = self._recorder.paused
        idle = {queue for slot in slots if slot.condition == "idle" for queue in slot.queues} - paused
        self._look_at_fronts(slots, idle)
        self._state.snapshot = Snapshot(
            now, is_ready, Counter(slot.condition for slot in slots),
            sum(slot.process is not None and slot.process.running is not None for slot in slots),
            self._recorder.dropped,
            {queue: queue in paused for queue in {*paused, *(queue for slot in slots for queue in slot.queues)}},
            idle,
        )  # fmt: skip

    def close(self) -> None:
        """Stop serving."""
        self._endpoint.close()

    def _look_at_fronts(self, slots: Sequence[Slot], idle: Iterable[str]) -> None:
        """Note how long the first job of each queue may have waited: at most since the time of the job grabbed last."""
        fronts = self._state.fronts
        fronts.update(dict.fromkeys(idle, time.time()))
        for slot in slots:
            held = slot.process.running if slot.process is not None else None
            if held is not None:
                found = glance(held.job.payload)
                queue = held.job.base_queue
                fronts[queue] = max(fronts.get(queue, 0.0), found[1] if found is not None else held.grabbed_at)

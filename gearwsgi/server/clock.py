"""A timer that rings at a time of the wall clock."""

import asyncio
from collections.abc import Callable
from math import inf

__all__ = ["Clock"]


class Clock:
    """Calls `ring` when a time has come, and every second until then: the wall clock may jump."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._at = inf

    def wake_at(self, at: float, now: float) -> None:
        """Ring at `at` (seconds since 1970), unless it is to ring earlier anyway."""
        if at >= self._at:
            return
        self.stop()
        self._at = at
        delay = min(max(at - now, 0.0), 1.0)
        self._handle = self._loop.call_later(delay, self._on_time)

    def stop(self) -> None:
        """Do not ring any more."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._at = None, inf

    def _on_time(self) -> None:
        self._handle, self._at = None, inf
        self._ring()

"""How many jobs a slot holds at a time: one, or while they are short so many that its process never waits. Pure."""

import math
from collections import deque

SHORT = 0.020
"""Seconds that a job takes at most for others to be held ahead of their turn."""
AHEAD = 0.0025
"""Seconds of work that are held ahead, where jobs are shorter still: more than the loop's pause and a round trip."""
MAX_AHEAD = 64
_REMEMBERED = 16


class Pace:
    """Decides, by what the last jobs took, how many jobs a slot may hold.

    Attributes:
        hold: how many jobs to hold, the one that runs included.
    """

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._window = 0
        self.hold = 1

    def count(self, seconds: float) -> None:
        """Take into account a job that has ended and took so long."""
        self._recent.append(seconds)

    def hold_back(self) -> None:
        """Hold none ahead for a while: a job has ended after which that is not wanted."""
        self._recent.append(math.inf)

    def advance(self) -> None:
        """Take a batch of answers as counted: hold twice as many ahead as before, until that is enough."""
        if len(self._recent) < _REMEMBERED or max(self._recent) > SHORT:
            self._window, self.hold = 0, 1
            return
        self._window = min(2 * self._window, MAX_AHEAD) or 1
        took = sum(self._recent) / _REMEMBERED
        self.hold = 1 + max(1, min(self._window, int(AHEAD / took) if took else MAX_AHEAD))

    def queue_was_empty(self) -> None:
        """Hold none ahead: the job server has nothing more, and other workers may want the few jobs that come next."""
        self._window, self.hold = 0, min(self.hold, 2)

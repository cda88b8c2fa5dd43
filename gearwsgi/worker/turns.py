"""In which turn jobs are asked for of the many queues of keys.

Before a task of a key with a rate begins, it is written to the records that it is about to, and what is written holds
for seconds only. So it is written for a few queues at a time, no more than are used within that time. Those queues have
a turn of their own: behind a hundred thousand others, the time would be over before they are asked for.
"""

from .keys import Line

MOST = 100
"""For how many queues of keys with a rate starts are written ahead, or being written, at a time."""

Lines = dict[str, dict[str, Line]]
"""By queue and by function; the one whose turn is next comes first."""


class Turns:
    """The queues of keys that have something waiting. There are three turns: those without a rate, those with starts
    written ahead, and those with starts yet to be written.

    Attributes:
        writing: for how many of these queues starts are just being written ahead.
    """

    def __init__(self) -> None:
        self.writing = 0
        self._plain: Lines = {}
        self._written: Lines = {}
        self._unwritten: Lines = {}
        self._is_plains = False

    def add(self, line: Line, now: float) -> None:
        """Give it a turn: something waits there. Where it has one already, it keeps its place."""
        kind = self._plain if line.key.rate is None else self._written if line.booked(now) else self._unwritten
        lines = kind.setdefault(line.queue, {})
        if line.function not in lines:
            self.remove(line)
            lines[line.function] = line

    def remove(self, line: Line) -> None:
        """Take it out of all turns: nothing waits there any more."""
        for kind in (self._plain, self._written, self._unwritten):
            kind.get(line.queue, {}).pop(line.function, None)

    def has_any(self, queue: str | None = None) -> bool:
        """Whether one of this queue (None: of any) may be asked for, or have starts written ahead."""
        kinds = [self._plain, self._written, *([self._unwritten] if self._has_room() else [])]
        if queue is None:
            return any(lines for kind in kinds for lines in kind.values())
        return any(kind.get(queue) for kind in kinds)

    def take(self, queue: str) -> Line | None:
        """Take out the next one that may be asked for; those with and those without a rate alternate."""
        self._is_plains = not self._is_plains
        first, second = self._written.get(queue), self._plain.get(queue)
        return _pop((second or first) if self._is_plains else (first or second))

    def take_unwritten(self, queue: str) -> Line | None:
        """Take out the next one that needs starts written ahead; None where enough of them have that."""
        return _pop(self._unwritten.get(queue)) if self._has_room() else None

    def _has_room(self) -> bool:
        return self.writing + sum(map(len, self._written.values())) < MOST


def _pop(lines: dict[str, Line] | None) -> Line | None:
    return lines.pop(next(iter(lines))) if lines else None

"""The queues of keys that a job may be asked for, each in its turn; of those that have a rate a few at a time.

Of a key with a rate it is written that a task is about to begin before one does, and that holds for seconds. So no more
of that is asked for at once than is used meanwhile, and those of which it is written are in a turn of their own: behind
a hundred thousand others it would be over before they are asked for.
"""

from .keys import Line

MOST = 100
"""Queues of keys with a rate of which it is written at once that tasks are about to begin, or is about to be."""

Lines = dict[str, dict[str, Line]]
"""By their queues and their functions, the next one first."""


class Turns:
    """See the module.

    Attributes:
        writing: of how many it is being written.
    """

    def __init__(self) -> None:
        self.writing = 0
        self._plain: Lines = {}
        self._written: Lines = {}
        self._unwritten: Lines = {}
        self._is_plains = False

    def add(self, line: Line, now: float) -> None:
        """Something waits there; it keeps its place where it has one."""
        kind = self._plain if line.key.rate is None else self._written if line.booked(now) else self._unwritten
        lines = kind.setdefault(line.queue, {})
        if line.function not in lines:
            self.remove(line)
            lines[line.function] = line

    def remove(self, line: Line) -> None:
        """Nothing waits there any more."""
        for kind in (self._plain, self._written, self._unwritten):
            kind.get(line.queue, {}).pop(line.function, None)

    def has_any(self, queue: str | None = None) -> bool:
        """Whether there is one of this queue, or of any, that may be asked for or written of."""
        kinds = [self._plain, self._written, *([self._unwritten] if self._has_room() else [])]
        if queue is None:
            return any(lines for kind in kinds for lines in kind.values())
        return any(kind.get(queue) for kind in kinds)

    def take(self, queue: str) -> Line | None:
        """The next one that may be asked for: those with and without a rate take turns. It is in no turn after that."""
        self._is_plains = not self._is_plains
        first, second = self._written.get(queue), self._plain.get(queue)
        return _pop((second or first) if self._is_plains else (first or second))

    def take_unwritten(self, queue: str) -> Line | None:
        """The next one of which it is to be written; None where there are enough of those."""
        return _pop(self._unwritten.get(queue)) if self._has_room() else None

    def _has_room(self) -> bool:
        return self.writing + sum(map(len, self._written.values())) < MOST


def _pop(lines: dict[str, Line] | None) -> Line | None:
    return lines.pop(next(iter(lines))) if lines else None

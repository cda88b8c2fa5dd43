"""Signals that wake the supervisor's loop, and wait there until it asks for them."""

import signal
import socket
from collections import deque
from types import FrameType

from .loop import Loop

_HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
"""What asks for something; in the second line, what would end the supervisor and its jobs without a word."""


class Signals:
    """Listens from now on.

    Args:
        loop: what they wake.
    """

    def __init__(self, loop: Loop) -> None:
        self._waiting: deque[int] = deque()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        loop.listen(self._ours, lambda: self._ours.recv(4096))
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in (*_HEARD, signal.SIGCHLD):
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the command line had it wait for us

    def next(self) -> int:
        """The next one that came, or 0."""
        return self._waiting.popleft() if self._waiting else 0

    def _note(self, number: int, stack: FrameType | None) -> None:
        if number != signal.SIGCHLD:  # which only wakes the loop
            self._waiting.append(number)

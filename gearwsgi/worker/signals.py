"""Signals: each wakes the supervisor's loop, and is kept until the loop asks for it."""

import signal
import socket
from collections import deque
from types import FrameType

from .loop import Loop

_HEARD = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
"""The signals that ask for something; in the second line those that would end the supervisor, and its jobs, unheard."""


class Signals:
    """Listens for signals from when it is made.

    Args:
        loop: the loop to wake.
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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the command line has blocked it until now

    def next(self) -> int:
        """The next signal that came, or 0."""
        return self._waiting.popleft() if self._waiting else 0

    def _note(self, number: int, stack: FrameType | None) -> None:
        if number != signal.SIGCHLD:  # that one only wakes the loop
            self._waiting.append(number)

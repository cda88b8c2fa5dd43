"""Where worker processes come from, as a slot and its process see it, and what is told of each."""

import signal
import socket
from typing import IO, Protocol


class NoForkServer(Exception):
    """There is no fork server that could be asked just now."""


class Forked(Protocol):
    """A process that was asked for."""

    @property
    def is_over(self) -> bool: ...
    def on_forked(self, pid: int) -> None: ...
    def on_refused(self, reason: str) -> None: ...
    def on_exit(self, status: int | None) -> None: ...


class Forks(Protocol):
    """A fork server. `fork` raises `NoForkServer` where there is none; once `gone`, it says no more of anybody."""

    @property
    def gone(self) -> bool: ...
    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None: ...
    def kill(self, pid: int, number: int = signal.SIGKILL) -> None: ...

"""The interface between a slot's process and the fork server that makes it: what each may ask and tell."""

import signal
import socket
from typing import IO, Protocol


class NoForkServer(Exception):
    """There is no fork server that could be asked for a process just now."""


class Forked(Protocol):
    """What is told of a process that was asked for: how it was started, and how it ended."""

    @property
    def is_over(self) -> bool: ...
    def on_forked(self, pid: int) -> None: ...
    def on_refused(self, reason: str) -> None: ...
    def on_exit(self, status: int | None) -> None: ...


class Forks(Protocol):
    """A fork server. `fork` raises `NoForkServer` where it can't be asked; once it is `gone`, it tells nothing more."""

    @property
    def gone(self) -> bool: ...
    def fork(self, process: Forked, pipe: socket.socket, memory: IO[bytes]) -> None: ...
    def kill(self, pid: int, number: int = signal.SIGKILL) -> None: ...

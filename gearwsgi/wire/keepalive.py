"""How soon a connection learns that the other end's host has vanished: a cut link, a power-off."""

import socket
from typing import Protocol

_IDLE, _INTERVAL, _COUNT = 20, 10, 3  # seconds of silence until the first question, seconds between two, how many
_UNANSWERED = 50  # seconds that what was sent may wait for the other kernel's word


class _Socket(Protocol):
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def notice_vanished_host(connection: _Socket) -> None:
    """Have the kernel end the TCP connection within a minute after the other end's host has gone without a word.

    The system's own patience is two hours. macOS lacks the last option, and calls the first one otherwise.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in (
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), _IDLE),
        (("TCP_KEEPINTVL",), _INTERVAL),
        (("TCP_KEEPCNT",), _COUNT),
        (("TCP_USER_TIMEOUT",), _UNANSWERED * 1000),
    ):
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)

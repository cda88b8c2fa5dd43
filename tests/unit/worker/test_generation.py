"""A fork server is believed as far as what it says can be true: the application it loads may write to its socket."""

import socket
from typing import Any

import pytest

from gearwsgi.worker.generation import Generation
from gearwsgi.worker.loop import Loop


class Server:
    """A fork server of which there is only the socket."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.killed = False

    def kill(self) -> None:
        self.killed = True


class Supervisor:
    """Hears how it went."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_loaded(self, generation: Generation, settings: dict[str, Any]) -> None:
        self.heard.append("loaded")

    def on_failed(self, generation: Generation, reason: str, trace: str) -> None:
        self.heard.append("failed")

    def on_gone(self, generation: Generation) -> None:
        self.heard.append("gone")


@pytest.mark.parametrize(
    "line",
    [
        b"printed",
        b"[]",
        b'{"pid": 7}',
        b'{"refused": "x"}',
        b'{"failed": "x"}',
        b'{"exit": [1]}',
        b'{"exit": 1}',
        b"{}",
    ],
)
def test_what_an_application_writes_to_its_fork_servers_socket_ends_no_supervisor(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    loop, supervisor, server = Loop(), Supervisor(), Server(ours)
    stub: Any = server
    generation = Generation(stub, loop, supervisor)
    theirs.sendall(line + b"\n")
    loop.turn(0.0)
    assert generation.gone and server.killed and supervisor.heard == ["gone"]
    theirs.close()
    loop.close()

"""Servers to test: gearmand and the embedded one behind one face."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gearwsgi.server.embedded import EmbeddedServer
from tests.integration.server.wire import CAN_DO, Wire, until

GEARMAND = shutil.which("gearmand", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Server:
    """A running job server of either kind."""

    kind = ""
    address: tuple[str, int]
    pid: int

    def __init__(self) -> None:
        self.wires: list[Wire] = []

    def connect(self, **options: Any) -> Wire:
        self.wires.append(Wire(self.address, **options))
        return self.wires[-1]

    def worker(self, *functions: bytes) -> Wire:
        """A connection that serves these functions; the server knows it already."""
        wire = self.connect()
        for function in functions:
            wire.send(CAN_DO, function)
        wire.nothing_more()
        return wire

    def differs(self, why: str) -> None:
        """End the test here for gearmand, which does not do what follows."""
        if self.kind == "gearmand":
            pytest.skip(f"gearmand 1.1.20 {why}")

    def close(self) -> None:
        for wire in self.wires:
            wire.close()


class Embedded(Server):
    kind = "embedded"

    def __init__(self, state_dir: Path, *options: str, listen: str = "127.0.0.1:0") -> None:
        super().__init__()
        self.server = EmbeddedServer(listen, state_dir, *options)
        self.state_dir = state_dir
        self.start()

    def start(self) -> None:
        self.server.start(timeout=30)
        host, _, port = self.server.address.rpartition(":")
        self.address, self.pid = (host.strip("[]"), int(port)), self.server.pid

    def crash(self) -> None:
        """SIGKILL, and start again."""
        self.server.kill()
        self.start()

    def restart(self) -> None:
        """SIGTERM, and start again."""
        assert self.server.stop(timeout=30) == 0
        self.start()

    def clear(self) -> None:
        """Leave nothing of a test: neither connections nor jobs nor functions."""
        super().close()
        self.wires.clear()
        wire = Wire(self.address)
        until(lambda: len(wire.table(b"workers")) == 1)
        for handle, *_ in wire.table(b"show jobs"):
            assert wire.text(b"cancel job " + handle) == b"OK"
        for function, *_ in wire.table(b"status"):
            assert wire.text(b"drop function " + function) == b"OK"
        wire.close()

    def close(self) -> None:
        super().close()
        self.server.kill()


class Gearmand(Server):
    kind = "gearmand"

    def __init__(self) -> None:
        super().__init__()
        for _ in range(5):  # another process may take the port between our looking and gearmand's binding
            with socket.create_server(("127.0.0.1", 0)) as listener:
                self.address = listener.getsockname()[:2]
            command = [GEARMAND or "", "-L", self.address[0], "-p", str(self.address[1]), "-l", "none", "-t", "1"]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if until(lambda: self._up() or self.process.poll() is not None) and self.process.poll() is None:
                self.pid = self.process.pid
                return
        raise RuntimeError("gearmand does not start")

    def _up(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(self.address, timeout=1).close()
            return True
        return False

    def close(self) -> None:
        super().close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def cleared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """An embedded server that the tests of a module share: gearmand starts in no time, this one takes a while."""
    made = Embedded(tmp_path_factory.mktemp("cleared") / "state")
    yield made
    made.close()


@pytest.fixture(params=["embedded", "gearmand"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Either server, without jobs."""
    if request.param == "embedded":
        shared: Embedded = request.getfixturevalue("cleared")
        yield shared
        shared.clear()
        return
    if GEARMAND:
        found = Gearmand()
    elif os.environ.get("CI") == "true":
        pytest.fail("gearmand is not installed, and CI runs against it")
    else:
        pytest.skip("gearmand is not installed")
    yield found
    found.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Callable[..., Embedded]]:
    """Starts embedded servers, with options."""
    started: list[Embedded] = []

    def start(*options: str, state_dir: Path | None = None, **more: Any) -> Embedded:
        started.append(Embedded(state_dir or tmp_path / f"state{len(started)}", *options, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares an embedded server runs in one process."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("server") == "embedded" and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group(f"server-{item.path.stem}"))

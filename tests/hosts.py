"""Hosts of a test's own: network namespaces on one bridge, with links that can be cut and mended. Linux, as root."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import PATIENCE


def require() -> None:
    """Skip where there can be no hosts: that needs root, and `ip`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("hosts are network namespaces, which only root on Linux can make: not tested past one machine")
    if shutil.which("ip") is None:
        if os.environ.get("CI"):
            pytest.fail("iproute2 is not installed; CI must test with several hosts")
        pytest.skip("iproute2 is not installed (Debian: iproute2): not tested past one machine")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class Host:
    """One host: a network namespace with a name and an address of its own."""

    def __init__(self, network: "Network", name: str, number: int) -> None:
        self.name = name
        self.address = f"{network.net}.{number}"
        self.namespace = f"{network.prefix}-{name}"
        self._network = network
        self._link = f"{network.prefix}{number}"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def command(self) -> list[str]:
        """What a command begins with that runs on it."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.namespace, *named]

    def connect(self) -> None:
        """Make it, and its link to the others."""
        hub = self._network.hub
        _ip("netns", "add", self.namespace)
        _ip("-n", hub, "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("-n", hub, "link", "set", self._link, "master", "bridge", "up")
        _ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self.namespace, "link", "set", device, "up")

    def cut(self) -> None:
        """No packet comes or goes."""
        _ip("-n", self._network.hub, "link", "set", self._link, "down")

    def mend(self) -> None:
        """They do again."""
        _ip("-n", self._network.hub, "link", "set", self._link, "up")

    def start(self, *command: str, log: Path, env: Mapping[str, str] = {}, folder: Path | None = None) -> None:
        """Run a command there, in the background."""
        with log.open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    [*self.command, *command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder,
                    env={**os.environ, **env}, start_new_session=True,
                )
            )  # fmt: skip

    def run(self, *arguments: str, env: Mapping[str, str], folder: Path, ok: bool = True) -> str:
        """Run `gearwsgi` there, and answer what it printed: on standard error where it fails."""
        done = subprocess.run(
            [*self.command, sys.executable, "-m", "gearwsgi", *arguments], capture_output=True, text=True, cwd=folder,
            env={**os.environ, **env}, timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    def stop(self) -> None:
        """End what runs on it, and take it away."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)


class Network:
    """Hosts on one bridge, which this process reaches, too."""

    def __init__(self) -> None:
        self.prefix = f"gw{os.getpid()}"
        self.net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.hub = f"{self.prefix}-hub"
        self.hosts: list[Host] = []
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        _ip("-n", self.hub, "link", "set", "bridge", "up")
        own = f"{self.prefix}o"
        _ip("link", "add", own, "type", "veth", "peer", "name", "own", "netns", self.hub)
        _ip("-n", self.hub, "link", "set", "own", "master", "bridge", "up")
        _ip("addr", "add", f"{self.net}.1/24", "dev", own)
        _ip("link", "set", own, "up")

    def host(self, name: str) -> Host:
        """One more host."""
        made = Host(self, name, len(self.hosts) + 2)
        self.hosts.append(made)
        made.connect()
        return made

    def close(self) -> None:
        for host in self.hosts:
            host.stop()
        subprocess.run(["ip", "link", "del", f"{self.prefix}o"], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.hub], capture_output=True)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network for a while."""
    made = Network()
    try:
        yield made
    finally:
        made.close()

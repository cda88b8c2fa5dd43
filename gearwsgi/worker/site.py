"""What a supervisor has beside its workers, once it knows the settings: what outlives each load of the application.

The embedded job server, the outbox's relay, what opens connections, which job servers are down, and the status file.
"""

from typing import Any

from .. import log
from ..address import Address
from ..errors import ConfigError, SpoolError
from ..settings import Settings
from ..state.outbox import Outbox, Relay
from ..state.spool import make_private_folder
from ..state.status import StatusFile
from ..submit.client import Client
from ..wire.launch import EmbeddedProcess
from .link import Connector
from .loop import Loop

STATUS_INTERVAL = 1.0
"""Seconds between two writes of the status file."""


class JobServers:
    """Which job servers are there: logged once when one goes, and once when it comes, however many slots tell it."""

    def __init__(self) -> None:
        self._down: set[Address] = set()

    def went(self, address: Address, reason: str) -> None:
        """A link to it is lost, or was not to be had."""
        if address not in self._down:
            self._down.add(address)
            log.note(f"job server {address} is gone, trying again: {reason.removeprefix(f'job server {address}: ')}")

    def came(self, address: Address) -> None:
        """A link to it stands."""
        if address in self._down:
            self._down.remove(address)
            log.note(f"job server {address} is back")

    def down(self) -> list[str]:
        """Those that are not there."""
        return sorted(map(str, self._down))


class Site:
    """Made when the application is loaded for the first time.

    Args:
        settings: the middleware's.
        loop: the supervisor's.

    Raises:
        ConfigError: the state directory is not usable.
        StartError: the embedded job server can't start.
    """

    def __init__(self, settings: Settings, loop: Loop) -> None:
        try:
            make_private_folder(settings.state_dir)
        except SpoolError as error:
            raise ConfigError(str(error)) from error
        self.servers = JobServers()
        self.connector = Connector(loop, settings.connect_timeout)
        self._embedded: EmbeddedProcess | None = None
        if settings.embedded:
            self._embedded = EmbeddedProcess(settings.servers[0], settings.state_dir)
            if self._embedded.ensure():
                log.note(f"embedded job server started on {settings.servers[0]}, pid {self._embedded.pid}")
        if not settings.secret_keys and not all(address.is_loopback for address in settings.servers):
            log.note(
                "WARNING: no secret_keys, and a job server that others can reach: whoever does can run any request"
            )
        self._relay = Relay(Outbox(settings), Client(settings).submit_now, forever=True)
        self._relay.start()
        self._file = StatusFile(settings.state_dir)
        self._write_at = 0.0

    @property
    def has_relayed(self) -> bool:
        """Whether what is left in the outbox waits for a job server, or for its time."""
        return self._relay.has_passed

    def tend(self) -> None:
        """Start an embedded job server again that has ended."""
        if self._embedded is not None and self._embedded.exit_code() is not None:
            log.note(f"the embedded job server ended with exit code {self._embedded.exit_code()}; starting it again")
            self._embedded.ensure()

    def is_due(self, now: float) -> bool:
        """Whether the status file is to be written."""
        if now < self._write_at:
            return False
        self._write_at = now + STATUS_INTERVAL
        return True

    def write(self, values: dict[str, Any]) -> None:
        """Write the status file."""
        self._file.write({**values, "down": self.servers.down()})

    def close(self) -> None:
        """End what there is."""
        self._relay.stop()
        if self._embedded is not None:
            self._embedded.stop()
        self._file.remove()

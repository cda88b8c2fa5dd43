"""Which job servers are there, as the slots' links have it."""

from collections import Counter

from .. import log
from ..address import Address


class JobServers:
    """Which job servers are there: logged once when one goes, and once when it comes, however many slots tell it."""

    def __init__(self) -> None:
        self._down: set[Address] = set()
        self._refusing: set[Address] = set()
        self.losses: Counter[Address] = Counter()
        """How often a link to each was lost, or was not to be had."""

    def went(self, address: Address, reason: str) -> None:
        """A link to it is lost, or was not to be had."""
        self.losses[address] += 1
        if address not in self._down:
            self._down.add(address)
            log.note(f"job server {address} is gone, trying again: {reason.removeprefix(f'job server {address}: ')}")

    def came(self, address: Address) -> None:
        """A link to it stands."""
        if address in self._down:
            self._down.remove(address)
            log.note(f"job server {address} is back")

    def is_down(self, address: Address) -> bool:
        """Whether nobody is connected to it."""
        return address in self._down

    def refused(self, address: Address, reason: str) -> None:
        """It answers GRAB_JOB_UNIQ with an error, as a server does that is no gearmand."""
        if address not in self._refusing:
            self._refusing.add(address)
            log.note(f"job server {address} hands out no jobs with GRAB_JOB_UNIQ, which workers need: {reason}")

    def down(self) -> list[str]:
        """Those that are not there."""
        return sorted(map(str, self._down))

"""Which job servers can be reached, as the slots' links know it."""

from collections import Counter

from .. import log
from ..address import Address


class JobServers:
    """Counts the links to each job server. When one can't be reached any more, or can again, that is logged once.

    It does not matter how many slots tell the same.
    """

    def __init__(self) -> None:
        self._down: set[Address] = set()
        self._refusing: set[Address] = set()
        self.losses: Counter[Address] = Counter()
        """How often a link to each job server was lost, or could not be made."""

    def went(self, address: Address, reason: str) -> None:
        """Note that a link to it is lost, or could not be made."""
        self.losses[address] += 1
        if address not in self._down:
            self._down.add(address)
            log.note(f"job server {address} is gone, trying again: {reason.removeprefix(f'job server {address}: ')}")

    def came(self, address: Address) -> None:
        """Note that a link to it stands."""
        if address in self._down:
            self._down.remove(address)
            log.note(f"job server {address} is back")

    def is_down(self, address: Address) -> bool:
        """Whether nobody is connected to it."""
        return address in self._down

    def refused(self, address: Address, reason: str) -> None:
        """Note that it answers GRAB_JOB_UNIQ with an error, as a job server does that is no gearmand; logged once."""
        if address not in self._refusing:
            self._refusing.add(address)
            log.note(f"job server {address} hands out no jobs with GRAB_JOB_UNIQ, which workers need: {reason}")

    def down(self) -> list[str]:
        """The job servers that nobody is connected to."""
        return sorted(map(str, self._down))

"""The turnstile of a slot: asks the gate for a permit, and keeps it until the one job of a key has ended."""

from collections.abc import Mapping, Sequence

from ..address import Address
from .keys import Permit
from .limits import Gate
from .session import Session


class Turnstile:
    """One slot's way through the gate: it has one permit at a time.

    Args:
        gate: the supervisor's gate.
        queues: the queues that the slot serves.
    """

    def __init__(self, gate: Gate, queues: Sequence[str]) -> None:
        self._gate = gate
        self._queues = queues
        self._permit: Permit | None = None
        self._session: Session | None = None
        self._owes_turn = False

    def room(self, sessions: Mapping[Address, Session], held: int, *, is_free: bool) -> int | None:
        """How many jobs without a key the slot may hold now; None: as many as it likes.

        Where the slot gets a permit, the job is asked for at once.

        Args:
            sessions: the slot's connections.
            held: how many jobs the slot holds.
            is_free: whether the slot holds nothing at all.
        """
        if self._permit is not None:
            return 0
        if not self._gate.has_place(self._queues):
            return None
        busy = any(session.grabs or session.unanswered for session in sessions.values())
        if is_free and not busy and not self._owes_turn:
            permit = self._gate.take_permit(self._queues, sessions.keys())
            if permit is not None:
                self._permit, self._session = permit, sessions[permit.address]
                self._session.grab_of(permit.line.function.encode())
                return 0
        return 1 - held  # none are held ahead, so that the slot is free soon

    def may_start(self) -> bool:
        """Whether a job that has come may run: one of a key may not if the key is another supervisor's by now."""
        if self._permit is not None:
            return self._gate.came(self._permit)
        if self._owes_turn:
            self._owes_turn = False
            self._gate.look()  # this slot is busy now, but others may be free
        return True

    def no_job(self) -> bool:
        """Note that there was no job; whether one without a key had been asked for."""
        if self._permit is not None:
            return False
        self._owes_turn = False
        return True

    def leave(self) -> None:
        """Give the permit back: the slot holds nothing, so the key's job has ended. One without a key is taken next."""
        session = self._session
        if self._permit is None or session is None:
            return
        if session.is_open and (session.grabs or session.unanswered):
            return
        self.close()
        self._owes_turn = True
        session.adapt()

    def close(self) -> None:
        """Give the permit back, if it has one."""
        if self._permit is not None:
            permit, self._permit, self._session = self._permit, None, None
            self._gate.release(permit)

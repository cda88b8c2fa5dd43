"""A slot at the gate: its permit, from the question for one job of a key to that job's end."""

from collections.abc import Mapping, Sequence

from ..address import Address
from .keys import Permit
from .limits import Gate
from .session import Session


class Turnstile:
    """One slot's.

    Args:
        gate: the supervisor's.
        queues: what the slot serves.
    """

    def __init__(self, gate: Gate, queues: Sequence[str]) -> None:
        self._gate = gate
        self._queues = queues
        self._permit: Permit | None = None
        self._session: Session | None = None
        self._owes_turn = False

    def room(self, sessions: Mapping[Address, Session], held: int, *, is_free: bool) -> int | None:
        """How many jobs without a key the slot may hold now; None: as many as it likes.

        Where it gets a permit, the question for the job goes out.

        Args:
            sessions: its connections.
            held: how many jobs it holds.
            is_free: whether it holds nothing at all.
        """
        if self._permit is not None:
            return 0
        if not self._gate.has_place(self._queues):
            return None
        busy = any(session.grabs or session.unanswered for session in sessions.values())
        if is_free and not busy and not self._owes_turn:
            permit = self._gate.claim(self._queues, sessions.keys())
            if permit is not None:
                self._permit, self._session = permit, sessions[permit.address]
                self._session.grab_of(permit.line.function.encode())
                return 0
        return 1 - held  # none ahead: so it is free soon

    def may_start(self) -> bool:
        """A job has come; whether it may run: one of a key may not where that is another supervisor's by now."""
        if self._permit is not None:
            return self._gate.came(self._permit)
        if self._owes_turn:
            self._owes_turn = False
            self._gate.look()  # this slot is busy: others may be free
        return True

    def no_job(self) -> bool:
        """There was none; whether that was one without a key."""
        if self._permit is not None:
            return False
        self._owes_turn = False
        return True

    def leave(self) -> None:
        """The slot holds nothing: the job of a key that it had has ended. Next comes one without, if one waits."""
        session = self._session
        if self._permit is None or session is None:
            return
        if session.is_open and (session.grabs or session.unanswered):
            return
        self.close()
        self._owes_turn = True
        session.adapt()

    def close(self) -> None:
        """The slot ends, or is through."""
        if self._permit is not None:
            permit, self._permit, self._session = self._permit, None, None
            self._gate.release(permit)

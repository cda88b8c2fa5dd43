"""The classes that `task()` and `status()` answer with."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..telemetry.tracing import Sent


class Task:
    """A task that was queued.

    Attributes:
        id: the same in all attempts; a handler sees it as `Idempotency-Key`.
        handle: the job server's; empty while the task waits in the outbox, for `after_response` or for `after`.
        service: what was called.
        queue: the queue (Gearman function).
        server: the job server that has it, as `host:port`.
        span: its OpenTelemetry span, until it is queued; None: the application does not trace.
        on_queued: called when it is queued, which may be at its batch's end; None: nothing is called.
    """

    __slots__ = ("handle", "id", "max_attempts", "on_queued", "queue", "server", "service", "span", "unique")

    def __init__(self, id: str, service: str, queue: str, unique: str, max_attempts: int) -> None:
        self.id = id
        self.service = service
        self.queue = queue
        self.unique = unique
        self.max_attempts = max_attempts
        self.handle = ""
        self.server = ""
        self.span: Sent | None = None
        self.on_queued: Callable[[], object] | None = None

    def __str__(self) -> str:
        return self.handle

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.service} in {self.queue} {self.handle or 'in the outbox'}>"


class Status(str):
    """The state of a task, as text: `queued`, `running`, `running 3 of 10`, `done`, …

    Attributes:
        state: `queued`, `scheduled`, `running`, `retrying`, `done`, `dead`, `cancelled`, `discarded` or `unknown`.
        done: how far it is, of `total`; what its handler reported.
        total: 0 where it reported nothing.
    """

    __slots__ = ("done", "state", "total")

    def __new__(cls, state: str, done: int = 0, total: int = 0) -> "Status":
        status = super().__new__(cls, f"{state} {done} of {total}" if state == "running" and total else state)
        status.state, status.done, status.total = state, done, total
        return status

    state: str
    done: int
    total: int

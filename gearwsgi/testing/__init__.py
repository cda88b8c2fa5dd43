"""The test kit: a queue in memory for tests of an application, and a real one for a test from end to end.

with gearwsgi.testing.capture(application) as tasks:
    client.post("/signup", data={"name": "Ada"})
    assert tasks[0].service == "mail.welcome"
    tasks.run()
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from ..app.overlay import swap
from ..submit.middleware import GearmanMiddleware
from .attempts import QueuedTask, Run
from .live import Live, get_middleware, live
from .memory import Memory, TaskFailed, seal_given
from .queue import Clock
from .schedule import Schedule

__all__ = ["Clock", "Live", "QueuedTask", "Run", "TaskFailed", "Tasks", "capture", "live"]

MAX_RUNS = 1000
"""Attempts in one `run()` after which it gives up, and says that they never end."""


class Tasks(Sequence[QueuedTask]):
    """The tasks that an application has queued inside `capture`, as they were queued, first to last, run or not.

    Attributes:
        clock: the queue's time.
        middleware: the application's GearmanMiddleware.
        schedule: its schedule: `schedule.next("report.daily")` says when that is.
    """

    def __init__(self, memory: Memory, middleware: GearmanMiddleware) -> None:
        self._memory = memory
        self.schedule = Schedule(memory)
        self.clock = memory.clock
        self.middleware = middleware

    @overload
    def __getitem__(self, place: int) -> QueuedTask: ...
    @overload
    def __getitem__(self, place: slice) -> list[QueuedTask]: ...
    def __getitem__(self, place: int | slice) -> QueuedTask | list[QueuedTask]:
        return self._memory.queue.queued[place]

    def __len__(self) -> int:
        return len(self._memory.queue.queued)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | Tasks) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return f"<Tasks {list(self)!r}, {len(self.waiting)} waiting, {len(self.dead)} dead>"

    @property
    def waiting(self) -> list[QueuedTask]:
        """The tasks that are in the queue now, retries and delayed tasks too."""
        return list(self._memory.queue.waiting)

    @property
    def runs(self) -> list[Run]:
        """Every attempt that was run, first to last."""
        return list(self._memory.records.runs)

    @property
    def dead(self) -> list[Run]:
        """The last attempts of the tasks that are dead letters; `reason` says why."""
        return [run for run in self._memory.records.runs if run.fate == "dead"]

    @property
    def stop_requested(self) -> bool:
        """What `job.stop_requested` says in the tasks that run: set it to see them go on later (`Continue`)."""
        return self._memory.stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self._memory.stop_requested = value

    @property
    def calls(self) -> list[QueuedTask]:
        """The calls that were made with `call()`; each is run at once."""
        return list(self._memory.queue.calls)

    def of(self, service: str) -> list[QueuedTask]:
        """The tasks that were queued for this service."""
        return [task for task in self if task.service == service]

    def run(
        self,
        count: int | None = None,
        *,
        until_empty: bool = False,
        queue: str | None = None,
        raises: bool = True,
    ) -> list[Run]:
        """Replay what is due, and what that queues in its turn, in a job server's order.

        Args:
            count: how many attempts at most; `run(1)` takes one.
            until_empty: go on with delayed tasks and retries, and move the clock to each.
            queue: only this queue's.
            raises: raise what a handler raised, with its traceback, once its task's fate is settled; a dead letter
                without an exception is a `TaskFailed`. A handler's `Retry` is never raised.

        Returns:
            The attempts that were run.

        Raises:
            AssertionError: after `MAX_RUNS` attempts: does a task queue itself?
        """
        runs: list[Run] = []
        while count is None or len(runs) < count:
            if len(runs) == MAX_RUNS:
                raise AssertionError(f"{MAX_RUNS} attempts and no end: does a task queue itself?")
            task = self._memory.queue.take(queue)
            if task is not None:
                runs.append(self._memory.run(task, raises=raises))
            elif not (until_empty and self._memory.queue.step(queue)):
                break
        return runs

    def advance(self, seconds: float, *, raises: bool = True) -> list[Run]:
        """Move the clock on by so many seconds and run what comes due on the way, each at its time; ticks too.

        Raises:
            Exception: as `run()`; the clock then stands where that happened.
        """
        end = self.clock.now() + seconds
        runs = self.run(raises=raises)
        while True:
            due = min((task.due for task in self.waiting if task.due <= end), default=None)
            tick = self.schedule.first(end)
            if tick is not None and (due is None or tick <= due):
                self.schedule.move_to(tick)
            elif due is not None:
                self._memory.queue.step(None)
            else:
                break
            runs += self.run(raises=raises)
        self.clock.advance(max(0.0, end - self.clock.now()))
        return runs

    def put(self, payload: bytes, queue: str = "job") -> QueuedTask:
        """Queue a message as another program writes it: an HTTP request in bytes, or a plain JSON call.

        Args:
            payload: the bytes; where there are keys, a message is signed with the first.
            queue: the queue.

        Raises:
            BadMessage: it can't be read.
        """
        return self._memory.queue.put(seal_given(payload, queue, self._memory.settings), queue)

    def clear(self) -> None:
        """Forget everything that was queued and run; the clock stays."""
        self._memory.records.clear()

    def attach(self, client: Any) -> None:
        """Put the middleware in front of a Django test client, which calls Django without the WSGI application.

        Args:
            client: a `django.test.Client`.
        """
        client.handler = _DjangoHandler(client.handler, self.middleware)


class _DjangoHandler:
    """Django's test handler, which takes an environ and returns Django's response, with the middleware around it."""

    def __init__(self, handler: Callable[[dict[str, Any]], Any], middleware: GearmanMiddleware) -> None:
        self._handler = handler
        self._middleware = middleware

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def __call__(self, environ: dict[str, Any]) -> Any:
        answered: list[Any] = []

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            response = self._handler(environ)
            answered.append(response)
            start_response(f"{response.status_code} {response.reason_phrase}", [])
            return []

        around = copy.copy(self._middleware)  # with the client that is in use now
        around.app = app
        started: list[Any] = []
        body: Any = around(environ, lambda *given: started.extend(given))
        content = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        return answered[0] if answered else self._own(environ, started[0], started[1], content)

    @staticmethod
    def _own(environ: dict[str, Any], status: str, headers: list[tuple[str, str]], content: bytes) -> Any:
        """An answer that the middleware gave itself, as Django's response."""
        from django.core.handlers.wsgi import WSGIRequest
        from django.http import HttpResponse

        response = HttpResponse(content, status=int(status[:3]))
        for name, value in headers:
            response[name] = value
        response.wsgi_request = WSGIRequest(environ)
        return response


@contextmanager
def capture(application: Any, *, inline: bool = False, raises: bool = True) -> Iterator[Tasks]:
    """Have `application` queue in memory for the block.

    What its handlers queue is written as a message, signed where there are keys, and read back, checked and replayed
    through `application` as a worker would; no job server, no files, no other process. Time limits are not enforced.

    Args:
        application: the WSGI application as the worker has it; a GearmanMiddleware is it or is somewhere in it.
        inline: run a task when it is queued, unless it is delayed.
        raises: of inline tasks, as in `Tasks.run`.

    Raises:
        ConfigError: there is no GearmanMiddleware.
    """
    middleware = get_middleware(application)
    memory = Memory(middleware.settings, application, Clock(), inline=inline, raises=raises)
    with swap(middleware, memory):
        yield Tasks(memory, middleware)

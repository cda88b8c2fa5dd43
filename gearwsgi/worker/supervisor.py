"""The supervisor: owns the connections to the job servers, the processes and the signals; imports no application code.

One loop: what sockets bring, what signals ask, and a few times a second what time brings. HUP starts the next
generation and drains the last.
"""

import os
import random
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from .. import log
from ..app.watch import watch_code
from ..errors import ConfigError, SpoolError
from ..message.model import MAX_HEAD, MAX_OWN
from ..settings import Settings, from_json
from ..state import status
from ..state.outbox import Outbox, Relay
from ..state.spool import make_private_folder
from ..submit.client import Client
from ..wire.launch import EmbeddedProcess
from .generation import ForkServerProcess, Generation
from .link import Connector, Link
from .loop import Loop, Stream
from .options import Options
from .settle import Settler
from .slot import Slot

TICK = 0.2
"""Seconds between two looks at what time brings."""
LOAD_TIMEOUT = 300.0
"""Seconds that an application may take to load."""
LOAD_AGAIN = 5.0
"""Seconds until the next try, where no fork server could be started."""
STATUS_INTERVAL = 1.0

EXIT_FORCED = 5
"""Exit code where jobs were cut off: by a second signal, or the end of the graceful time-out."""
EXIT_APP = 4
"""Exit code where the application can't be loaded."""


class Supervisor:
    """See the module. `run` is all there is to call.

    Args:
        options: what to run.
        first: a fork server that loads it already.
    """

    settings: Settings
    settler: Settler

    def __init__(self, options: Options, first: ForkServerProcess | None = None) -> None:
        self._first = first
        self.options = options
        self._loop = Loop()
        self._signals: deque[int] = deque()
        self._generations: list[Generation] = []
        self._current: Generation | None = None
        self._loading: Generation | None = None
        self._connector: Connector | None = None
        self._embedded: EmbeddedProcess | None = None
        self._relay: Relay | None = None
        self._file: status.StatusFile | None = None
        self._wanted = options.workers or os.cpu_count() or 1
        self._number = 0
        self._stopping_at = 0.0
        self._forced = False
        self._down: dict[str, str] = {}
        self._exit_code = 0
        self._load_at = 0.0
        self._next_tick = 0.0
        self._next_status = 0.0
        self._announced = False

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal ends it; the exit code.

        Raises:
            StartError: the embedded job server can't start, or the state directory is not usable.
        """
        self._listen_to_signals()
        log.adopt_loggers(self.options.verbose)
        self._load()
        try:
            while not self._is_over():
                self._turn()
        finally:
            self._close()
        return self._exit_code

    def _turn(self) -> None:
        self._loop.turn(self._next_tick)
        while self._signals:
            self._on_signal(self._signals.popleft())
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)

    def _tick(self, now: float) -> None:
        for generation in list(self._generations):
            for slot in list(generation.slots):
                slot.tick(now)
            if generation.settler is not None:
                generation.settler.tick()
            self._tend(generation)
        if self._load_at and now >= self._load_at and not self._stopping_at:
            self._load()
        if self._loading is not None and now - self._loading.process.started > LOAD_TIMEOUT:
            self._loading.process.kill()
        if self._current is not None:
            self._tend_embedded()
            if self._stopping_at and now - self._stopping_at > self.options.graceful_timeout and not self._forced:
                log.note(f"graceful time-out of {self.options.graceful_timeout:g} s is over")
                self._force()
            elif self.options.burst and not self._stopping_at and self._all_idle():
                log.note("the queues are empty")
                self._stop()
        if self._file is not None and now >= self._next_status:
            self._next_status = now + STATUS_INTERVAL
            self._write_status(now)

    def _is_over(self) -> bool:
        return (bool(self._stopping_at) or self._exit_code != 0) and not self._generations

    def _all_idle(self) -> bool:
        slots = self._current.slots if self._current is not None else []
        relayed = self._relay is not None and self._relay.has_passed
        return relayed and bool(slots) and all(slot.is_idle for slot in slots)

    def _close(self) -> None:
        for generation in self._generations:
            generation.close()
        if self._relay is not None:
            self._relay.stop()
        if self._embedded is not None:
            self._embedded.stop()
        if self._file is not None:
            self._file.remove()
        if self._announced:
            log.note("stopped" + (", jobs were cut off and are in the queue again" if self._forced else ""))

    # -- signals -----------------------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakeup = (ours, theirs)
        self._loop.listen(ours, lambda: ours.recv(4096))
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (
            signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD
        ):  # fmt: skip
            signal.signal(number, self._note_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the command line had it wait for us

    def _note_signal(self, number: int, stack: FrameType | None) -> None:
        if number != signal.SIGCHLD:  # which only wakes the loop
            self._signals.append(number)

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        log.note(f"{name} received")
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping_at:
                self._force()
            else:
                self._stop()
        elif self._stopping_at:
            return
        elif number == signal.SIGHUP:
            self._load()  # also amid the first load: what it has read may be the old code
        else:
            self._wanted = max(1, self._wanted + (1 if number == signal.SIGTTIN else -1))
            self._adjust()

    def _stop(self) -> None:
        self._stopping_at = time.monotonic()
        if self._loading is not None:
            self._discard(self._loading)
            self._loading = None
        if self._current is not None:
            log.note("draining: jobs that run are finished, no more are grabbed")
        for generation in list(self._generations):
            self._retire(generation)

    def _force(self) -> None:
        self._forced = any(generation.slots for generation in self._generations)
        if self._forced:
            self._exit_code = EXIT_FORCED
        for generation in list(self._generations):
            for slot in list(generation.slots):
                slot.kill()
                slot.stop()
            self._discard(generation)

    # -- generations -------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Start a fork server; what it says decides what comes of it."""
        self._load_at = 0.0
        if self._loading is not None:
            self._discard(self._loading)
            self._loading = None
        process, self._first = self._first, None
        if process is None:
            try:
                process = ForkServerProcess(self.options, (self._loop.close,))
            except OSError as error:
                log.note(f"the fork server did not start, trying again: {error}")
                self._load_at = time.monotonic() + LOAD_AGAIN
                return
        self._loading = Generation(process, self._loop, self._on_forkserver)
        self._generations.append(self._loading)

    def _on_forkserver(self, generation: Generation, message: dict[str, Any] | None) -> None:
        if message is None:
            self._on_forkserver_gone(generation)
        elif "loaded" in message:
            self._on_loaded(generation, from_json(message["loaded"]))
        elif "failed" in message:
            self._on_failed(generation, message["failed"], message["traceback"])
        elif "pid" in message:
            slot = generation.forking.popleft()
            if slot.closed:
                return  # its pipe is closed too, so the process ends by itself
            generation.owners[message["pid"]] = slot
            slot.on_forked(message["pid"])
        elif "refused" in message:
            slot = generation.forking.popleft()
            if not slot.closed:
                slot.on_refused(message["refused"])
        elif "exit" in message:
            owner = generation.owners.pop(message["exit"], None)
            if owner is not None:
                owner.on_exit(message["exit"], message["status"])

    def _on_loaded(self, generation: Generation, settings: Settings) -> None:
        if generation is not self._loading:
            return  # it is a process of --no-preload that has said it
        previous, self._current, self._loading = self._current, generation, None
        self.settings = settings
        self.settler = generation.settler = Settler(settings)
        if previous is None:
            self._prepare(settings)
        for queues in self._reservations():
            self._add_slot(generation, queues)
        if previous is not None:
            self._retire(previous)
        self._announced = True
        servers = ",".join(map(str, settings.servers))
        served = ",".join(sorted({queue for slot in generation.slots for queue in slot.queues}))
        count = len(generation.slots)
        log.note(f"ready: {count} worker{'s' * (count != 1)}, queues {served}, servers {servers}, pid {os.getpid()}")

    def _prepare(self, settings: Settings) -> None:
        """What the first generation needs before it works: a state directory, a job server, the relay."""
        try:
            make_private_folder(settings.state_dir)
        except SpoolError as error:
            self._exit_code = 3
            raise ConfigError(str(error)) from error
        if settings.embedded:
            self._embedded = EmbeddedProcess(settings.servers[0], settings.state_dir)
            if self._embedded.ensure():
                log.note(f"embedded job server started on {settings.servers[0]}, pid {self._embedded.pid}")
        if not settings.secret_keys and not all(address.is_loopback for address in settings.servers):
            log.note(
                "WARNING: no secret_keys, and a job server that others can reach: whoever does can run any request"
            )
        self._connector = Connector(self._loop, settings.connect_timeout)
        client = Client(settings)
        self._relay = Relay(Outbox(settings), client.submit_now, forever=True)
        self._relay.start()
        self._file = status.StatusFile(settings.state_dir)
        if self.options.reload:
            watch_code(lambda: os.kill(os.getpid(), signal.SIGHUP))

    def _on_failed(self, generation: Generation, reason: str, trace: str) -> None:
        for line in trace.splitlines():
            log.note(f"| {line}")
        if generation is not self._loading:
            log.note(reason)
        elif self._current is None:
            log.note(f"ERROR: {reason}")
            self._exit_code = EXIT_APP
        else:
            log.note(f"reload failed, the old code goes on: {reason}")

    def _on_forkserver_gone(self, generation: Generation) -> None:
        if generation is self._loading:
            self._loading = None
            if self._current is None and not self._exit_code:
                log.note("ERROR: the fork server ended while it loaded the application")
                self._exit_code = EXIT_APP
            self._discard(generation)
        elif generation is self._current and not self._stopping_at:
            log.note("the fork server is gone; starting another")
            self._retire(generation)
            for slot in generation.slots:
                slot.kill()
            self._load()

    def _retire(self, generation: Generation) -> None:
        generation.retired = True
        for slot in list(generation.slots):
            slot.drain()
        self._tend(generation)

    def _tend(self, generation: Generation) -> None:
        """Close a generation that has nothing left to do, and collect its fork server."""
        no_processes = generation.gone or not (generation.owners or generation.forking)
        if generation.retired and not generation.slots and no_processes:
            self._discard(generation)

    def _discard(self, generation: Generation) -> None:
        generation.close()
        if generation in self._generations:
            self._generations.remove(generation)
        if generation is self._loading:
            generation.process.kill()
        generation.process.end()

    # -- slots -------------------------------------------------------------------------------------------------------

    def _reservations(self) -> list[tuple[str, ...]]:
        """The queues of each slot: reserved ones first, then all for each slot that is left."""
        queues = self.options.queues or [(self.settings.queue, 0)]
        reserved = [(name,) for name, count in queues for _ in range(count)]
        shared = tuple(name for name, count in queues if not count) or tuple(name for name, _ in queues)
        free = max(0, self._wanted - len(reserved))
        if any(not count for _, count in queues):
            free = max(1, free)
        return [*reserved, *[shared] * free]

    def _adjust(self) -> None:
        """Have as many slots as are wanted."""
        generation = self._current
        if generation is None:
            return
        active = [slot for slot in generation.slots if not slot.draining]
        reservations = self._reservations()
        for queues in reservations[len(active) :]:
            self._add_slot(generation, queues)
        for slot in active[len(reservations) :]:
            slot.drain()
        log.note(f"{len(reservations)} workers wanted")

    def _add_slot(self, generation: Generation, queues: tuple[str, ...]) -> None:
        self._number += 1
        slot = Slot(_SlotYard(self, generation), self._number, queues)
        generation.slots.append(slot)
        slot.start()

    def slot_closed(self, generation: Generation, slot: Slot) -> None:
        """A slot has ended."""
        if slot in generation.slots:
            generation.slots.remove(slot)

    def make_links(self, slot: Slot) -> list[Link]:
        """A connection to each job server."""
        assert self._connector is not None
        name = f"{socket.gethostname()}:{os.getpid()}:{slot.number}"
        # A little more than a message may have, so that its reader says what is wrong with it.
        max_job = self.settings.max_body + MAX_HEAD + MAX_OWN + 4096
        return [
            Link(address, slot.queues, name, self._loop, self._connector, slot, max_job=max_job)
            for address in self.settings.servers
        ]

    def make_stream(
        self, sock: socket.socket, on_data: Callable[[bytes], None], on_close: Callable[[str], None]
    ) -> Stream:
        """A stream in the loop."""
        return Stream(sock, self._loop, on_data, on_close)

    def link_changed(self, link: Link, reason: str) -> None:
        """Log once when a job server goes, and once when it comes."""
        address = str(link.address)
        if reason and address not in self._down:
            self._down[address] = reason
            log.note(f"job server {address} is gone, trying again: {reason.removeprefix(f'job server {address}: ')}")
        elif not reason and self._down.pop(address, None) is not None:
            log.note(f"job server {address} is back")

    def _tend_embedded(self) -> None:
        if self._embedded is not None and self._embedded.exit_code() is not None and not self._stopping_at:
            log.note(f"the embedded job server ended with exit code {self._embedded.exit_code()}; starting it again")
            self._embedded.ensure()

    # -- what others may know ----------------------------------------------------------------------------------------

    def _write_status(self, now: float) -> None:
        assert self._file is not None
        slots = [slot for generation in self._generations for slot in generation.slots]
        self._file.write(
            {
                "pid": os.getpid(),
                "app": self.options.app,
                "servers": [str(address) for address in self.settings.servers],
                "down": sorted(self._down),
                "stopping": bool(self._stopping_at),
                "workers": [slot.describe(now) for slot in slots],
            }
        )


class _SlotYard:
    """The supervisor as one generation's slots see it."""

    def __init__(self, supervisor: Supervisor, generation: Generation) -> None:
        self._supervisor = supervisor
        self._generation = generation
        self.settings = supervisor.settings
        self.options = supervisor.options
        self.settler = supervisor.settler
        self.make_links = supervisor.make_links
        self.make_stream = supervisor.make_stream
        self.link_changed = supervisor.link_changed
        self.fork = generation.fork

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """A signal to a process that the fork server has not yet reaped, as far as we know."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def slot_closed(self, slot: Slot) -> None:
        self._supervisor.slot_closed(self._generation, slot)

    def job_limit(self) -> int | None:
        """--max-jobs with a jitter of a tenth, so that not all processes are replaced at once."""
        limit = self.options.max_jobs
        return None if limit is None else max(1, limit - random.randint(0, limit // 10))

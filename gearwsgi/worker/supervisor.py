"""The supervisor: owns the connections to the job servers, the processes and the signals; imports no application code.

One loop handles what comes on sockets, signals, and, a few times a second, what is due. HUP starts the next generation
and has the last one finish its jobs.

    LOADING  -- the application is loaded --> SERVING
    LOADING  -- it can't be loaded --> FAILED
    LOADING, SERVING -- TERM, INT, --burst and nothing left --> DRAINING
    DRAINING -- a second signal, the graceful time-out --> FORCED

It ends in one of the last three, once no generation and no fork server is left. No job is lost when it stops by force:
those that run go back into the job servers' queues as the connections are closed.
"""

import os
import signal
import socket
import time
from enum import Enum
from typing import TYPE_CHECKING, Any

from .. import log
from ..address import parse_listen
from ..errors import EXIT_APP, EXIT_FORCED, StartError
from ..settings import Settings, from_json
from . import generation as generations
from .describing import describe
from .generation import ForkServerProcess, Generation
from .loop import Loop
from .options import Options
from .settle import Settler
from .signals import Signals
from .site import Site
from .slot import Slot, SlotState, Surroundings

if TYPE_CHECKING:
    from .metering import Metering

TICK = 0.2
"""Seconds between two looks at what is due."""
SHORT_TICK = 0.01
"""The same, while the slots wait to learn which queues are paused."""
PAUSE = 2.0
"""Seconds from which on, if the loop stood still for so long, they count as nobody's delay."""
LOAD_TIMEOUT = 300.0
"""Seconds that an application may take to load."""
LOAD_AGAIN = 5.0
"""Seconds until the next try, where no fork server could be started."""


class Phase(Enum):
    """The states of the supervisor: see the module."""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    FORCED = "forced"
    FAILED = "failed"


_STOPPING = (Phase.DRAINING, Phase.FORCED)


class Supervisor:
    """Runs an application's workers until a signal ends it. `run` is all there is to call.

    Args:
        options: what to run.
        first: a fork server that is loading the application already.

    Raises:
        OSError: there is no room, or there are too many open files.
    """

    def __init__(self, options: Options, first: ForkServerProcess | None = None) -> None:
        self._options = options
        self._first = first
        self._phase = Phase.LOADING
        self._loop = Loop()
        self._signals = Signals(self._loop)
        self._site: Site | None = None
        self._generations: list[Generation] = []
        self._leaving: list[ForkServerProcess] = []
        self._wanted = options.workers or os.cpu_count() or 1
        self._last_number = 0
        self._drain_until = 0.0
        self._load_at = 0.0
        self._next_tick = 0.0
        self._exit_code = 0
        self._metering = _metering(options.metrics) if options.metrics else None

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until a signal ends it; the exit code.

        Raises:
            StartError: the embedded job server can't start, or the system has no room for what is needed at first.
            ConfigError: the state directory is not usable.
        """
        log.adopt_loggers(self._options.verbose)
        self._load()
        if self._metering is not None:
            self._metering.start()
        try:
            while not self._is_over():
                self._loop.turn(self._next_tick)
                while number := self._signals.next():
                    self._on_signal(number)
                now = time.monotonic()
                if now >= self._next_tick:
                    if self._next_tick and now - self._next_tick > PAUSE:
                        self._on_pause(now - self._next_tick)
                    self._next_tick = now + (TICK if self._site is None or self._site.steering.knows else SHORT_TICK)
                    self._tick(now)
                if self._leaving:
                    self._leaving = [server for server in self._leaving if not server.has_ended(now)]
        finally:
            self._close()
        return self._exit_code

    def _tick(self, now: float) -> None:
        for generation in list(self._generations):
            generation.tick(now)
            self._discard_if_done(generation)
        if self._load_at and now >= self._load_at and self._phase not in _STOPPING:
            self._load()
        loading = self._loading
        if loading is not None and now - loading.server.started > LOAD_TIMEOUT:
            loading.server.kill()
        if self._site is not None:
            self._tend_site(self._site, now)
        if self._metering is not None:
            slots = [slot for generation in self._generations for slot in generation.open_slots()]
            current = self._current.slots if self._current is not None else ()
            self._metering.tick(now, slots, self._phase is Phase.SERVING and all(slot.is_up for slot in current))

    def _on_pause(self, seconds: float) -> None:
        """This process, or its machine, was stopped for so long: count those seconds as nobody's delay."""
        log.note(f"nothing was done here for {seconds:.0f} s: was this process, or its machine, stopped?")
        self._drain_until += seconds
        for generation in self._generations:
            generation.on_pause(seconds)

    def _stir(self) -> None:
        """Have the slots look whether there is something for them to do."""
        for generation in self._generations:
            for slot in generation.open_slots():
                slot.pump()

    def _tend_site(self, site: Site, now: float) -> None:
        if site.steering.look(now):
            for generation in self._generations:
                generation.steer()
        if site.gate is not None:
            current = self._current.slots if self._current is not None else ()
            site.gate.tick(now, {queue for slot in current for queue in slot.queues})
        if self._phase is Phase.SERVING:
            site.tend(now)
            if self._options.burst and site.has_relayed and self._is_idle():
                log.note("the queues are empty")
                self._stop()
        elif self._phase is Phase.DRAINING and now > self._drain_until:
            log.note(f"graceful time-out of {self._options.graceful_timeout:g} s is over")
            self._force()
        if site.is_due(now):
            stopping = self._phase in _STOPPING
            site.write(describe(self._options.app, self._generations, now, is_stopping=stopping))

    def _is_over(self) -> bool:
        return self._phase not in (Phase.LOADING, Phase.SERVING) and not (self._generations or self._leaving)

    def _is_idle(self) -> bool:
        slots = self._current.slots if self._current is not None else []
        gate = self._site.gate if self._site is not None else None
        return bool(slots) and all(slot.is_idle for slot in slots) and (gate is None or gate.is_idle())

    def _close(self) -> None:
        for generation in self._generations:
            generation.close()
        if self._site is not None:
            self._site.close()
            if self._metering is not None:
                self._metering.close()
            forced = self._exit_code == EXIT_FORCED
            log.note("stopped" + (", jobs were cut off and are in the queue again" if forced else ""))

    # -- signals -----------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        log.note(f"{signal.Signals(number).name} received")
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._phase in _STOPPING:
                self._force()
            else:
                self._stop()
        elif self._phase in _STOPPING:
            return
        elif number == signal.SIGHUP:
            self._load()  # during the first load as well: what that has read may be the old code
        elif number not in (signal.SIGTTIN, signal.SIGTTOU):
            log.note("that signal asks for nothing here: ending, with an exit code that says so")
            self._exit_code = 128 + number
            self._stop()
        else:
            self._wanted = max(1, self._wanted + (1 if number == signal.SIGTTIN else -1))
            self._adjust()

    def _stop(self) -> None:
        if self._phase is Phase.SERVING:
            log.note("draining: jobs that run are finished, no more are grabbed")
        self._phase = Phase.DRAINING
        self._drain_until = time.monotonic() + self._options.graceful_timeout
        if self._loading is not None:
            self._discard(self._loading)
        for generation in list(self._generations):
            self._retire(generation)

    def _force(self) -> None:
        self._phase = Phase.FORCED
        for generation in list(self._generations):
            for slot in generation.open_slots():
                self._exit_code = EXIT_FORCED
                slot.kill()
                slot.stop()
            self._discard(generation)

    # -- generations -------------------------------------------------------------------------------------------------

    def _in(self, state: generations.State) -> Generation | None:
        return next((each for each in self._generations if each.state is state), None)

    @property
    def _loading(self) -> Generation | None:
        return self._in(generations.State.LOADING)

    @property
    def _current(self) -> Generation | None:
        return self._in(generations.State.SERVING)

    def _load(self) -> None:
        """Start a fork server, which loads the application: `on_loaded` or `on_failed` says what came of it."""
        self._load_at = 0.0
        if self._loading is not None:
            self._discard(self._loading)
        server, self._first = self._first, None
        if server is None:
            try:
                server = ForkServerProcess(self._options, (self._loop.close,))
            except OSError as error:
                self._load_later(error)
                return
        try:
            self._generations.append(Generation(server, self._loop, self))
        except OSError as error:
            server.kill()
            self._leaving.append(server)
            self._load_later(error)

    def _load_later(self, error: OSError) -> None:
        log.note(f"the fork server did not start, trying again: {error}")
        self._load_at = time.monotonic() + LOAD_AGAIN

    def on_loaded(self, generation: Generation, settings: dict[str, Any], schedule: list[Any]) -> None:
        """Let this generation work from now on: it has loaded the application. The one before finishes what it has."""
        if generation is not self._loading:
            return  # with --no-preload each worker process says so; it is known already
        around = self._surroundings(generation, from_json(settings), schedule)
        previous = self._current
        generation.around = around
        generation.state = generations.State.SERVING
        self._phase = Phase.SERVING
        for queues in self._options.reservations(around.settings, self._wanted):
            self._add_slot(generation, around, queues)
        if previous is not None:
            self._retire(previous)
        servers = ",".join(map(str, around.settings.servers))
        served = ",".join(sorted({queue for slot in generation.slots for queue in slot.queues}))
        log.note(f"ready: {_workers(len(generation.slots))}, queues {served}, servers {servers}, pid {os.getpid()}")

    def _surroundings(self, generation: Generation, settings: Settings, schedule: list[Any]) -> Surroundings:
        name = f"{socket.gethostname()}:{os.getpid()}"
        if self._site is None:
            self._site = Site(settings, self._loop, name)
            if self._metering is not None:
                self._site.recorder = self._metering.count(self._site.recorder)
            if self._options.reload:
                from ..app.watch import watch_code

                watch_code(lambda: os.kill(os.getpid(), signal.SIGHUP))
        if self._metering is not None:
            self._metering.use(settings)
        if schedule or self._site.schedule is not None:
            from ..submit.ticks import Plan

            self._site.keep_schedule(settings, {plan.name: plan for plan in map(Plan.load, schedule)})
        self._site.keep_limits(settings, self._stir)
        return Surroundings(
            name=name,
            settings=settings,
            options=self._options,
            loop=self._loop,
            connector=self._site.connector,
            servers=self._site.servers,
            settler=Settler(settings, self._site.recorder),
            forks=generation,
            steering=self._site.steering,
            get_schedule=self._site.get_schedule,
            make_turnstile=self._site.make_turnstile,
        )

    def on_failed(self, generation: Generation, reason: str, trace: str) -> None:
        """Go on with the old generation, if there is one: the application can't be loaded."""
        for line in trace.splitlines():
            log.note(f"| {line}")
        if generation is not self._loading:
            log.note(reason)
        elif self._current is None:
            log.note(f"ERROR: {reason}")
            self._phase = Phase.FAILED
            self._exit_code = EXIT_APP
        else:
            log.note(f"reload failed, the old code goes on: {reason}")

    def on_gone(self, generation: Generation) -> None:
        """Start another fork server where this one, which has ended, was needed."""
        if generation is self._loading:
            if self._current is None and self._phase in (Phase.LOADING, Phase.SERVING):
                log.note("ERROR: the fork server ended while it loaded the application")
                self._phase = Phase.FAILED
                self._exit_code = EXIT_APP
            self._discard(generation)
        elif generation is self._current:
            log.note("the fork server is gone; starting another")
            self._retire(generation)
            for slot in generation.slots:
                slot.kill()
            self._load()

    def _retire(self, generation: Generation) -> None:
        generation.retire()
        self._discard_if_done(generation)

    def _discard_if_done(self, generation: Generation) -> None:
        if generation.is_done:
            self._discard(generation)

    def _discard(self, generation: Generation) -> None:
        """Close a generation; its fork server is collected when it has ended."""
        generation.close()
        if generation in self._generations:
            self._generations.remove(generation)
        if generation.state is generations.State.LOADING:
            generation.server.kill()
        self._leaving.append(generation.server)

    # -- slots -------------------------------------------------------------------------------------------------------

    def _adjust(self) -> None:
        """Start or drain slots, so that there are as many as are wanted."""
        generation = self._current
        if generation is None or generation.around is None:
            return
        active = [slot for slot in generation.slots if slot.state is SlotState.SERVING]
        reservations = self._options.reservations(generation.around.settings, self._wanted)
        for queues in reservations[len(active) :]:
            self._add_slot(generation, generation.around, queues)
        for slot in active[len(reservations) :]:
            slot.drain()
        log.note(f"{_workers(len(reservations))} wanted")

    def _add_slot(self, generation: Generation, around: Surroundings, queues: tuple[str, ...]) -> None:
        self._last_number += 1
        slot = Slot(around, self._last_number, queues)
        generation.slots.append(slot)
        slot.start()


def _metering(text: str) -> "Metering":
    """The metrics, to be served at this address.

    Raises:
        StartError: what they need is not installed, or they can't be served there.
    """
    try:
        from .metering import Metering
    except ImportError as error:
        raise StartError(f"--metrics: {error}: `pip install 'gearwsgi[metrics]'`") from error
    address = parse_listen(text)
    try:
        return Metering(address)
    except OSError as error:
        raise StartError(f"--metrics: can't listen on {address}: {error}") from error


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"

"""All that a supervisor has besides its workers, from the first load of the application on, over all later loads.

These are the embedded job server, the outbox's relay, the threads that connect, the list of job servers that are down,
the schedule, the gate of limits, the recorder, and the status file.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import log
from ..errors import ConfigError, SpoolError, StartError
from ..settings import Settings
from ..state.outbox import Outbox, Relay
from ..state.spool import make_private_folder
from ..state.status import StatusFile
from ..submit.client import Client
from ..wire.launch import EmbeddedProcess
from .link import Backoff, Connector
from .loop import Loop
from .recorder import Recorder
from .servers import JobServers
from .steering import Steering

if TYPE_CHECKING:  # only imported where it is used: what is off costs no memory
    from ..submit.ticks import Plan
    from .limits import Gate, Ownership
    from .schedule import Schedule
    from .turnstile import Turnstile

STATUS_INTERVAL = 1.0
"""Seconds between two writes of the status file."""
RESTART_MAX = 10.0
"""Seconds between two starts of an embedded job server that fails to start, at most."""
NO_SERVER = "the embedded job server does not start"


class Troubles:
    """Failures that are tried again and again: each is logged once when it begins, and once when it is over."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def begin(self, what: str, reason: str) -> None:
        """Note that something failed."""
        if self._said.get(what) != reason:
            self._said[what] = reason
            log.note(f"{what}, trying again: {reason}")

    def end(self, what: str) -> None:
        """Note that it worked."""
        if self._said.pop(what, None) is not None:
            log.note(f"{what}: that is over")


class Embedded:
    """The embedded job server, started again when it ends. Nobody waits for it: it may take a while to load its queue.

    Args:
        settings: where it listens, and where its queue is.
        troubles: logs that it does not start.

    Raises:
        StartError: it can't start at all.
    """

    def __init__(self, settings: Settings, troubles: Troubles) -> None:
        self._address = settings.servers[0]
        self._process = EmbeddedProcess(self._address, settings.state_dir)
        self._troubles = troubles
        self._again = Backoff(0.25, RESTART_MAX)
        self._is_starting = False
        if self._process.ensure():
            log.note(f"embedded job server started on {self._address}, pid {self._process.pid}")

    def tend(self, now: float, is_served: bool) -> None:
        """Start it again where it has ended, unless another one serves at its address."""
        code = self._process.exit_code()
        if self._is_starting and self._process.is_ready():
            self._is_starting = False
            self._again.failures = 0
            self._troubles.end(NO_SERVER)
            log.note(f"embedded job server started on {self._address}, pid {self._process.pid}")
        elif self._is_starting and code is not None:
            self._fail(f"it ended with exit code {code}")
        elif not self._is_starting and not is_served and now >= self._again.due_at:
            if code is not None and not self._again.failures:
                log.note(f"the embedded job server ended with exit code {code}; starting it again")
            if code is not None or self._again.failures:
                self._start()

    def _start(self) -> None:
        try:
            self._process.start()
            self._is_starting = True
        except StartError as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        self._is_starting = False
        self._again.fail()
        self._troubles.begin(NO_SERVER, reason)

    def stop(self) -> None:
        """End it cleanly, and wait until it has ended."""
        self._process.stop()


class Site:
    """All that outlives a load of the application. Made when it is loaded for the first time.

    Args:
        settings: the middleware's.
        loop: the supervisor's.
        name: the supervisor's name.

    Raises:
        ConfigError: the state directory can't be used.
        StartError: the embedded job server can't start, or there are too many open files.
    """

    def __init__(self, settings: Settings, loop: Loop, name: str) -> None:
        try:
            make_private_folder(settings.state_dir)
            self._file = StatusFile(settings.state_dir)
        except SpoolError as error:
            raise ConfigError(str(error)) from error
        self.servers = JobServers()
        try:
            self.connector = Connector(loop, settings.connect_timeout)
        except OSError as error:
            raise StartError(f"the worker can't connect to a job server: {error}") from error
        self._troubles = Troubles()
        self._address = settings.servers[0]
        self._embedded = Embedded(settings, self._troubles) if settings.embedded else None
        if not settings.secret_keys and not all(address.is_loopback for address in settings.servers):
            log.note(
                "WARNING: no secret_keys, and a job server that others can reach: whoever does can run any request"
            )
        self.recorder = _recorder(settings, name)
        self._name = name
        self.steering = Steering(self.recorder)
        self.schedule: Schedule | None = None
        self.gate: Gate | None = None
        self._relay = Relay(Outbox(settings), Client(settings).submit_now, forever=True)
        self._relay.start()
        self._write_at = 0.0

    @property
    def has_relayed(self) -> bool:
        """Whether all that is left in the outbox waits for a job server, or for its time."""
        return self._relay.has_passed

    def keep_schedule(self, settings: Settings, plans: "Mapping[str, Plan]") -> None:
        """Have these entries' ticks queued from now on."""
        if self.schedule is not None:
            self.schedule.use(settings, plans)
        elif plans:
            self._begin_schedule(settings, plans)

    def get_schedule(self, settings: Settings) -> "Schedule":
        """The schedule, which looks at ticks before they run.

        Needed without entries too: a tick may be of an entry that is gone, or that another worker has.
        """
        return self.schedule or self._begin_schedule(settings, {})

    def _begin_schedule(self, settings: Settings, plans: "Mapping[str, Plan]") -> "Schedule":
        from .schedule import Schedule

        self.schedule = Schedule(settings, plans, self.servers, self.connector, self.recorder)
        return self.schedule

    def keep_limits(self, settings: Settings, stir: Callable[[], None]) -> None:
        """Keep to these limits from now on; `stir` has the slots look whether they may have a permit."""
        if self.gate is None and settings.limits:
            from .limits import Gate

            self.gate = Gate(self.steering, self._ownership(settings), self.connector.tell, stir)
        if self.gate is not None:
            self.gate.use(settings)

    def _ownership(self, settings: Settings) -> "Ownership":
        """What tells the gate which keys are ours: the records, where they are on."""
        if not settings.records:
            from .limits import Alone

            return Alone()
        from .owning import Leases

        return Leases(self.recorder, self._name, self.connector.tell)

    def make_turnstile(self, queues: Sequence[str]) -> "Turnstile | None":
        """A turnstile, which asks the gate for permits, for a slot that serves these queues; None without limits."""
        if self.gate is None:
            return None
        from .turnstile import Turnstile

        return Turnstile(self.gate, queues)

    def tend(self, now: float) -> None:
        """Have its parts do what is due by now."""
        self._relay.start()
        if self._embedded is not None:
            self._embedded.tend(now, not self.servers.is_down(self._address))

    def is_due(self, now: float) -> bool:
        """Whether the status file is to be written."""
        if now < self._write_at:
            return False
        self._write_at = now + STATUS_INTERVAL
        return True

    def write(self, values: dict[str, Any]) -> None:
        """Write the status file."""
        counts = {**self.recorder.counts, "records_dropped": self.recorder.dropped}
        entries = self.schedule.fingerprints if self.schedule is not None else {}
        values = {**values, "down": self.servers.down(), "counts": counts, "schedule": entries}
        self.recorder.beat(values)
        what = "what `gearwsgi status` shows of this worker can't be written"
        try:
            self._file.write(values)
            self._troubles.end(what)
        except OSError as error:
            self._troubles.begin(what, str(error))

    def close(self) -> None:
        """End all of its parts."""
        if self.schedule is not None:
            self.schedule.stop()
        if self.gate is not None:
            self.gate.close()
        self._relay.stop()
        if self._embedded is not None:
            self._embedded.stop()
        self.recorder.close()
        try:
            self._file.remove()
        except OSError as error:
            log.note(f"what `gearwsgi status` shows of this worker can't be removed: {error}")


def _recorder(settings: Settings, name: str) -> Recorder:
    if not settings.records:
        return Recorder()
    from .recording import Recording

    return Recording(settings, name)

"""The schedule in a supervisor: a thread that keeps ticks queued (`keeper`), and a look at each one that comes back."""

import threading
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from .. import log
from ..errors import BadMessage, GearwsgiError, ServerUnavailable, UnknownTask
from ..message.model import Message
from ..settings import Settings
from ..state.outbox import Outbox
from ..state.records import ticks
from ..state.records.model import DONE
from ..state.records.steering import PAUSE_ENTRY
from ..submit.client import Client
from ..submit.ticks import Plan
from ..wire.payload import Submission, make_unique, open_payload
from .held import Held
from .keeper import Keeper, Missed
from .link import Connector
from .recorder import Recorder
from .rivals import Rivals, is_kept_elsewhere, name_job
from .servers import JobServers
from .settle import Settler

if TYPE_CHECKING:  # not imported with records off: it brings the database
    from ..state.records.store import Store

INTERVAL = 1.0
"""Seconds between two rounds of the thread, in each of which it queues what is due to be queued."""
AVOIDED = 10.0
"""Seconds that a job server is left out after it did not answer."""
STOP = 5.0
"""Seconds that the thread may take to end."""
PUT_OFF = 2.0
"""Seconds until a tick is looked at again, if another supervisor has its entry and this one has not."""


class TickServers:
    """The job servers that the keeper queues ticks on: see `keeper.Servers`.

    Args:
        client: a client for this thread alone.
        servers: says which of them are there, as the slots' links know it.
    """

    def __init__(self, client: Client, servers: JobServers) -> None:
        self._client = client
        self._servers = servers
        self._addresses = {str(address): address for address in client.settings.servers}
        self._losses: dict[str, int] = {}
        self._avoided: dict[str, float] = {}

    def order(self, name: str) -> list[str]:
        # Each entry has its own order, the same for all supervisors, in whichever order they list the servers.
        return sorted(self._addresses, key=lambda server: zlib.crc32(f"{name}\0{server}".encode()))

    def is_up(self, server: str) -> bool:
        is_avoided = self._avoided.get(server, 0.0) > time.monotonic()
        return not is_avoided and not self._servers.is_down(self._addresses[server])

    def lost(self) -> set[str]:
        before = self._losses
        self._losses = {server: self._servers.losses[address] for server, address in self._addresses.items()}
        return {server for server, count in self._losses.items() if count > before.get(server, 0)}

    def submit(self, server: str, submission: Submission) -> None:
        try:
            self._client.servers.submit_to(server, submission)
        except ServerUnavailable:
            self._avoided[server] = time.monotonic() + AVOIDED
            raise

    def knows(self, server: str, unique: str) -> bool:
        return self._client.servers.status("", server, (unique,)).state != "unknown"


class Schedule:
    """Keeps ticks queued, by a thread, and decides for the slots whether a tick that they have taken may run.

    Args:
        settings: the middleware's.
        plans: the entries.
        servers: says which job servers are there.
        connector: has functions called in the loop, for threads that have found something out.
        recorder: remembers the last tick of each entry, and knows which entries are paused.
    """

    def __init__(
        self,
        settings: Settings,
        plans: Mapping[str, Plan],
        servers: JobServers,
        connector: Connector,
        recorder: Recorder,
    ) -> None:
        self._client = Client(settings)
        self._servers = servers
        self._tick_servers = TickServers(self._client, servers)
        self._connector = connector
        self._recorder = recorder
        self._settings, self._plans = settings, plans
        self._keeper = Keeper(settings, plans, self._tick_servers, time.time, self._look_back)
        self._rivals = Rivals(recorder, bool(settings.records))
        recorder.do(self._recall)
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi schedule")
        self._thread.start()

    def use(self, settings: Settings, plans: Mapping[str, Plan]) -> None:
        """Go by these entries from now on: the application was loaded again."""
        client = Client(settings)
        tick_servers = TickServers(client, self._servers)
        keeper = Keeper(settings, plans, tick_servers, time.time, self._look_back)
        keeper.adopt(self._keeper)
        self._client.close()
        self._client, self._tick_servers = client, tick_servers
        self._settings, self._plans, self._keeper = settings, plans, keeper
        self._wake.set()

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each entry, by its name."""
        return {name: plan.fingerprint for name, plan in self._plans.items()}

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(STOP)
        self._client.close()

    def _run(self) -> None:
        trouble = ""
        paused: set[str] = set()
        while not self._stopping:
            before, paused = paused, self._paused()
            for name in sorted(before ^ paused):
                log.note(f"schedule: {name} is {'paused' if name in paused else 'resumed'}")
            try:
                self._keeper.step()
                trouble = ""
            except Exception as error:
                # No such error is known. Should one occur, the next round may go well; nobody would start a new thread.
                if repr(error) != trouble:
                    trouble = repr(error)
                    log.note_lines(traceback.format_exc())
            self._wake.wait(INTERVAL)
            self._wake.clear()

    def _recall(self, store: "Store") -> None:
        """Tell the recorder when tasks of the entries last went well, as far as the records know."""
        for name, last in ticks.last_ticks(store.database).items():
            if name in self._plans and last.task is not None:
                try:
                    record = store.find(last.task)
                except UnknownTask:
                    continue  # it is long ago
                if record.state == DONE and record.ended is not None:
                    self._recorder.succeeded(name, record.ended.timestamp())

    def _look_back(self, plan: Plan, now: float) -> None:
        """Ask the records for ticks that were missed."""

        def look(store: "Store") -> None:
            last = ticks.last_ticks(store.database).get(plan.name)
            if last is None:
                ticks.take_over(store.database, plan.name, now)
                return
            tick = plan.cron.last(last.at, now)
            if tick is not None and ticks.take_over(store.database, plan.name, tick.timestamp()):
                self._keeper.missed(Missed(plan.name, plan.cron.after(last.at), tick))
                self._wake.set()

        self._recorder.do(look)

    # -- in the loop -------------------------------------------------------------------------------------------------

    def take(self, held: Held, settler: Settler, give: Callable[[Held], None]) -> None:
        """Look at a job that may be a tick's. One that is not to run is answered here; any other goes on to `give`."""
        task = self._tick_of(held)
        if task is None or task.scheduled is None:
            give(held)
            return
        if task.entry in self._plans:
            held.note().entry = task.entry
        first = make_unique(task.id, 1).encode()
        if task.continued or held.job.unique.partition(b"~")[0] != first:
            give(held)  # a later attempt or piece, or a retried dead letter
            return
        plan, visit = self._plans.get(task.entry), _Visit(held, settler, give, task, task.scheduled)
        if plan is None or not plan.is_mine(task.id, task.scheduled, self._settings):
            self._apart(visit, partial(self._find_keeper, visit, plan), partial(visit.skip, _gone(plan)))
            return
        at = task.scheduled.timestamp()
        is_tick = plan.cron.last(at - 1, at) is not None  # if it is none, somebody has run the entry by hand
        if is_tick and plan.name in self._paused():
            visit.skip("its entry is paused")
            return
        # A job that was handed back may have waited in the outbox, and so be on another job server: it is no copy.
        place = self._keeper.came(plan.name, at, held.session.server) if held.job.unique == first else ""
        if place not in (held.session.server, ""):
            visit.skip(f"a copy, it is queued on {place}", is_copy=True)
            return
        self._wake.set()  # so that the next tick is queued soon, if possible before this one is done
        if is_tick:
            one = self._rivals.came(plan, at, visit.job)
            if one != visit.job:
                visit.skip_second(one)
                return
        else:
            self._recorder.do(lambda store: ticks.came(store.database, plan.name, at, task.id))
        if plan.overlap and not (is_tick and self._rivals.has_records):
            give(held)
        else:
            self._apart(visit, partial(self._may_run, visit, plan, is_tick), partial(give, held))

    def _may_run(self, visit: "_Visit", plan: Plan, is_tick: bool) -> Callable[[], None]:
        """What is to be done with a tick's job. Runs in a thread."""
        if is_tick and self._rivals.has_records:
            one = self._rivals.begin(plan, visit.tick.timestamp(), visit.task.id, visit.job)
            if one != visit.job:
                return partial(visit.skip_second, one)
        if not plan.overlap:
            earlier = plan.earlier(self._waiting(plan.name), visit.tick, self._settings)
            if earlier:
                return partial(visit.skip, f"an earlier one has not ended, id {earlier[:32]}")
        return partial(visit.give, visit.held)

    def _find_keeper(self, visit: "_Visit", plan: Plan | None) -> Callable[[], None]:
        """What is to be done with a tick of an entry that is not ours, or not unchanged. Runs in a thread."""
        if is_kept_elsewhere(visit.task, self._recorder, self._settings):
            return visit.put_off
        return partial(visit.skip, _gone(plan))

    def _apart(self, visit: "_Visit", find: Callable[[], Callable[[], None]], default: Callable[[], None]) -> None:
        """Have a thread find out what is to be done with a tick's job, and the loop do it."""

        def run() -> None:
            found = default
            try:
                found = find()
            finally:
                self._connector.tell(found)

        try:
            threading.Thread(target=run, daemon=True, name=f"gearwsgi schedule {visit.task.entry}").start()
        except RuntimeError as error:
            log.note(f"schedule: {visit.what} can't be looked at: {error}")
            default()

    def _paused(self) -> set[str]:
        """The entries that are paused, so that their ticks do not run."""
        now = time.monotonic()
        return {each.name for each in self._recorder.requests() or () if each.kind == PAUSE_ENTRY and each.holds(now)}

    def _tick_of(self, held: Held) -> Message | None:
        """The task in a job; None where it can't be read."""
        try:
            return open_payload(held.job, self._settings, held.grabbed_at)
        except BadMessage:
            return None  # the worker process will find the same, and make a dead letter

    def _waiting(self, name: str) -> list[str]:
        """The uniques of all jobs that wait or run, also in the outbox. Servers that can't be asked are left out."""
        found = []
        try:
            found += [f"{each.rpartition('-')[2]}:" for each in Outbox(self._settings).spool.names()]
            for server in filter(self._tick_servers.is_up, self._tick_servers.order(name)):
                found += self._client.servers.find_uniques("", server)
        except GearwsgiError as error:
            log.note(f"schedule: whether an earlier tick of {name} has not ended can't be asked everywhere: {error}")
        return found


class _Visit:
    """A tick's job while it is decided whether it runs.

    Args:
        held: the job.
        settler: answers the job where it does not run.
        give: gives the job to a process.
        task: the message in it.
        tick: the tick.

    Attributes:
        job: its name, which no other job of the same tick has.
        what: the tick in words, for the log.
    """

    def __init__(
        self, held: Held, settler: Settler, give: Callable[[Held], None], task: Message, tick: datetime
    ) -> None:
        self.held, self.give, self.task, self.tick = held, give, task, tick
        self._settler = settler
        self.job = name_job(task, held.job.payload)
        self.what = f"the tick {tick.isoformat()} of {task.entry}"

    def skip(self, why: str, *, is_copy: bool = False) -> None:
        """Do not run it, for this reason."""
        if self.held.session.is_open:  # if not, the job server has queued the job again
            self._settler.skip(self.held, f"{self.what}: {why}", is_copy=is_copy)

    def skip_second(self, one: str) -> None:
        """Do not run it: another job of its tick has run, or does."""
        other = one.partition(":")[0]
        self.skip(f"another job of it came before, id {other}", is_copy=other == self.task.id)

    def put_off(self) -> None:
        """Queue it for a little later: another worker has its entry, and may take it then; or it is looked at again."""
        if self.held.session.is_open:
            why = f"{self.what}: another worker has its entry"
            self._settler.hand_back(self.held, why, at=time.time() + PUT_OFF)


def _gone(plan: Plan | None) -> str:
    return f"its entry {'is gone' if plan is None else 'was changed'}, and no other worker is known to have it"

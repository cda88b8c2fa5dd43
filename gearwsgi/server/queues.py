"""The queue, in memory, with all its rules. Pure: no I/O, and no clock but the `now` arguments (Unix time).

What is to be done outside (rows to write, workers to wake, clients to tell) is collected in `Queue.changes`.
"""

from collections import OrderedDict
from heapq import heappop, heappush
from math import inf

from .jobs import (
    DELAYED,
    GIVEN_UP,
    GONE,
    NORMAL,
    QUEUED,
    RUNNING,
    Changes,
    Function,
    Job,
    Peer,
    Row,
    Uniques,
)

__all__ = ["Queue"]

IDLE_FUNCTIONS = 1000  # functions without jobs and workers that are remembered
WAKE_PATIENCE = 0.5  # seconds that a woken worker may take to grab before another one is woken


class Queue:
    """All jobs of a server.

    Args:
        first_id: the id of the first job: higher than any that was ever used.
        job_retries: how often a job is handed out before it is given up; 0: without end.
        prefix: what all handles begin with.

    Attributes:
        alarm: when `tick` has something to do (seconds since 1970); infinite: there is nothing.
    """

    def __init__(self, first_id: int = 1, job_retries: int = 0, prefix: bytes = b"H:") -> None:
        self.functions: dict[bytes, Function] = {}
        self.jobs: dict[int, Job] = {}
        self.changes = Changes()
        self.alarm = inf
        self._prefix = prefix
        self._uniques = Uniques()
        self._idle: OrderedDict[bytes, None] = OrderedDict()  # names of functions, the longest idle first
        self._next = first_id
        self._job_retries = job_retries
        self._delayed: list[tuple[float, int, Job]] = []
        self._limited: dict[int, Job] = {}
        self._woken: dict[Peer, float] = {}

    # Submitting

    def function(self, name: bytes) -> Function:
        """The function of that name, made where it is missing."""
        found = self.functions.get(name)
        if found is None:
            found = self.functions[name] = Function(name)
            self._note_idle(found)
        return found

    def _note_idle(self, function: Function) -> None:
        """Remember a function, for `status`, that may have neither jobs nor workers now; older ones are forgotten."""
        self._idle[function.name] = None
        self._idle.move_to_end(function.name)
        if len(self._idle) > IDLE_FUNCTIONS:
            name = self._idle.popitem(last=False)[0]
            if (oldest := self.functions.get(name)) is not None and oldest.is_idle:
                del self.functions[name]

    def submit(
        self,
        name: bytes,
        unique: bytes,
        data: bytes,
        *,
        now: float,
        priority: int = NORMAL,
        client: Peer | None = None,
        due: float = 0,
    ) -> Job | None:
        """Queue a job, or find the one that it coalesces with.

        Args:
            client: who waits for the result; None makes it a background job, which is durable.
            due: not before then (seconds since 1970); 0 is at once.

        Returns:
            The job, or None if the function's `maxqueue` is reached.
        """
        function = self.function(name)
        job = Job(self._next, function, unique, data, priority=priority, due=due if due > now else 0)
        key = job.key
        if key and (found := self._uniques.get(key, function)) is not None:
            job = found
        else:
            limit = function.limits[priority]
            if limit and function.total >= limit:
                return None
            self._next += 1
            self.jobs[job.id] = job
            if key:
                self._uniques.add(key, job)
            self._enqueue(job, now)
        if client is None:
            if not job.durable:  # also a foreground job that someone now wants done in any case
                self.changes.insert.append(job)
                job.durable = True
        else:
            job.clients = job.clients or []
            job.clients.append(client)
            client.waiting[job.id] = job
        return job

    def restore(self, row: Row, now: float) -> None:
        """Take back a row from disk; rows come in the order of their positions."""
        id, name, unique, data, priority, due, position, attempts = row
        job = Job(id, self.function(name), unique, data, priority=priority, due=due if due > now else 0)
        job.position, job.attempts, job.durable, job.stored = position, attempts, True, True
        self._next = max(self._next, id + 1, position + 1)
        self.jobs[id] = job
        if key := job.key:
            self._uniques.add(key, job)
        if not self._give_up(job):
            self._enqueue(job, now)

    def cancel(self, job: Job) -> list[Peer]:
        """Take a job out of its line. One that runs goes on, but is not queued again. Its unique is free.

        Returns:
            The clients that now wait in vain.
        """
        if job.state != RUNNING:
            return self.remove(job)
        if key := job.key:
            self._uniques.drop(key, job)
        job.unique = b""
        job.durable = False
        if job.stored:
            job.stored = False
            self.changes.delete.append(job.id)
            self.changes.update.pop(job.id, None)
        return []

    def requeue(self, job: Job, now: float) -> None:
        """Queue once more a job that was given up."""
        job.function = self.function(job.function.name)
        job.attempts = 0
        if job.stored:
            self.changes.update[job.id] = job
        self._enqueue(job, now)

    def unstore(self, job: Job) -> None:
        """Note that a job could not be written, so it is no background job; it goes unless somebody waits or has it."""
        job.durable = False
        if job.state != RUNNING and not job.clients:
            self.remove(job)

    def _enqueue(self, job: Job, now: float) -> None:
        function = job.function
        if job.due > now:
            job.state = DELAYED
            function.delayed += 1
            heappush(self._delayed, (job.due, job.position, job))
            self.alarm = min(self.alarm, job.due)
        else:
            job.state = QUEUED
            job.since = now
            function.lines[job.priority][job.id] = job
            self._wake_for(function, now)

    # Workers

    def can_do(self, peer: Peer, name: bytes, limit: float, now: float) -> None:
        """Note that the worker serves a function; a job that it holds longer than `limit` seconds is taken from it."""
        function = self.function(name)
        if name not in peer.functions:
            function.workers += 1
        peer.functions[name] = limit
        if peer.asleep:
            function.sleepers[peer] = None
            self._wake_for(function, now)

    def cant_do(self, peer: Peer, name: bytes, now: float) -> None:
        """Note that the worker does not serve a function any longer."""
        if peer.functions.pop(name, None) is None:
            return
        function = self.functions[name]
        function.workers -= 1
        function.sleepers.pop(peer, None)
        if not (function.workers or function.total):
            self._note_idle(function)
        if peer.woken_for is function:
            self._end_wake_up(peer, now)

    def reset(self, peer: Peer, now: float) -> None:
        """Note that the worker does not serve any function any longer."""
        for name in list(peer.functions):
            self.cant_do(peer, name, now)

    def sleep(self, peer: Peer, now: float) -> None:
        """Note that the worker wants to be woken when there is work, which may be at once."""
        self._end_wake_up(peer, now)
        self._end_sleep(peer)
        for name in peer.functions:
            function = self.functions[name]
            if function.ready:
                self._wake_up(peer, function, now)
                return
        peer.asleep = True
        for name in peer.functions:
            self.functions[name].sleepers[peer] = None

    def grab(self, peer: Peer, now: float) -> Job | None:
        """Hand the worker a job. Its functions take turns; within each, high priority goes before normal before low."""
        self._end_sleep(peer)
        found = None
        for name in peer.functions:
            function = self.functions[name]
            if function.ready:
                found = self._take(function)
                break
        if found is not None:
            limit = peer.functions[name]
            if len(peer.functions) > 1:
                peer.functions[name] = peer.functions.pop(name)
            found.state, found.worker = RUNNING, peer
            found.attempts += 1
            found.function.running += 1
            peer.running[found.id] = found
            if limit < inf:
                found.limit_at = now + limit
                self._limited[found.id] = found
                self.alarm = min(self.alarm, found.limit_at)
            if self._job_retries and found.stored:
                self.changes.update[found.id] = found
        self._end_wake_up(peer, now)
        return found

    def _take(self, function: Function) -> Job:
        for line in function.lines:
            if line:
                break
        if line is function.lines[NORMAL]:
            while function.matured:
                position, job = function.matured[0]
                if job.state == QUEUED and job.position == position and job.id in line:
                    if position < next(iter(line.values())).position:
                        heappop(function.matured)
                        return line.pop(job.id)
                    break
                heappop(function.matured)
        return line.popitem(last=False)[1]

    def remove(self, job: Job) -> list[Peer]:
        """Remove a job that is done, failed or cancelled; its unique is free.

        Returns:
            The clients that waited for it.
        """
        function = job.function
        if job.state == RUNNING:
            self._release(job)
        elif job.state == QUEUED:
            function.lines[job.priority].pop(job.id, None)
        elif job.state == DELAYED:
            function.delayed -= 1
        if key := job.key:
            self._uniques.drop(key, job)
        del self.jobs[job.id]
        job.state = GONE
        job.data = b""
        if not (function.workers or function.total):
            self._note_idle(function)
        clients, job.clients = job.clients or [], None
        for client in clients:
            client.waiting.pop(job.id, None)
        if job.stored:
            self.changes.delete.append(job.id)
            self.changes.update.pop(job.id, None)
        return clients

    def close(self, peer: Peer, now: float) -> None:
        """Note that a connection is gone: its jobs are queued again, those that only it waited for are dropped."""
        self._end_sleep(peer)
        self.reset(peer, now)
        self._end_wake_up(peer, now)
        for job in list(peer.waiting.values()):
            job.clients = [client for client in job.clients or () if client is not peer]
            if not (job.clients or job.durable or job.state == RUNNING):
                self.remove(job)
        peer.waiting.clear()
        for job in list(peer.running.values()):
            self._requeue(job, now)

    def _requeue(self, job: Job, now: float) -> None:
        self._release(job)
        if self._give_up(job):
            return
        if not (job.durable or job.clients):
            job.state = GIVEN_UP
            self.remove(job)
            return
        job.position = self._next
        self._next += 1
        if job.stored:
            self.changes.update[job.id] = job
        job.progress = (0, 0)
        job.due = 0
        self._enqueue(job, now)

    def _release(self, job: Job) -> None:
        if job.worker is not None:
            del job.worker.running[job.id]
            job.worker = None
        job.function.running -= 1
        self._limited.pop(job.id, None)
        job.limit_at = inf

    def _give_up(self, job: Job) -> bool:
        """Whether a job has used up its attempts; then it waits, outside of all lines, to be written off."""
        if not self._job_retries or job.attempts < self._job_retries:
            return False
        job.state = GIVEN_UP
        self.changes.dead.append((job, f"handed out {job.attempts} times and never answered"))
        return True

    # Time

    def tick(self, now: float) -> None:
        """Do what is due: delayed jobs, time limits, and workers that were woken and did not come."""
        while self._delayed and self._delayed[0][0] <= now:
            job = heappop(self._delayed)[2]
            if job.state == DELAYED:
                job.function.delayed -= 1
                job.due = 0
                self._enqueue(job, now)
                heappush(job.function.matured, (job.position, job))
        for job in [job for job in self._limited.values() if job.limit_at <= now]:
            if job.durable:
                self._requeue(job, now)
            else:
                self.changes.failed.append((job, self.remove(job)))
        for peer in [peer for peer, since in self._woken.items() if since + WAKE_PATIENCE <= now]:
            self._end_wake_up(peer, now)
        self.alarm = min(
            self._delayed[0][0] if self._delayed else inf,
            min((job.limit_at for job in self._limited.values()), default=inf),
            min(self._woken.values(), default=inf) + WAKE_PATIENCE,
        )

    # Waking: while workers sleep, one of them is woken for each job that waits.

    def _wake_for(self, function: Function, now: float) -> None:
        while function.sleepers and function.woken < function.ready:
            peer = next(reversed(function.sleepers))
            self._end_sleep(peer)
            self._wake_up(peer, function, now)

    def _wake_up(self, peer: Peer, function: Function, now: float) -> None:
        peer.woken_for = function
        function.woken += 1
        self._woken[peer] = now
        self.alarm = min(self.alarm, now + WAKE_PATIENCE)
        self.changes.wake.append(peer)

    def _end_sleep(self, peer: Peer) -> None:
        if peer.asleep:
            peer.asleep = False
            for name in peer.functions:
                self.functions[name].sleepers.pop(peer, None)

    def _end_wake_up(self, peer: Peer, now: float) -> None:
        """Note that a woken worker came, went or took too long; wake another if what it was woken for still waits."""
        function, peer.woken_for = peer.woken_for, None
        if function is not None:
            self._woken.pop(peer, None)
            function.woken -= 1
            self._wake_for(function, now)

    # Looking

    def find(self, unique: bytes) -> Job | None:
        """A job by its unique, in any function."""
        return self._uniques.any(unique)

    def handle(self, job: Job) -> bytes:
        """The job's handle."""
        return b"%b%d" % (self._prefix, job.id)

    def job(self, handle: bytes) -> Job | None:
        """The job with that handle."""
        digits = handle.removeprefix(self._prefix)
        if len(digits) > 18 or not digits.isdigit():
            return None
        job = self.jobs.get(int(digits))
        return job if job is not None and self.handle(job) == handle else None

    def drop_function(self, name: bytes) -> bool | None:
        """Forget a function; False: it has jobs or workers; None: there is none of that name."""
        function = self.functions.get(name)
        if function is None:
            return None
        if function.total or function.workers:
            return False
        del self.functions[name]
        return True

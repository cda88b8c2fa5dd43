"""The queue against a model of it: lists in the order in which jobs are to come."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gearwsgi.server.jobs import GONE, Job, Peer, Row
from gearwsgi.server.queues import IDLE_FUNCTIONS, Queue

NAMES = [b"f", b"g"]
UNIQUES = [b"", b"a", b"b", b"-"]
RETRIES = 2


class Nobody:
    """Hears nothing."""

    def send(self, packet: bytes) -> None: ...
    def forward(self, packet: bytes) -> None: ...


NOBODY = Nobody()


class Model:
    """A job as a person would keep it in mind."""

    def __init__(self, *, name: bytes, key: bytes, priority: int, due: float, durable: bool) -> None:
        self.name, self.key, self.priority, self.due, self.durable = name, key, priority, due, durable
        self.place = 0
        self.attempts = 0
        self.worker: Peer | None = None
        self.clients: list[Peer] = []


class QueueMachine(RuleBasedStateMachine):
    """Submit, grab, complete, fail, cancel, sleep, drop a connection, let time pass, restart."""

    peers = Bundle("peers")

    @initialize()
    def begin(self) -> None:
        self.now = 1000.0
        self.queue = Queue(1, RETRIES)
        self.model: dict[int, Model] = {}
        self.disk: dict[int, Row] = {}
        self.places = 0
        self.alive: list[Peer] = []
        self.buried: set[int] = set()

    def place(self) -> int:
        self.places += 1
        return self.places

    def settle(self) -> None:
        """What the server does after each request; the disk is a dict here."""
        changes = self.queue.changes
        for job, _ in changes.dead:
            self.buried.add(job.id)
            self.queue.remove(job)
        for job in changes.insert:
            if job.durable and job.state != GONE:
                job.stored = True
                self.disk[job.id] = row(job)
        for job in changes.update.values():
            self.disk[job.id] = row(job)
        for id in changes.delete:
            del self.disk[id]
        for peer in changes.wake:
            assert not peer.asleep
        for some in (changes.dead, changes.insert, changes.update, changes.delete, changes.wake, changes.failed):
            some.clear()

    def available(self, name: bytes) -> list[int]:
        """Ids of the jobs that wait and are due, in order."""
        found = [
            (job.priority, job.place, id)
            for id, job in self.model.items()
            if job.name == name and job.worker is None and job.due <= self.now
        ]
        return [id for *_, id in sorted(found)]

    @rule(target=peers, names=st.sampled_from([[], NAMES[:1], NAMES]), limit=st.sampled_from([inf, inf, 5.0]))
    def connect(self, names: list[bytes], limit: float) -> Peer:
        self.alive.append(Peer(NOBODY))
        for name in names:
            self.queue.can_do(self.alive[-1], name, limit, self.now)
        return self.alive[-1]

    @rule(peer=peers, name=st.sampled_from(NAMES), limit=st.sampled_from([inf, inf, 5.0]))
    def can_do(self, peer: Peer, name: bytes, limit: float) -> None:
        self.queue.can_do(peer, name, limit, self.now)
        self.settle()

    @rule(peer=peers, name=st.sampled_from(NAMES))
    def cant_do(self, peer: Peer, name: bytes) -> None:
        self.queue.cant_do(peer, name, self.now)
        self.settle()

    @rule(peer=peers)
    def sleep(self, peer: Peer) -> None:
        self.queue.sleep(peer, self.now)
        self.settle()

    @rule(
        peer=peers,
        name=st.sampled_from(NAMES),
        unique=st.sampled_from(UNIQUES),
        priority=st.integers(0, 2),
        waits=st.booleans(),
        delay=st.sampled_from([0, 0, -5, 5, 50]),
    )
    def submit(self, *, peer: Peer, name: bytes, unique: bytes, priority: int, waits: bool, delay: int) -> None:
        due = self.now + delay if delay else 0.0
        if delay:
            priority, waits = 1, False
        key = unique if unique != b"-" else b"- data"
        same = [id for id, job in self.model.items() if key and (job.name, job.key) == (name, key)]
        client = peer if waits else None
        job = self.queue.submit(name, unique, b"data", now=self.now, priority=priority, client=client, due=due)
        assert job is not None
        if same:
            assert job.id == same[0]
        else:
            assert job.id not in self.model
            self.model[job.id] = Model(
                name=name, key=key, priority=priority, due=due if due > self.now else 0, durable=not waits
            )
            self.model[job.id].place = self.place()
        known = self.model[job.id]
        if waits:
            known.clients.append(peer)
        else:
            known.durable = True
        self.settle()

    @rule(peer=peers)
    def grab(self, peer: Peer) -> None:
        served = [name for name in peer.functions if self.available(name)]
        self.queue.tick(self.now)
        self.settle()
        turn = list(peer.functions)
        job = self.queue.grab(peer, self.now)
        self.settle()
        if job is None:
            assert not served
            return
        name = min(served, key=turn.index)
        assert (job.function.name, job.id) == (name, self.available(name)[0])
        self.model[job.id].worker = peer
        self.model[job.id].attempts += 1
        if len(turn) > 1:
            assert list(peer.functions)[-1] == name

    @rule(peer=peers, count=st.integers(2, 6))
    def grab_several(self, peer: Peer, count: int) -> None:
        for _ in range(count):
            self.grab(peer)

    @rule(peer=peers, name=st.sampled_from(NAMES), count=st.integers(2, 4), delay=st.sampled_from([0, 0, 5]))
    def submit_several(self, peer: Peer, name: bytes, count: int, delay: int) -> None:
        for _ in range(count):
            self.submit(peer=peer, name=name, unique=b"", priority=1, waits=False, delay=delay)

    @rule(peer=peers, data=st.data())
    def finish(self, peer: Peer, data: st.DataObject) -> None:
        if not peer.running:
            return
        job = peer.running[data.draw(st.sampled_from(sorted(peer.running)))]
        assert self.queue.remove(job) == self.model.pop(job.id).clients
        self.settle()

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [id for id, job in self.model.items() if job.worker is None]
        if waiting:
            id = data.draw(st.sampled_from(waiting))
            assert self.queue.cancel(self.queue.jobs[id]) == self.model.pop(id).clients
            self.settle()

    def lose(self, id: int) -> None:
        """The model's side of a job that its worker did not answer."""
        job = self.model[id]
        job.worker, job.due = None, 0
        if job.attempts >= RETRIES:
            del self.model[id]
            assert id in self.buried
        elif job.durable or job.clients:
            job.place = self.place()
        else:
            del self.model[id]

    @rule(peer=consumes(peers))
    def disconnect(self, peer: Peer) -> None:
        self.alive.remove(peer)
        held = list(peer.running)
        self.queue.close(peer, self.now)
        self.settle()
        for id, job in list(self.model.items()):
            job.clients = [client for client in job.clients if client is not peer]
            if not (job.clients or job.durable or job.worker):
                del self.model[id]
        for id in held:
            self.lose(id)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = [job.id for job in self.queue.jobs.values() if job.limit_at <= self.now]
        durable = [id for id in late if self.model[id].durable]
        self.queue.tick(self.now)
        self.settle()
        for id in late:
            if id in durable:
                self.lose(id)
            else:
                del self.model[id]

    @rule()
    def crash(self) -> None:
        """What is on disk, and only that, is there again, in order; foreground jobs are gone."""
        self.queue = Queue(max(self.queue.jobs, default=0) + 1000 + self.places, RETRIES)
        for peer in self.alive:
            peer.functions.clear()
            peer.running.clear()
            peer.waiting.clear()
            peer.asleep, peer.woken_for = False, None
        for one in sorted(self.disk.values(), key=lambda row: row[6]):
            self.queue.restore(one, self.now)
        self.settle()
        for id, job in list(self.model.items()):
            job.worker, job.clients = None, []
            if not job.durable or job.attempts >= RETRIES:
                del self.model[id]

    @invariant()
    def the_same_jobs_are_there(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.jobs.keys() == self.model.keys()
        assert self.disk.keys() == {id for id, job in self.model.items() if job.durable}
        for name in NAMES:
            function = self.queue.function(name)
            mine = [job for job in self.model.values() if job.name == name]
            assert function.total == len(mine)
            assert function.running == sum(job.worker is not None for job in mine)
            assert function.workers == sum(name in peer.functions for peer in self.alive)
        for key in UNIQUES[1:3]:
            assert (self.queue.find(key) is not None) == any(job.key == key for job in self.model.values())

    @invariant()
    def no_job_waits_while_a_worker_sleeps_that_nobody_woke(self) -> None:
        if not hasattr(self, "queue"):
            return
        for name in NAMES:
            function = self.queue.function(name)
            sleepers = [peer for peer in self.alive if peer.asleep and name in peer.functions]
            assert set(function.sleepers) == set(sleepers)
            assert function.woken == sum(peer.woken_for is function for peer in self.alive)
            if sleepers:
                assert function.woken >= function.ready

    @invariant()
    def the_alarm_is_no_later_than_what_is_to_be_done(self) -> None:
        if not hasattr(self, "queue"):
            return
        for id, job in self.model.items():
            if job.worker is None and job.due > self.now:
                assert self.queue.alarm <= job.due
            assert self.queue.alarm <= self.queue.jobs[id].limit_at


def row(job: Job) -> Row:
    return (job.id, job.function.name, job.unique, job.data, job.priority, job.due, job.position, job.attempts)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_a_woken_worker_that_does_not_come_is_replaced() -> None:
    queue, hung, other = Queue(), Peer(NOBODY), Peer(NOBODY)
    for peer in (other, hung):
        queue.can_do(peer, b"f", inf, 0)
        queue.sleep(peer, 0)
    queue.submit(b"f", b"", b"", now=0)
    assert queue.changes.wake == [hung]
    assert queue.alarm < inf
    queue.tick(queue.alarm)
    assert queue.changes.wake == [hung, other]
    queue.tick(queue.alarm)
    assert queue.alarm == inf


def test_a_thousand_sleepers_are_woken_one_for_each_job() -> None:
    queue, peers = Queue(), [Peer(NOBODY) for _ in range(1000)]
    for peer in peers:
        queue.can_do(peer, b"f", inf, 0)
        queue.sleep(peer, 0)
    for n in range(1, 1001):
        job = queue.submit(b"f", b"", b"", now=0)
        assert job is not None
        assert len(queue.changes.wake) == n
        if n % 2:  # some come before the next job, some later
            assert queue.grab(queue.changes.wake[-1], 0) is not None
    assert len(set(map(id, queue.changes.wake))) == 1000


def test_the_wake_up_of_a_worker_that_dies_goes_to_another() -> None:
    queue, peers = Queue(), [Peer(NOBODY) for _ in range(3)]
    for peer in peers:
        queue.can_do(peer, b"f", inf, 0)
        queue.sleep(peer, 0)
    queue.submit(b"f", b"", b"", now=0)
    for _ in range(2):
        queue.close(queue.changes.wake[-1], 0)
    assert len(set(map(id, queue.changes.wake))) == 3


def test_a_worker_woken_for_one_function_that_takes_another_ones_job_passes_the_wake_up_on() -> None:
    queue, both, only = Queue(), Peer(NOBODY), Peer(NOBODY)
    for name in (b"f", b"g"):
        queue.can_do(both, name, inf, 0)
    queue.can_do(only, b"g", inf, 0)
    queue.sleep(only, 0)
    queue.sleep(both, 0)
    queue.submit(b"g", b"", b"", now=0)
    assert queue.changes.wake == [both]
    queue.submit(b"f", b"", b"", now=0)
    job = queue.grab(both, 0)
    assert job is not None
    assert job.function.name == b"f"
    assert queue.changes.wake == [both, only]


def test_a_unique_is_found_in_any_function_and_coalesces_in_its_own() -> None:
    queue = Queue()
    one, two, again = (submit(queue, name, b"same") for name in (b"f", b"g", b"f"))
    assert again is one and two is not one
    assert queue.find(b"same") in (one, two)
    queue.remove(one)
    assert queue.find(b"same") is two
    assert submit(queue, b"f", b"same") not in (one, two)
    for job in list(queue.jobs.values()):
        queue.remove(job)
    assert queue.find(b"same") is None


def test_functions_that_nobody_uses_are_forgotten_and_those_in_use_are_not() -> None:
    queue, peer, stays = Queue(), Peer(NOBODY), Peer(NOBODY)
    queue.can_do(stays, b"served", inf, 0)
    job = submit(queue, b"waits", b"u")
    queue.function(b"limited").limits[0] = 5
    for n in range(3 * IDLE_FUNCTIONS):
        queue.can_do(peer, b"%d" % n, inf, 0)
    assert len(queue.functions) == 3 * IDLE_FUNCTIONS + 3
    queue.close(peer, 0)
    assert len(queue.functions) <= IDLE_FUNCTIONS + 3
    assert {b"served", b"waits", b"limited", b"%d" % (3 * IDLE_FUNCTIONS - 1)} <= queue.functions.keys()
    queue.can_do(peer, b"waits", inf, 0)
    assert queue.grab(peer, 0) is job


def submit(queue: Queue, name: bytes, unique: bytes) -> Job:
    job = queue.submit(name, unique, b"d", now=0)
    assert job is not None
    return job

"""How long a key waits for its rate, and that a change of owner does not make it more."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gearwsgi.address import parse_address
from gearwsgi.message.limits import Limit
from gearwsgi.settings import read_settings
from gearwsgi.state.records import leases
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.starts import condense
from gearwsgi.state.records.store import Store
from gearwsgi.worker import limits, turns
from gearwsgi.worker.keys import Key, Line, Permit
from gearwsgi.worker.owning import Leases
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.steering import Steering
from gearwsgi.worker.watch import Count

SERVER = parse_address("127.0.0.1:4730")


def begin(key: Key, *times: float) -> None:
    key.starts.extend((at, "job") for at in times)


def test_a_rate_counts_what_began_within_its_window_and_what_is_about_to() -> None:
    key = Key("mail")
    line = Line("job#mail", key)
    key.use(Limit("mail", rate="2/minute"))
    assert key.wait(1000.0) == 0
    begin(key, 1000.0, 1010.0)
    assert key.wait(1015.0) == 45, "until the first is out of the window"
    assert key.wait(1060.0) == 0 and list(key.starts) == [(1010.0, "job")]
    line.asked = 1
    assert key.wait(1060.0) == 10, "one that was asked for may begin at any time"
    line.asked, key.starts = 2, type(key.starts)()
    assert 0 < key.wait(2000.0) < 1


def test_a_rate_that_is_lowered_waits_until_few_enough_have_begun() -> None:
    key = Key("mail")
    key.use(Limit("mail", rate="4/minute"))
    begin(key, 1000.0, 1010.0, 1020.0, 1030.0)
    key.use(Limit("mail", rate="2/minute"))
    assert key.wait(1031.0) == 49, "the third but last"
    key.use(Limit("mail", concurrency=1))
    assert key.wait(1031.0) == 0 and not key.starts


def test_many_starts_are_written_as_few_none_of_them_earlier_than_it_was() -> None:
    times = [1000 + n * 3.6 for n in range(1000)]
    found = condense(times, 3600.0)
    assert sum(number for _, number in found) == 1000 and 50 <= len(found) <= 52
    written = [at for at, number in found for _ in range(number)]
    assert all(0 <= late - at <= 72 for at, late in zip(times, written, strict=True))
    assert condense(times[:2], 1.0) == [(1000, 1), (1003.6, 1)]


class World:
    """Supervisors that share records and one key, and a clock that the test holds; nothing happens between two calls.

    A job server that always has something waiting, and hands it out when it is asked: of one key, or of those that
    the test puts there.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, rate: str) -> None:
        self.now = 1000.0
        self.began: list[float] = []
        self.waiting = {"job#mail": Count(50, 0)}
        self.settings = read_settings(
            {"state_dir": folder, "records": "sqlite", "limits": {"mail*": {"rate": rate}}, "servers": str(SERVER)}, {}
        )
        database = open_database(self.settings)
        assert database is not None
        self.store = Store(database)
        self.supervisors: dict[str, Supervisor] = {}
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(type(database), "now", lambda database: 1e9 + self.now)
        monkeypatch.setattr(limits, "Watch", lambda address, tell, then: SimpleNamespace(
            tend=lambda: None, stop=lambda: None, hear=lambda: then(address, self.now, self.waiting)
        ))  # fmt: skip

    def start(self, name: str) -> None:
        self.supervisors[name] = Supervisor(name, self)

    def kill(self, name: str) -> None:
        del self.supervisors[name]

    def stop(self, name: str) -> None:
        self.supervisors.pop(name).gate.close()

    def step(self, seconds: float) -> None:
        """So much later, each that is there has looked, and has begun what it may."""
        self.now += seconds
        for each in self.supervisors.values():
            each.work()

    def most(self, window: float) -> int:
        """How many began within one window, at most."""
        return max((sum(0 <= at - first < window for at in self.began) for first in self.began), default=0)


class Supervisor(Recorder):
    """One of them: its gate, and the records, which it has at once."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__()
        self.world = world
        self.owner = Leases(self, name, lambda what: what())
        self.gate = limits.Gate(Steering(self), self.owner, lambda what: what(), lambda: None)
        self.gate.use(world.settings)

    def do(self, work: Callable[[Store], None]) -> None:
        work(self.world.store)

    def work(self) -> None:
        self.gate.tick(self.world.now, ["job"])
        watches: Any = self.gate._watches
        for watch in watches.values():
            watch.hear()
        # One that was written ahead may be had at the next look.
        while (permit := self.claim() or self.claim()) is not None:
            assert self.gate.came(permit)
            self.world.began.append(self.world.now)
            self.gate.release(permit)
            watch.hear()

    def claim(self) -> Permit | None:
        return self.gate.take_permit(["job"], [SERVER])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path / "state", monkeypatch, "10/minute")
    yield made
    made.store.database.close()


def test_supervisors_that_follow_each_other_within_a_window_go_on_counting(world: World) -> None:
    for number in range(5):
        world.start(f"s{number}")
        for _ in range(3):
            world.step(2.0)
        world.stop(f"s{number}")
    assert len(world.began) == 10, "the next ones have the rest of the window alone"
    world.start("last")
    for _ in range(30):
        world.step(2.0)
    assert world.most(60) == 10 and len(world.began) == 20, "and then the next window"


def test_one_that_is_killed_counts_what_it_was_about_to_begin(world: World) -> None:
    world.start("first")
    world.step(0)
    world.step(1)
    world.began.clear()  # all ten were written before they began: no matter how many of them did
    world.kill("first")
    world.start("second")
    at = world.now
    while not world.began:
        world.step(1)
    assert 60 <= world.began[0] - at <= 60 + leases.LASTS + 3


@pytest.mark.parametrize("seed", range(8))
def test_no_order_of_starts_stops_kills_and_pauses_makes_a_rate_more_than_it_is(world: World, seed: int) -> None:
    chance = random.Random(seed)
    asleep: dict[str, Supervisor] = {}
    for number in range(400):
        what = chance.random()
        if what < 0.05 or not world.supervisors:
            world.start(f"s{number}")
        elif what < 0.13 and len(world.supervisors) > 1:
            name = chance.choice(sorted(world.supervisors))
            if what < 0.08:
                world.kill(name)
            elif what < 0.11:
                world.stop(name)
            else:
                asleep[name] = world.supervisors.pop(name)
        elif what < 0.16 and asleep:
            name, sleeper = asleep.popitem()
            world.supervisors[name] = sleeper
        world.step(chance.choice((0.1, 1.0, 1.0, 1.0, 3.0)))
    assert world.most(59.99) <= 10, world.began
    assert len(world.began) > 40, "and it is not stingy"


class Slow(Supervisor):
    """One that has its records when it has waited for them: 10 ms for each start that it writes ahead."""

    def __init__(self, name: str, world: World) -> None:
        self.todo: list[Callable[[Store], None]] = []
        self.written: list[int] = []
        self.ran: set[str] = set()
        super().__init__(name, world)

    def do(self, work: Callable[[Store], None]) -> None:
        self.todo.append(work)

    def have_records(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All that was asked for by now is done."""
        book = leases.book

        def slowly(database: Any, owner: str, counts: Any) -> Any:
            self.written.append(len(counts))
            self.world.now += 0.01 * len(counts)
            return book(database, owner, counts)

        todo, self.todo = self.todo, []
        with monkeypatch.context() as patch:
            patch.setattr(leases, "book", slowly)
            for work in todo:
                super().do(work)

    def run(self, most: int) -> None:
        """So many tasks, at most."""
        for _ in range(most):
            permit = self.claim()
            if permit is None:
                break
            assert self.gate.came(permit) and permit.line.function not in self.ran
            self.ran.add(permit.line.function)
            self.world.waiting.pop(permit.line.function, None)
            self.gate.release(permit)


def test_thousands_of_keys_with_a_rate_are_written_of_a_few_at_a_time_and_each_has_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.waiting = {f"job#mail{number}": Count(1, 0) for number in range(3000)}
    worker = Slow("worker", world)
    for _ in range(400):
        world.now += 0.1
        worker.gate.tick(world.now, ["job"])
        for watch in worker.gate._watches.values():
            watch.hear()
        worker.have_records(monkeypatch)
        worker.run(40)
        if not world.waiting:
            break
    assert len(worker.ran) == 3000, "all ran, though to write ahead of all at once takes longer than that holds"
    assert max(worker.written) <= turns.MOST and sum(worker.written) < 3300, "and little was written in vain"

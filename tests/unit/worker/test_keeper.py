"""The rules by which ticks are queued, in a world whose clocks the test holds: no tick runs twice, none is lost."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ServerUnavailable
from gearwsgi.message.reading import read
from gearwsgi.submit.ticks import Plan, plan_all
from gearwsgi.wire.payload import Submission
from gearwsgi.worker.keeper import AHEAD, MARGIN, SETTLED, SKEW, Keeper, Missed

START = 1_800_000_000.0
"""Unix time: a whole minute."""


def middleware(schedule: dict[str, object], folder: Path) -> GearmanMiddleware:
    return GearmanMiddleware(lambda environ, start: [], schedule=schedule, state_dir=folder, records="sqlite")


class JobServer:
    """Coalesces uniques, and hands a job out when it is due by its own clock."""

    def __init__(self, ahead: float = 0.0, *, keeps: bool = True) -> None:
        self.ahead = ahead
        self.keeps = keeps
        self.is_up = True
        self.jobs: dict[str, Submission] = {}

    def stop(self) -> None:
        self.is_up = False
        if not self.keeps:
            self.jobs.clear()


class World:
    """True time, job servers, supervisors, and what has run."""

    def __init__(self, app: GearmanMiddleware, servers: dict[str, JobServer], seed: int = 0) -> None:
        self.time = START
        self.chance = random.Random(seed)
        self.settings = app.settings
        self.plans = plan_all(app.settings)
        self.servers = servers
        self.supervisors: list[Supervisor] = []
        self.runs: list[tuple[str, float, float]] = []
        """Entry, tick, and when it ran."""

    def start(self, ahead: float = 0.0) -> "Supervisor":
        self.supervisors.append(Supervisor(self, ahead))
        return self.supervisors[-1]

    def kill(self, supervisor: "Supervisor") -> None:
        self.supervisors.remove(supervisor)

    def run(self, seconds: float, step: float = 0.5) -> None:
        end = self.time + seconds
        while self.time < end:
            self.time += step
            for supervisor in self.supervisors:
                supervisor.keeper.step()
            self.hand_out()

    def hand_out(self) -> None:
        for name, server in self.servers.items():
            if not (server.is_up and self.supervisors):
                continue
            for unique, job in list(server.jobs.items()):
                if job.at <= self.time + server.ahead:
                    self.take(name, job, self.chance.choice(self.supervisors))
                    del server.jobs[unique]

    def take(self, server: str, job: Submission, supervisor: "Supervisor") -> None:
        """What `Schedule.take` does."""
        task = read(job.payload, max_body=0)
        entry, tick = task.entry, task.scheduled
        assert tick is not None
        if supervisor.keeper.came(entry, tick.timestamp(), server) != server:
            return
        supervisor.keeper.step()
        self.runs.append((entry, tick.timestamp(), self.time))

    def ran(self) -> Counter[tuple[str, float]]:
        return Counter((name, tick) for name, tick, _ in self.runs)

    def ticks(self, name: str = "every") -> list[float]:
        return [tick for each, tick, _ in self.runs if each == name]


class Supervisor:
    """One supervisor's keeper, with its own clock and its own view of the job servers."""

    def __init__(self, world: World, ahead: float) -> None:
        self.world = world
        self.ahead = ahead
        self.seen_up: dict[str, bool] = defaultdict(lambda: True)
        self.looked_back: list[Plan] = []
        self.keeper = Keeper(
            world.settings, world.plans, self, self.now, lambda plan, now: self.looked_back.append(plan)
        )

    def now(self) -> float:
        return self.world.time + self.ahead

    def order(self, name: str) -> Sequence[str]:
        return sorted(self.world.servers)

    def is_up(self, server: str) -> bool:
        return self.world.servers[server].is_up

    def lost(self) -> set[str]:
        was, now = dict(self.seen_up), {name: server.is_up for name, server in self.world.servers.items()}
        self.seen_up.update(now)
        return {name for name, up in now.items() if not up and was.get(name, True)}

    def submit(self, server: str, submission: Submission) -> None:
        if not self.world.servers[server].is_up:
            raise ServerUnavailable("down")
        self.world.servers[server].jobs.setdefault(submission.unique, submission)

    def knows(self, server: str, unique: str) -> bool:
        if not self.world.servers[server].is_up:
            raise ServerUnavailable("down")
        return unique in self.world.servers[server].jobs


@pytest.fixture
def every(tmp_path: Path) -> GearmanMiddleware:
    return middleware({"every": {"service": "/every", "cron": "* * * * *"}}, tmp_path)


def minutes(first: int, last: int) -> list[float]:
    return [START + 60 * number for number in range(first, last + 1)]


def test_one_supervisor_runs_each_tick_once(every: GearmanMiddleware) -> None:
    world = World(every, {"a": JobServer()})
    world.start()
    world.run(600)
    assert world.ticks() == minutes(1, 10)
    assert all(at - tick < 1 for _, tick, at in world.runs)


def test_one_pending_job_an_entry_at_least_five_seconds_ahead(every: GearmanMiddleware) -> None:
    world = World(every, {"a": JobServer()})
    world.start(), world.start()
    for _ in range(600):
        world.run(0.5)
        assert len(world.servers["a"].jobs) == 1
        (job,) = world.servers["a"].jobs.values()
        assert job.at - read(job.payload, max_body=0).queued > AHEAD


@pytest.mark.parametrize("server", [-SKEW, -12.0, 0.0, 12.0, SKEW])
@pytest.mark.parametrize("clocks", [(0.0, SKEW), (-SKEW, 0.0), (0.0, 0.0), (-SKEW, -SKEW)])
def test_clocks_that_differ_run_no_tick_twice_and_lose_none(
    every: GearmanMiddleware, server: float, clocks: tuple[float, float]
) -> None:
    if max(*clocks, server) - min(*clocks, server) > SKEW:
        pytest.skip("out of bounds")
    world = World(every, {"a": JobServer(server)})
    for ahead in clocks:
        world.start(ahead)
    world.run(900)
    ticks = world.ticks()
    assert ticks == sorted(set(ticks))
    assert [later - tick for tick, later in itertools.pairwise(ticks)] == [60.0] * (len(ticks) - 1)
    assert len(ticks) >= 13


@pytest.mark.parametrize("behind", [0, 7, 20, 29])
def test_a_supervisor_whose_clock_is_late_does_not_queue_again_what_has_run(
    every: GearmanMiddleware, behind: float
) -> None:
    world = World(every, {"a": JobServer()})
    world.start()
    world.run(130)
    assert world.ticks() == minutes(1, 2)
    for _ in range(120):  # new ones, at any moment around a tick
        late = world.start(-behind)
        world.run(3)
        world.kill(late)
    assert set(world.ran().values()) == {1}


def test_the_only_supervisor_killed_at_any_moment_runs_none_twice(every: GearmanMiddleware) -> None:
    world = World(every, {"a": JobServer(20.0)})  # the job server's clock is ahead: it runs before our clock has come
    chance = random.Random(7)
    for _ in range(200):
        only = world.start()
        world.run(chance.choice([0.5, 1, 3, 10, 30, 61]))
        world.kill(only)
        world.run(chance.choice([0, 0.5, 2, 15]))
    assert set(world.ran().values()) == {1}


def test_a_first_tick_is_queued_by_a_new_supervisor_until_shortly_before_it(every: GearmanMiddleware) -> None:
    world = World(every, {"a": JobServer()})
    world.time = START + 60 - AHEAD - SETTLED - 2
    world.start()
    world.run(30)
    assert world.ticks() == minutes(1, 1)
    late = World(every, {"a": JobServer()})
    late.time = START + 60 - AHEAD
    late.start()
    late.run(120)
    assert late.ticks() == minutes(2, 2), "one that is as good as there is not queued any more"


@pytest.mark.parametrize("keeps", [False, True])
def test_a_job_server_that_starts_again_gets_what_it_lost(every: GearmanMiddleware, keeps: bool) -> None:
    world = World(every, {"a": JobServer(keeps=keeps)})
    world.start(), world.start(5.0)
    for at in (10, 30, 50, 20, 40):
        world.run(at)
        world.servers["a"].stop()
        world.run(3)
        world.servers["a"].is_up = True
        world.run(117 - at)
    assert set(world.ran().values()) == {1}
    ticks = world.ticks()
    # Down for three seconds shortly before a tick: what is lost then may be too near to be queued again.
    assert len(ticks) >= 8, [(tick - START) / 60 for tick in ticks]


@pytest.mark.parametrize("keeps", [True, False])
def test_an_entry_moves_with_its_job_server_and_back_and_no_copy_runs(every: GearmanMiddleware, keeps: bool) -> None:
    world = World(every, {"a": JobServer(keeps=keeps), "b": JobServer(keeps=keeps)})
    world.start(), world.start()
    world.run(20)
    assert len(world.servers["a"].jobs) == 1 and not world.servers["b"].jobs
    for down in (200, 2, 30, 45, 61, 11, 19):
        world.servers["a"].stop()
        world.run(down)
        world.servers["a"].is_up = True
        world.run(150)
        assert len(world.servers["a"].jobs) == 1 and not world.servers["b"].jobs, down
    assert set(world.ran().values()) == {1}
    lost = set(minutes(1, int((world.time - START) // 60))) - set(world.ticks())
    # One for each time that the job server died shortly before it, and kept nothing.
    assert len(lost) <= (0 if keeps else 4), [(tick - START) / 60 for tick in lost]


SCHEDULE = {
    "every": {"service": "/every", "cron": "* * * * *"},
    "third": {"service": "/third", "cron": "*/3 * * * *", "timezone": "Asia/Kolkata"},
    "odd": {"service": "/odd", "cron": "7,8,9,31 * * * *"},
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.hypothesis
def test_supervisors_that_come_and_go_with_clocks_apart_run_no_tick_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    offset = chance.uniform(-SKEW, 0)
    world = World(middleware(SCHEDULE, tmp_path), {"a": JobServer(chance.uniform(offset, offset + SKEW))}, seed)
    for _ in range(300):
        if chance.random() < 0.4 or not world.supervisors:
            world.start(chance.uniform(offset, offset + SKEW))
        world.run(chance.choice([1, 5, 20, 45]))
        if chance.random() < 0.4:
            world.kill(chance.choice(world.supervisors))
        if chance.random() < 0.1:
            world.servers["a"].stop()
            world.run(chance.choice([1, 10]))
            world.servers["a"].is_up = True
    assert set(world.ran().values()) == {1}
    assert len(world.ticks()) > 40


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.hypothesis
def test_job_servers_that_come_and_go_run_no_tick_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    servers = {name: JobServer(keeps=chance.random() < 0.5) for name in "abc"}
    world = World(middleware(SCHEDULE, tmp_path), servers, seed)
    for _ in range(3):
        world.start()
    for _ in range(200):
        world.run(chance.choice([1, 5, 20, 45]))
        server = chance.choice(list(servers.values()))
        if chance.random() < 0.2:
            server.stop()
        elif chance.random() < 0.5:
            server.is_up = True
    assert set(world.ran().values()) == {1}
    assert len(world.ticks()) > 25


def test_what_was_missed_is_asked_for_once_and_only_where_nobody_was_there(tmp_path: Path) -> None:
    app = middleware({"every": {"service": "/every", "cron": "* * * * *", "missed": "once"}}, tmp_path)
    world = World(app, {"a": JobServer(keeps=False)})
    first = world.start()
    world.run(130)
    assert [plan.name for plan in first.looked_back] == ["every"]
    second = world.start(-20.0)
    world.run(5)
    assert not second.looked_back, "the first one is there"
    for each in (first, second):
        world.kill(each)
    world.servers["a"].stop()
    world.servers["a"].is_up = True
    world.run(600)
    third = world.start()
    world.run(1)
    assert third.looked_back
    cron = world.plans["every"].cron
    missed = Missed("every", cron.after(START + 121), cron.after(START + 661))
    third.keeper.missed(missed)
    world.run(300)
    ticks = world.ticks()
    assert ticks[:2] == minutes(1, 2) and ticks[2] == missed.last.timestamp() and ticks[3:] == minutes(13, 17)
    assert set(world.ran().values()) == {1}


def test_a_tick_that_is_queued_and_late_is_the_one_for_all_that_were_missed(tmp_path: Path) -> None:
    app = middleware({"every": {"service": "/every", "cron": "* * * * *", "missed": "once"}}, tmp_path)
    world = World(app, {"a": JobServer()})
    only = world.start()
    world.run(70)
    world.kill(only)
    world.run(600)
    again = world.start()
    cron = world.plans["every"].cron
    again.keeper.missed(Missed("every", cron.after(START + 61), cron.after(START + 601)))
    world.run(10)
    assert world.ticks() == minutes(1, 2)


def test_an_entry_that_stays_the_same_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    same, other = {"service": "/a", "cron": "* * * * *"}, {"service": "/b", "cron": "@hourly"}
    before = middleware({"a": same, "b": other}, tmp_path)
    after = middleware({"a": same, "b": {**other, "data": 1}}, tmp_path)
    world = World(before, {"s": JobServer()})
    supervisor = world.start()
    world.run(1)
    tick = START + 60
    new = Keeper(after.settings, plan_all(after.settings), supervisor, supervisor.now)
    new.adopt(supervisor.keeper)
    assert [new.came(name, tick, "elsewhere") for name in "ab"] == ["s", "elsewhere"]


def test_the_margin_is_more_than_clocks_may_differ() -> None:
    assert MARGIN >= SKEW + 1 and 60 - SKEW > AHEAD + SETTLED

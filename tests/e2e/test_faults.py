"""kill -9 at each system call of a retry and of a dead letter: repeated at most, never lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from gearwsgi import Task
from tests.conftest import kinds, require
from tests.support import ROOT, Bench, Spares, until

CALLS = 10
"""More than a retry or a dead letter takes; the ones past its end don't kill, and must not harm either."""


class Rescued(NamedTuple):
    """What was killed, each at another call, and then taken over by one worker."""

    site: Bench
    retried: list[Task]
    dead: list[Task]


@pytest.fixture(scope="module", params=kinds("faults"))
def rescued(request: pytest.FixtureRequest, spares: Spares) -> Iterator[Rescued]:
    require(request.param)
    with spares.bench(request.param) as site:
        gearman = site.app().gearman
        retried = [gearman.task("/flaky", {"good": 2}, f"retry{call}") for call in range(CALLS)]
        dead = [gearman.task("/status", {"status": "400 Bad"}, f"dead{call}") for call in range(CALLS)]
        for call in range(CALLS):
            for task in (retried[call], dead[call]):
                _run_until_it_is_killed(site, task.queue, call)
        rescuer = site.worker("--workers", "1", "--queues", ",".join(task.queue for task in retried + dead))
        until(lambda: not any(site.server.queued(task.queue) for task in retried + dead), "the end of all jobs")
        yield Rescued(site, retried, dead)
        assert rescuer.stop() == 0


def _run_until_it_is_killed(site: Bench, queue: str, call: int) -> None:
    """Run the one job of a queue, and be killed at a system call of what follows it."""
    record = site.folder / f"{queue}.txt"
    record.touch()
    with (site.folder / "faults.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.faults", str(call), "--", "worker", "kitchen:application"]
        supervisor = subprocess.Popen(
            [*command, "--workers", "1", "--queues", queue],
            cwd=site.folder,
            env={**os.environ, **site.env, "PYTHONPATH": str(ROOT), "RECORD": str(record)},
            stdout=log,
            stderr=log,
        )
        try:
            settled = lambda: site.server.queued(queue) == 0 and record.stat().st_size  # noqa: E731
            until(lambda: supervisor.poll() is not None or settled())
        finally:
            supervisor.kill()
            supervisor.wait()


def _runs(rescued: Rescued, task: Task) -> list[str]:
    """What the runs of a task have recorded: the one that was killed, and the rescuer's; nothing else has run."""
    by_rescuer = rescued.site.lines()
    assert {line.split()[1] for line in by_rescuer} <= {each.id for each in rescued.retried + rescued.dead}
    by_killed = (rescued.site.folder / f"{task.queue}.txt").read_text().splitlines()
    return by_killed + [line for line in by_rescuer if line.split()[1] == task.id]


@pytest.mark.parametrize("call", range(CALLS))
def test_killed_anywhere_in_a_retry_nothing_is_lost(rescued: Rescued, call: int) -> None:
    task = rescued.retried[call]
    runs = _runs(rescued, task)
    assert f"flaky {task.id} 2" in runs
    assert {line.split()[1] for line in runs} == {task.id}
    assert task.id not in [letter["id"] for letter in rescued.site.dead()]


@pytest.mark.parametrize("call", range(CALLS))
def test_killed_anywhere_in_a_dead_letter_there_is_one_at_the_end(rescued: Rescued, call: int) -> None:
    task = rescued.dead[call]
    assert _runs(rescued, task)
    letters = [letter["id"] for letter in rescued.site.dead()]
    assert letters.count(task.id) == 1 and len(letters) == CALLS

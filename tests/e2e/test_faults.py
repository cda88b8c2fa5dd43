"""kill -9 at each system call of a retry and of a dead letter: repeated at most, never lost."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT, Bench, until

CALLS = 10
"""More than a retry or a dead letter takes; the ones past its end don't kill, and must not harm either."""


def _run_until_it_is_killed(site: Bench, call: int) -> None:
    with (site.folder / "faults.log").open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.faults", str(call), "--", "worker", "kitchen:application", "--workers", "1"],
            cwd=site.folder,
            env={**os.environ, **site.env, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
        try:
            settled = lambda: site.server.queued() == 0 and site.lines()  # noqa: E731
            until(lambda: supervisor.poll() is not None or settled())
        finally:
            supervisor.kill()
            supervisor.wait()


@pytest.mark.parametrize("call", range(CALLS))
def test_killed_anywhere_in_a_retry_nothing_is_lost(site: Bench, call: int) -> None:
    task = site.app().gearman.task("/flaky", {"good": 2})
    _run_until_it_is_killed(site, call)
    rescuer = site.worker("--workers", "1")
    until(lambda: site.server.queued() == 0)
    until(lambda: f"flaky {task.id} 2" in site.lines())
    assert {line.split()[1] for line in site.lines()} == {task.id}
    assert rescuer.stop() == 0
    assert not list(site.state_dir.glob("dead/*.http"))


@pytest.mark.parametrize("call", range(CALLS))
def test_killed_anywhere_in_a_dead_letter_there_is_one_at_the_end(site: Bench, call: int) -> None:
    task = site.app().gearman.task("/status", {"status": "400 Bad"})
    _run_until_it_is_killed(site, call)
    rescuer = site.worker("--workers", "1")
    until(lambda: site.server.queued() == 0)
    [letter] = until(lambda: json.loads(site.run("dead", "list", "--json").stdout))
    assert letter["id"] == task.id
    assert rescuer.stop() == 0

"""Follow-ups on real job servers: through retries, `dead retry`, HUP, and SIGKILL at the worst moment."""

import json
import signal
from typing import Any

import pytest

from tests.support import Bench, until


def follow_up(n: Any) -> dict[str, Any]:
    """A follow-up that is followed itself; its own data is of its parent, so its path names it."""
    return {"service": f"/good?{n}", "queue": "after", "then": "/good"}


def test_follow_ups_outlive_retries_hup_and_a_dead_letter_that_is_retried(
    site: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEARWSGI_SECRET_KEYS", "a secret key of the tests")
    application = site.app(max_attempts=2, backoff_min=0.01)
    gearman = application.gearman
    worker = site.start_worker("--workers", "2", "--queues", "job,after").ready()
    flaky = gearman.task("/flaky", {"n": "flaky"}, then=follow_up(1), on_dead="/good")
    until(lambda: "flaky flaky 2" in site.lines(), "its second attempt")
    until(lambda: len(site.lines()) == 4, "what follows, and what follows that")
    log = worker.log
    assert "done, followed by id " in log and flaky.id in log

    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    # It dies for good, is told of, and is tried again by hand: dead again, and told of again.
    gearman.task("/status", {"n": "dead", "status": "404 Not Found"}, on_dead={"service": "/good", "queue": "after"})
    until(lambda: len(site.lines()) == 6, "the follow-up of the dead one")
    (letter,) = json.loads(site.run("dead", "list", "--json").stdout)
    site.run("dead", "retry", letter["id"])
    until(lambda: len(site.lines()) == 8, "both again")
    # A killed process is an attempt as any other.
    gearman.task("/kill", {"n": "killed"}, on_dead="/good")
    until(lambda: len(site.lines()) == 11, "two attempts, and what follows")
    runs = site.runs()
    assert runs["kill killed 1"] == runs["kill killed 2"] == 1
    until(lambda: not site.server.queued() + site.server.queued("after"), "empty queues")
    assert len(site.lines()) == 11
    assert "signature" not in worker.log


def test_a_supervisor_killed_between_the_two_queues_what_follows_once_more_under_the_same_unique(site: Bench) -> None:
    gearman = site.app().gearman
    worker = site.start_worker("--workers", "1", "--no-lookahead").ready()
    gate = site.folder / "gate"
    gearman.task("/until", {"n": 1, "file": str(gate)}, then={"service": "/good", "queue": "after"})
    until(lambda: "until 1 1" in site.lines(), "the task to run")
    gate.touch()
    until(lambda: site.server.queued("after"), "what follows it")
    # Whether it was answered for already is a matter of microseconds: either way nothing is lost, and nothing doubled.
    worker.kill()
    site.start_worker("--workers", "1").ready()
    until(lambda: not site.server.queued(), "the end of the task")
    assert site.server.queued("after") == 1
    site.start_worker("--workers", "1", "--queues", "after").ready()
    until(lambda: not site.server.queued("after"), "the end of what follows")
    assert len([line for line in site.lines() if line.startswith("good")]) == 1


def test_what_follows_is_on_disk_where_the_job_server_is_gone_by_then(site: Bench) -> None:
    gearman = site.app().gearman
    gate = site.folder / "gate"
    worker = site.start_worker("--workers", "1").ready()
    gearman.task("/until", {"n": 1, "file": str(gate)}, then="/good")
    until(lambda: "until 1 1" in site.lines(), "the task to run")
    site.server.kill()
    gate.touch()
    worker.wait_for("kept in the outbox")
    site.server.start()
    until(lambda: any(line.startswith("good") for line in site.lines()), "what follows")

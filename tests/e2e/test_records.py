"""What the commands say of tasks that real workers have run."""

import json

import pytest

from tests.support import Bench, until


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and commands go by records."""
    monkeypatch.setenv("GEARWSGI_RECORDS", "sqlite")


def test_what_became_of_a_task_is_listed_shown_and_given(site: Bench) -> None:
    site.worker("--workers", "1")
    app = site.app()
    good = app.gearman.task("/good", {"n": 7}, keep_result=60)
    bad = app.gearman.task("/boom", max_attempts=1)
    until(lambda: (app.gearman.record(good).state, app.gearman.record(bad).state) == ("done", "dead"))
    assert {each["state"] for each in json.loads(site.run("tasks", "--json").stdout)} == {"done", "dead"}
    shown = json.loads(site.run("task", bad.id[:12], "--json").stdout)
    assert shown["id"] == bad.id and shown["reason"] and len(shown["history"]) == 1
    assert shown["history"][0]["outcome"] == "dead" and "boom on purpose" in shown["history"][0]["traceback"]
    result = site.run("result", good.id[:12])
    assert json.loads(result.stdout) == {"n": 7} and result.stderr.startswith("200 ")
    failed = site.run("result", bad.id, ok=False)
    assert failed.returncode == 1 and "is dead" in failed.stderr


def test_a_queued_task_that_no_worker_has_seen_is_known(site: Bench) -> None:
    task = site.app().gearman.task("/good")
    assert json.loads(site.run("task", task.id, "--json").stdout)["state"] == "queued"
    unknown = site.run("task", "0" * 32, ok=False)
    assert (unknown.returncode, unknown.stdout) == (1, "") and "no task" in unknown.stderr

"""What is paused and cancelled holds for a supervisor that starts while its database is away."""

import contextlib
import logging
import sqlite3
import time
from pathlib import Path

import pytest

from gearwsgi.state.records.remembered import MAX_KEPT, recall, remember
from gearwsgi.state.records.steering import CANCEL, FORGET, PAUSE, Request
from gearwsgi.submit.actions import Actions
from tests.support import bench, until


def request(name: str, kind: str = PAUSE, **fields: float) -> Request:
    return Request(kind, name, fields.pop("made", 1.0), fields.pop("until", None), "alice", **fields)


def test_a_supervisor_that_starts_without_its_database_holds_what_is_paused() -> None:
    with bench("embedded") as made:
        app = made.app(records="sqlite")
        env = {"GEARWSGI_RECORDS": "sqlite"}
        both = ("--workers", "1", "--queues", "job,mail")
        acts = Actions(app.client, "alice")
        acts.pause("mail")
        first = made.worker(*both, env=env)
        first.wait_for("queue mail is paused by alice")
        until((app.settings.state_dir / "requests.json").exists)
        assert first.stop() == 0
        file = app.settings.state_dir / "records.sqlite3"
        aside = file.rename(file.with_name("aside"))
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE somebodys (name TEXT)")
        second = made.worker(*both, env=env)
        second.wait_for("another application's file")
        app.gearman.task("/good", {"n": 1}, queue="mail")
        app.gearman.task("/good", {"n": 2})
        until(lambda: made.lines() == ["good 2 1"])
        second.wait_for("queue mail is paused by alice")
        assert made.server.queued("mail") == 1 and made.server.workers("mail") == 0
        aside.replace(file)
        acts.resume("mail")
        until(lambda: made.lines() == ["good 2 1", "good 1 1"])
        until(lambda: not (app.settings.state_dir / "requests.json").exists())


def test_what_is_remembered_comes_back_but_for_what_is_over_and_letters(tmp_path: Path) -> None:
    soon = time.time() + 60
    remember(tmp_path / "new", [request("a"), request("b", until=1.0), request("c", FORGET), request("d", until=soon)])
    assert (tmp_path / "new" / "requests.json").stat().st_mode & 0o777 == 0o600
    first, second = recall(tmp_path / "new")
    assert first == request("a") and second.name == "d"
    assert second.ends is not None and 50 < second.ends - time.monotonic() <= 60
    remember(tmp_path / "new", [request(str(n), CANCEL, made=float(n)) for n in range(MAX_KEPT + 10)])
    assert len(recall(tmp_path / "new")) == MAX_KEPT and recall(tmp_path / "new")[0].name == "10"
    remember(tmp_path / "new", [])
    assert not list((tmp_path / "new").iterdir()) and not recall(tmp_path / "new")


@pytest.mark.parametrize("content", ["", "{", "[1]", '[["pause"]]', '{"a": 1}', '[["pause", "a", "x", null, ""]]'])
def test_a_file_that_cannot_be_read_is_said_and_starts_nothing_and_stops_nothing(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "requests.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert recall(tmp_path) == []
    assert "requests.json" in caplog.text

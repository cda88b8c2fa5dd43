"""What `gearwsgi status` knows from the records, on both databases."""

import json
from pathlib import Path
from typing import Any

import pytest

from gearwsgi.settings import Settings
from gearwsgi.state.records.store import Store
from tests.integration.records.rows import make_row, put

pytestmark = pytest.mark.usefixtures("environment")


def test_status_counts_what_the_records_know_and_marks_silent_supervisors(store: Store, run: Any) -> None:
    now = store.database.now()
    put(
        store, make_row("a", changed=now), make_row("b", changed=now - 300),
        make_row("c", state="dead", changed=now - 300), make_row("d", state="dead", changed=now - 4000),
        make_row("e", state="retrying", ended=None, due=now + 500, changed=now),
    )  # fmt: skip
    worker = {"slot": 1, "pid": 8, "queues": ["job"], "state": "busy", "job": "H:x:1", "age": 5.0, "done": 1,
              "memory": "1 MB", "service": "mail", "id": "f" * 32, "attempt": 2}  # fmt: skip
    with store.database.transaction(write=True) as transaction:
        store.hear(transaction, "s1", now - 20, {"host": "far", "pid": 7, "workers": [worker]})
        store.hear(transaction, "s2", now - 70, {"host": "far", "pid": 6, "workers": []})
    store.steering.pause("mail", 600)
    known = json.loads(run("status", "--json").out)
    [job, mail] = known["queues"]
    assert (job["queue"], job["per_minute"], job["failed"]) == ("job", 1, 2)
    assert mail["paused"] and 590 < mail["paused_for"] <= 600
    assert [(each["host"], each["pid"], each["fresh"]) for each in known["supervisors"]] == [("far", 7, False)]
    assert known["last_hour"]["dead"] == 1
    answer = run("status", "--check")
    assert answer.code == 1 and "WARNING: not responding: supervisor far:7" in answer.out
    assert "paused: mail (for " in answer.out and "f" * 12 in answer.out


def test_status_makes_no_records_where_there_are_none(run: Any, settings: Settings, records: str) -> None:
    assert run("status").code == 1  # no job server is up
    assert not Path(settings.state_dir / "records.sqlite3").exists()

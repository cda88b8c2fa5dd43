"""What the records' store does, the same on SQLite and on PostgreSQL."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gearwsgi.errors import RecordsUnavailable, UnknownTask
from gearwsgi.settings import Settings
from gearwsgi.state.records import model, schema
from gearwsgi.state.records.database import Refused
from gearwsgi.state.records.model import write_attempt
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.rows import COLUMNS, ENDED, QUEUED, RUNNING, Row, place
from gearwsgi.state.records.steering import PAUSE_ENTRY
from gearwsgi.state.records.store import Store
from tests.postgres import PostgresServer

from .rows import NOW, make_row


def put(store: Store, *rows: Row) -> None:
    with store.database.transaction(write=True) as transaction:
        store.put(transaction, rows)


def test_a_record_has_every_field_and_its_json_the_same_names(store: Store) -> None:
    put(store, make_row("a" * 32, done=3, total=10, request_id="r1", traceparent="00-x-y-01", due=NOW + 0.5))
    record = store.find("a" * 32)
    assert record.to_json() == {
        "id": "a" * 32, "service": "mail.welcome", "method": "POST", "path": "/mail/welcome", "queue": "job",
        "priority": "normal", "state": "done", "queued": "2027-01-15T08:00:00.000+00:00",
        "due": "2027-01-15T08:00:00.500+00:00", "started": "2027-01-15T08:00:01.000+00:00",
        "ended": "2027-01-15T08:00:02.000+00:00", "attempts": 1, "max_attempts": 5, "progress": [3, 10],
        "status": 200, "reason": None, "host": "here", "pid": 7, "request_id": "r1", "traceparent": "00-x-y-01",
        "history": [{
            "attempt": 1, "started": "2027-01-15T08:00:01.000+00:00", "seconds": 1.0, "host": "here", "pid": 7,
            "outcome": "done", "status": 200, "reason": None, "traceback": None,
        }],
    }  # fmt: skip
    assert "history" not in record.to_json(history=False)


def test_attempts_that_failed_are_the_history_of_the_one_that_was_done(store: Store) -> None:
    for attempt in (1, 2):
        line = write_attempt(
            attempt, NOW + attempt, NOW + attempt + 0.5, "retried", host="h", pid=attempt, status=503, reason="503"
        )
        put(store, make_row("a", state="retrying", ended=None, attempts=attempt, place=place(attempt, ENDED),
                            started=NOW + 1, history=line))  # fmt: skip
    done = write_attempt(3, NOW + 3, NOW + 4, "done", host="h", pid=3, status=200, reason=None)
    put(store, make_row("a", attempts=3, place=place(3, ENDED), started=NOW + 3, history=done))
    record = store.find("a")
    assert [(each.attempt, each.outcome, each.status) for each in record.history] == [
        (1, "retried", 503), (2, "retried", 503), (3, "done", 200),
    ]  # fmt: skip
    assert record.started == model.moment(NOW + 1), "the first attempt's"
    assert record.attempts == 3


def test_what_is_written_late_overtakes_nothing_and_its_history_counts(store: Store) -> None:
    put(store, make_row("a", attempts=2, place=place(2, ENDED)))
    late = write_attempt(1, NOW, NOW + 0.5, "retried", host="h", pid=1, status=500, reason="500")
    put(store, make_row("a", state="retrying", ended=None, attempts=1, place=place(1, ENDED), history=late))
    record = store.find("a")
    assert (record.state, record.attempts) == ("done", 2)
    assert [each.outcome for each in record.history] == ["retried"]
    put(store, make_row("a", state="running", ended=None, attempts=2, place=place(2, RUNNING)))
    assert store.find("a").state == "done", "it runs again, for its answer was lost; it was done"


def test_a_task_that_is_queued_anew_begins_again(store: Store) -> None:
    put(store, make_row("a", state="dead", attempts=5, place=place(5, ENDED), reason="500"))
    put(store, make_row("a", state="queued", queued=NOW + 100, started=None, ended=None, attempts=0,
                        place=place(1, QUEUED), reason=None))  # fmt: skip
    record = store.find("a")
    assert (record.state, record.attempts, record.started, record.ended, record.reason) == (
        "queued", 0, None, None, None,
    )  # fmt: skip


def test_an_id_may_be_shortened_where_that_is_unambiguous(store: Store) -> None:
    put(store, make_row("abc1"), make_row("abc2"), make_row("b1"), make_row("b10"), make_row("100%"), make_row("1_0"))
    assert store.find("abc1").id == "abc1"
    assert store.find("b1").id == "b1", "what is an id is no beginning of one"
    assert store.find("100").id == "100%"
    with pytest.raises(UnknownTask, match="several"):
        store.find("abc")
    for unknown in ("c", "%", "_", "ab%", "", "a'; DROP TABLE gearwsgi_task; --"):
        with pytest.raises(UnknownTask):
            store.find(unknown)


def test_tasks_are_listed_newest_first_and_filtered_and_bounded(store: Store) -> None:
    rows = [make_row(f"t{n}", queued=NOW + n, changed=NOW + n) for n in range(10)]
    rows[3].state, rows[4].service, rows[5].queue = "dead", "other", "mail"
    put(store, *rows)

    def ids(**filters: object) -> list[str]:
        return [each.record.id for each in store.tasks(**filters)]  # type: ignore[arg-type]

    assert ids() == [f"t{n}" for n in reversed(range(10))]
    assert ids(limit=3) == ["t9", "t8", "t7"]
    assert (ids(state="dead"), ids(service="other"), ids(queue="mail")) == (["t3"], ["t4"], ["t5"])
    assert ids(since=NOW + 8) == ["t9", "t8"]
    assert ids(state="dead", queue="mail") == []
    assert ids(limit=-5) == []


@pytest.mark.parametrize(
    "text", ["\x00", "\udcff", "\x1b[31m[/x][b]", "'; --", "ä€😀", "%s %(x)s ?", "\ufffe", "a\r\nb", "\\x00"]
)
def test_hostile_text_is_stored_and_never_interpreted(store: Store, text: str) -> None:
    from gearwsgi.state.records.rows import clean, clean_id

    row = make_row(clean_id("id" + text), service=clean(text), queue=clean(text), reason=clean(text), path=clean(text))
    put(store, row)
    found = store.find("id" + text)
    assert found.service == found.reason == found.queue == clean(text)
    assert [each.record.id for each in store.tasks(service=text)] == [found.id]


def test_a_very_long_id_stays_one_of_its_own(store: Store) -> None:
    from gearwsgi.state.records.rows import clean_id

    long, other = "x" * 15_000, "x" * 14_999 + "y"
    put(store, make_row(clean_id(long), service="one"), make_row(clean_id(other), service="other"))
    assert (store.find(long).service, store.find(other).service) == ("one", "other")


def test_values_that_the_database_refuses_are_told_from_a_database_that_is_ill(store: Store) -> None:
    put(store, make_row("a"))
    with pytest.raises(Refused), store.database.transaction(write=True) as transaction:
        transaction.run("UPDATE gearwsgi_task SET service = NULL")
    with pytest.raises(Refused):
        put(store, make_row("b", attempts=1 << 70))
    assert store.find("a").service == "mail.welcome"


def test_a_history_has_an_end(store: Store) -> None:
    for attempt in range(1, 40):
        line = write_attempt(attempt, NOW + attempt, NOW + attempt, "retried", host="h", pid=1, status=500,
                             reason="r", traceback="x" * 16_000)  # fmt: skip
        put(store, make_row("a", attempts=attempt, place=place(attempt, ENDED), history=line))
    history = store.find("a").history
    assert 5 < len(history) < 20
    assert history[-1].attempt == 39


def test_a_response_is_kept_until_its_time_is_over(store: Store) -> None:
    now = store.database.now()
    with store.database.transaction(write=True) as transaction:
        store.keep_result(transaction, "a", now + 1000, b"first")
        store.keep_result(transaction, "a", now + 1000, b"\x00\xffsecond")
        store.keep_result(transaction, "b", now - 1, b"gone")
    assert store.result("a") == b"\x00\xffsecond"
    assert store.result("b") is None
    assert store.result("c") is None


def test_the_fleet_is_who_was_heard_of_within_a_minute(store: Store) -> None:
    now = store.database.now()
    with store.database.transaction(write=True) as transaction:
        store.hear(transaction, "s1", now, {"host": "one", "pid": 1})
        store.hear(transaction, "s2", now - 30, {"host": "two", "pid": 2})
        store.hear(transaction, "s3", now - 100, {"host": "three", "pid": 3})
        store.hear(transaction, "s4", now, {"host": "four", "pid": 4})
        store.leave(transaction, "s4")
    one, two = store.fleet()
    assert (one.about, two.about) == ({"host": "one", "pid": 1}, {"host": "two", "pid": 2})
    assert one.silent < 10 < two.silent
    put(store, make_row("r1", state="running", owner="s1"), make_row("r2", state="running", owner="s2"), make_row("d"))
    assert {each.record.id: each.is_fresh for each in store.tasks()} == {"r1": True, "r2": False, "d": None}


def test_a_queue_is_paused_until_it_is_resumed_or_its_time_is_over(store: Store) -> None:
    steering = store.steering
    steering.pause("job", 1000, by="ann")
    steering.pause("job", by="bob")
    steering.pause("mail", 1000)
    steering.pause("gone", -1)
    steering.pause("daily", kind=PAUSE_ENTRY)
    assert [(each.name, each.until is None, each.about) for each in steering.pauses()] == [
        ("job", True, "bob"),
        ("mail", False, ""),
    ]
    assert [each.name for each in steering.pauses(PAUSE_ENTRY)] == ["daily"]
    assert steering.resume("job") and not steering.resume("job") and not steering.resume("gone")
    assert [each.name for each in steering.pauses()] == ["mail"]


def test_who_looks_often_reads_only_what_has_changed_and_what_is_over_is_left_out(store: Store) -> None:
    store.steering.pause("job")
    store.steering.pause("mail", 1000)
    now = store.database.now()
    with store.database.transaction(write=True) as transaction:
        first = store.steering.requests(transaction, now)
        transaction.run("DELETE FROM gearwsgi_request")
        assert store.steering.requests(transaction, now) == first
        assert [each.name for each in store.steering.requests(transaction, now + 1001)] == ["job"]
    (timed,) = [each for each in first if each.name == "mail"]
    assert timed.ends is not None and timed.holds(timed.ends - 1) and not timed.holds(timed.ends)
    store.steering.pause("other")
    assert [each.name for each in store.steering.pauses()] == ["other"]


def test_cancelling_asks_for_what_has_not_ended_and_changes_nothing_else(store: Store) -> None:
    put(store, make_row("done"), make_row("waits", state="retrying", ended=None, place=place(1, ENDED)),
        make_row("runs", state="running", ended=None, place=place(1, RUNNING)))  # fmt: skip
    known = store.find("done")
    tasks = {each: replace(known, id=each) for each in ("done", "waits", "runs", "new")}
    states = {each: store.cancel(task, by="ann") for each, task in tasks.items()}
    assert states == {"done": "done", "waits": "retrying", "runs": "running", "new": "unknown"}
    assert {each: store.find(each).state for each in tasks} == {
        "done": "done", "waits": "cancelled", "runs": "running", "new": "cancelled",
    }  # fmt: skip
    assert store.find("new").queued is None and store.find("waits").reason == "cancelled by ann"
    story = {each: [(event.what, event.by) for event in store.story(each)] for each in tasks}
    assert story == {"done": [], "waits": [("cancelled", "ann")], "runs": [("cancel asked", "ann")],
                     "new": [("cancelled", "ann")]}  # fmt: skip
    with store.database.transaction(write=True) as transaction:
        asked = store.steering.requests(transaction, store.database.now())
        assert {(each.kind, each.name, each.until) for each in asked} == {
            ("cancel", "waits", None), ("cancel", "runs", None), ("cancel", "new", None),
        }  # fmt: skip
        store.steering.obeyed(transaction, asked[0], store.database.now())
        left = transaction.all("SELECT count(*) FROM gearwsgi_request WHERE until IS NULL")
    assert left == [(2,)], "what was obeyed is remembered for a while"
    put(store, make_row("new", state="running", ended=None, place=place(1, RUNNING)))
    assert store.find("new").state == "running", "what a supervisor has seen counts"


_OPEN = """
import os, sys, traceback
from gearwsgi.settings import read_settings
from gearwsgi.state.records.opening import open_database

settings = read_settings({"state_dir": sys.argv[1], "records": sys.argv[2]}, {})
open_database(settings)  # its driver is imported by that
gate, closer = os.pipe()


def come(number):
    database = open_database(settings)
    with database.transaction(write=True) as transaction:
        transaction.run(
            "INSERT INTO gearwsgi_supervisor (id, heard, about) VALUES (?, ?, '{}')", (str(number), database.now())
        )


def fork(number):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.close(closer)
        os.read(gate, 1)  # until it is closed
        come(number)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


pids = [fork(number) for number in range(20)]
os.close(closer)
sys.exit(any([os.waitpid(pid, 0)[1] for pid in pids]))
"""


@pytest.mark.parametrize("is_pooled", [False, True])
def test_no_statement_waits_for_ever_and_a_poolers_connection_is_left_as_it_was(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, is_pooled: bool
) -> None:
    postgres = pytest.importorskip("gearwsgi.state.records.postgres")

    if is_pooled:  # its own process id is all by which a pooler is told
        monkeypatch.setattr(postgres, "_is_pooled", lambda connection: True)
    database = postgres.Postgres(postgres_server.make())
    shown = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    try:
        for single in (False, True):
            with database.transaction(write=True, single=single) as transaction:
                assert transaction.all(shown) == [("5s", "30s")]
        assert database._connected().execute(shown).fetchone() == (("0", "0") if is_pooled else ("5s", "30s"))
    finally:
        database.close()


def test_twenty_processes_that_come_at_once_make_one_store(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(settings.state_dir), settings.records], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    database = open_database(settings)
    assert database is not None
    assert len(Store(database).fleet()) == 20
    database.close()


def test_a_store_of_a_newer_version_is_left_alone_with_a_clear_line(store: Store, settings: Settings) -> None:
    put(store, make_row("a"))
    with store.database.transaction(write=True) as transaction:
        transaction.run("UPDATE gearwsgi_meta SET value = ?", (schema.VERSION + 1,))
    store.database.close()
    for _ in range(2):
        with pytest.raises(RecordsUnavailable, match=r"newer gearwsgi .*upgrade"):
            store.find("a")


def test_a_store_of_an_older_version_is_brought_to_this_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, make_row("a"))
    store.database.close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE gearwsgi_more (x {real})",)))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    assert store.find("a").id == "a"
    with store.database.transaction(write=True) as transaction:
        transaction.run("INSERT INTO gearwsgi_more (x) VALUES (1.5)")


def test_a_hundred_thousand_records_are_listed_in_under_a_second(store: Store) -> None:
    put(store, make_row("seed"))
    columns = ", ".join(each for each in COLUMNS if each not in ("id", "queued"))
    with store.database.transaction(write=True) as transaction:
        transaction.run(
            f"INSERT INTO gearwsgi_task (id, queued, {columns}) WITH RECURSIVE number (n) AS"
            " (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 100000)"
            f" SELECT id || n, queued + n, {columns} FROM gearwsgi_task, number"
        )
    put(store, make_row("dead", state="dead", queued=NOW - 1))
    began = time.process_time()
    assert len(store.tasks()) == 100
    assert [each.record.id for each in store.tasks(state="dead")] == ["dead"]
    print(f"{time.process_time() - began:.3f} s")


def test_the_file_and_what_is_beside_it_are_for_their_owner_only(tmp_path: Path) -> None:
    from gearwsgi.state.records.sqlite import Sqlite

    old = os.umask(0)
    try:
        database = Sqlite(tmp_path / "state" / "records.sqlite3")
        put(Store(database), make_row("a"))
        for path in (tmp_path / "state").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path
    finally:
        os.umask(old)
    database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "records.sqlite3")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)

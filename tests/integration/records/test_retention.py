"""What goes from the records, and what stays; and that dead letters and their records say the same."""

from dataclasses import replace

import pytest

from gearwsgi.message.model import Message
from gearwsgi.settings import Settings
from gearwsgi.state.records import retention as module
from gearwsgi.state.records.letters import Letters
from gearwsgi.state.records.retention import Retention
from gearwsgi.state.records.rows import ENDED, QUEUED, RUNNING, Row, place
from gearwsgi.state.records.store import Store
from gearwsgi.state.spool import Letter, Spool

from .rows import make_row


def put(store: Store, *rows: Row) -> None:
    with store.database.transaction(write=True) as transaction:
        store.put(transaction, rows)


def ids(store: Store) -> set[str]:
    return {each.record.id for each in store.tasks(limit=10_000)}


def run(store: Store, settings: Settings, **changes: float) -> None:
    retention = Retention(store, replace(settings, **changes))  # type: ignore[arg-type]
    retention.begin()
    retention.work(60)


def test_what_has_ended_long_ago_goes_and_a_dead_one_stays(store: Store, settings: Settings) -> None:
    now = store.database.now()
    old, new = now - 100, now - 10
    put(
        store,
        make_row("old", queued=old, ended=old, changed=old), make_row("new", queued=new, ended=new, changed=new),
        make_row("dead", state="dead", queued=old, ended=old, changed=old),
        make_row("discarded", state="discarded", queued=old, ended=old, changed=old),
        make_row("lost", state="retrying", ended=None, changed=old, place=place(1, ENDED)),
        make_row("runs", state="running", ended=None, changed=new, place=place(1, RUNNING)),
        make_row("later", state="scheduled", ended=None, changed=old, due=now + 1000, place=place(1, QUEUED)),
    )  # fmt: skip
    run(store, settings, records_max_age=50)
    assert ids(store) == {"new", "dead", "runs", "later"}


def test_the_oldest_that_have_ended_go_first_where_there_are_too_many(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BITE", 7)
    now = store.database.now()
    put(store, *[make_row(f"t{n}", queued=now - 100 + n, ended=now, changed=now) for n in range(50)])
    put(store, make_row("dead", state="dead", ended=now - 1000, changed=now),
        make_row("runs", state="running", ended=None, changed=now, place=place(1, RUNNING)))  # fmt: skip
    run(store, settings, records_max_count=20)
    assert ids(store) == {"dead", "runs", *(f"t{n}" for n in range(32, 50))}


def test_more_dead_ones_than_may_be_kept_hold_nothing_up(store: Store, settings: Settings) -> None:
    put(store, *[make_row(f"t{n}", state="dead", changed=store.database.now()) for n in range(30)])
    run(store, settings, records_max_count=20)
    assert len(ids(store)) == 30


def test_responses_requests_and_supervisors_go_when_their_time_is_over(store: Store, settings: Settings) -> None:
    now = store.database.now()
    with store.database.transaction(write=True) as transaction:
        store.keep_result(transaction, "a", now - 1, b"old")
        store.keep_result(transaction, "b", now + 100, b"new")
        store.hear(transaction, "gone", now - 1000, {})
        store.hear(transaction, "here", now, {})
    store.steering.pause("job", -1)
    store.steering.pause("mail")
    put(store, make_row("late", state="running", ended=None))
    store.cancel(store.find("late"))
    put(store, make_row("late", state="retrying", ended=None))
    run(store, settings)
    with store.database.transaction(write=False) as transaction:
        left = [
            sorted(transaction.all(f"SELECT {column} FROM gearwsgi_{table}"))
            for table, column in (("result", "task"), ("supervisor", "id"), ("request", "name"))
        ]
    assert left == [[("b",)], [("here",)], [("late",), ("mail",)]]
    assert store.find("late").state == "cancelled"


def write_letter(settings: Settings, name: str, queued: float = 0.0) -> bytes:
    task = Message("POST", path="/mail", id=name, service="mail", attempt=5, max_attempts=5, queued=queued)
    fields = {
        "id": name, "service": "mail", "target": "POST /mail", "queue": "job", "died": "2026-01-31T12:00:00+00:00",
        "attempts": "5", "reason": "500", "trusted": "yes",
    }  # fmt: skip
    Spool(settings.state_dir / "dead", "dead letter").put(Letter(task.to_bytes(), fields), name)
    return task.to_bytes()


def letters_in(store: Store) -> dict[str, bytes]:
    with store.database.transaction(write=False) as transaction:
        return {name: bytes(content) for name, content in transaction.all("SELECT name, content FROM gearwsgi_letter")}


def test_dead_letters_that_the_records_lack_are_added_and_those_that_are_gone_discarded(
    store: Store, settings: Settings
) -> None:
    letters = Letters(store, settings)
    payload = write_letter(settings, "a" * 32)
    write_letter(settings, "b" * 32)
    letters.compare()
    record = store.find("a" * 32)
    assert (record.state, record.reason, record.attempts, record.path) == ("dead", "500", 5, "/mail")
    kept = letters_in(store)
    assert set(kept) == {"a" * 32, "b" * 32} and Letter.from_bytes(kept["a" * 32]).message == payload
    letters.compare()
    (settings.state_dir / "dead" / f"{'a' * 32}.http").unlink()
    letters.compare()
    assert (store.find("a" * 32).state, store.find("b" * 32).state) == ("discarded", "dead")
    assert set(letters_in(store)) == {"b" * 32}


def test_an_old_letter_does_not_make_a_task_dead_that_was_queued_again(store: Store, settings: Settings) -> None:
    now = store.database.now()
    put(store, make_row("a" * 32, state="queued", queued=now, ended=None, place=place(1, QUEUED)))
    write_letter(settings, "a" * 32, queued=now - 100)
    Letters(store, settings).compare()
    assert store.find("a" * 32).state == "queued"

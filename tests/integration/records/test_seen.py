"""The table of deliveries that were seen: the same on SQLite and on PostgreSQL, and for many processes at once."""

import threading
from contextlib import ExitStack

import pytest

from gearwsgi.errors import RecordsUnavailable
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records import seen as module
from gearwsgi.state.records.retention import Retention
from gearwsgi.state.records.seen import looking
from gearwsgi.state.records.store import Store


def test_a_delivery_that_is_queued_is_seen_until_its_time_is_over_and_told_by_others(settings: Settings) -> None:
    with looking(settings, "a") as first, looking(settings, "a") as second, looking(settings, "b") as other:
        assert first.claim() is True
        assert second.claim() is None, "the first may still fail"
        assert other.claim() is True
        first.keep(1000)
        assert second.claim() is False
        other.release()
        assert other.claim() is True, "it could not be queued, and blocks nothing"
    with looking(settings, "a") as again:
        assert again.claim() is False, "another process, later"
    with looking(settings, "b") as again:
        again.keep(1000)
        assert again.claim() is None, "whoever did not claim it, does not say that it was seen"
        again.release()
        assert again.claim() is None, "nor that it was not"


def test_what_a_process_has_claimed_and_not_queued_is_taken_by_another_after_a_while(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM", 0.0)
    with looking(settings, "a") as dead, looking(settings, "a") as other:
        assert dead.claim() and other.claim()
        dead.keep(1000)  # it lives after all: the other one has it now
        other.keep(-1)
        assert dead.claim(), "its time is over"


def test_of_many_at_once_one_takes_it(settings: Settings) -> None:
    answers: list[bool | None] = []
    start = threading.Barrier(8)

    def deliver() -> None:
        with looking(settings, "a") as seen:
            start.wait()
            answers.append(seen.claim())

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers, key=str) == [None] * 7 + [True]


def test_what_was_seen_long_ago_is_removed(store: Store, settings: Settings) -> None:
    with ExitStack() as stack:
        for key, seconds in (("old", -1), ("new", 1000)):
            seen = stack.enter_context(looking(settings, key))
            seen.claim()
            seen.keep(seconds)
    retention = Retention(store, settings)
    retention.begin()
    retention.work(60)
    with store.database.transaction(write=False) as transaction:
        assert transaction.all("SELECT key FROM gearwsgi_seen") == [("new",)]


def test_where_records_are_off_nobody_can_tell() -> None:
    with pytest.raises(RecordsUnavailable, match="off"), looking(read_settings({"records": None}, {}), "a"):
        pass

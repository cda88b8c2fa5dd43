"""What somebody who looks through the records asks: the same answers from both databases, and bounded."""

from typing import Any

import pytest

from gearwsgi.settings import Settings
from gearwsgi.state.records import queries
from gearwsgi.state.records.model import DEAD, DONE
from gearwsgi.state.records.queries import Filter, Key, Queries, Step
from gearwsgi.state.records.store import Store
from tests.integration.records.rows import NOW, make_row, put


def ids(found: Any) -> list[str]:
    return [each.record.id for each in found]


@pytest.fixture
def asked(store: Store) -> Queries:
    """Five tasks, the newest is `a5`; two of them are dead, one waits."""
    put(
        store,
        make_row("a1", queued=NOW - 100),
        make_row("a2", queued=NOW - 80, state=DEAD, reason="100% of Ünits\\_x failed", ended=NOW - 70),
        make_row("a3", queued=NOW - 60, queue="mail", state="retrying", ended=None, reason="status 503"),
        make_row("b4", queued=NOW - 40, service="report", state=DEAD, reason="status 503", changed=NOW + 9),
        make_row("a5", queued=NOW - 40, service="report"),
    )
    return Queries(store.database)


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(), ["b4", "a5", "a3", "a2", "a1"]),
        (Filter(state=DEAD), ["b4", "a2"]),
        (Filter(state=DONE), ["a5", "a1"]),
        (Filter(service="report"), ["b4", "a5"]),
        (Filter(queue="mail"), ["a3"]),
        (Filter(id="a"), ["a5", "a3", "a2", "a1"]),
        (Filter(id="a2"), ["a2"]),
        (Filter(text="STATUS"), ["b4", "a3"]),
        (Filter(text="100% of"), ["a2"]),
        (Filter(text="\\_X"), ["a2"]),
        (Filter(text="%"), ["a2"]),
        (Filter(text="_"), ["a2"]),
        (Filter(since=NOW - 60), ["b4", "a5", "a3"]),
        (Filter(until=NOW - 60), ["a3", "a2", "a1"]),
        (Filter(settled=NOW + 8, state=DEAD), ["a2"]),
        (Filter(text="'; DROP TABLE gearwsgi_task; --", service="\x00"), []),
    ],
)
def test_a_filter_finds_what_it_means_newest_first(asked: Queries, which: Filter, expected: list[str]) -> None:
    page = asked.page(which)
    assert ids(page.found) == expected and page.next is None
    assert asked.count(which) == len(expected)
    assert sorted(asked.ids(which, 10)) == sorted(expected)


def test_pages_follow_each_other_by_key_also_where_times_are_equal(asked: Queries) -> None:
    seen, after = [], None
    for _ in range(5):
        page = asked.page(Filter(), after, limit=1)
        seen += ids(page.found)
        after = page.next
    assert seen == ["b4", "a5", "a3", "a2", "a1"] and after is None
    assert asked.page(Filter(), Key(NOW - 1000, "")).found == []


def test_counts_are_capped(asked: Queries) -> None:
    assert asked.count(Filter(), most=3) == 4
    assert asked.count(Filter(), most=5) == 5


def test_a_question_looks_at_so_many_records_and_goes_on_from_there(
    asked: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "WINDOW", 2)
    page = asked.page(Filter(service="mail.welcome"))
    assert ids(page.found) == ["a3"] and page.next is not None
    page = asked.page(Filter(service="mail.welcome"), page.next)
    assert ids(page.found) == ["a2", "a1"]


def test_dead_ones_are_grouped_by_service_and_reason(asked: Queries, store: Store) -> None:
    put(store, make_row("c1", state=DEAD, reason="status 503", service="report", ended=NOW + 7))
    groups = asked.groups(Filter(state=DEAD))
    assert [tuple(group)[:3] for group in groups] == [
        ("report", "status 503", 2), ("mail.welcome", "100% of Ünits\\_x failed", 1),
    ]  # fmt: skip
    assert groups[0].last == NOW + 7
    assert asked.names(Filter()) == (["mail.welcome", "report"], ["job", "mail"])


def test_steps_of_time_say_what_was_done_what_failed_and_what_waited(store: Store) -> None:
    now = store.database.now()
    minute = now // 60 * 60
    put(
        store,
        make_row("a", queued=minute - 200, began=minute - 30, changed=minute - 29),  # waited over three minutes' ends
        make_row("b", queued=minute - 31, began=minute - 30, changed=minute - 30, state=DEAD),
        make_row("c", queued=minute - 90, began=minute - 89, changed=minute - 89),
        make_row("d", queued=minute - 1, state="queued", began=None, ended=None, changed=minute - 1),
        make_row("e", queued=minute - 9000, began=minute - 8000, changed=minute - 8000),
        make_row("f", queued=minute + 7200, began=minute - 20, changed=minute - 20),  # a clock that is wrong
    )
    steps = Queries(store.database).steps(5, 60.0)
    if store.database.now() // 60 * 60 != minute:
        pytest.skip("the minute ended meanwhile")
    assert steps == [Step(0, 0, 1), Step(0, 0, 1), Step(1, 0, 1), Step(2, 1, 1), Step(0, 0, 1)]


def test_services_are_told_with_how_long_they_took_and_waited(asked: Queries, store: Store) -> None:
    put(store, make_row("d1", queued=NOW, due=NOW + 5, began=NOW + 6, changed=NOW + 16, service="late"))
    services, since = asked.services()
    late, mail, report = services
    assert (late.name, late.count, late.seconds, late.waited) == ("late", 1, [10.0], [1.0])
    assert (mail.count, mail.dead, mail.retrying, report.dead) == (3, 1, 1, 1)
    assert report.last_failure == (NOW + 9, "b4", "status 503") and since == NOW - 100


def test_a_question_about_dead_ones_reads_the_index_that_done_ones_are_not_in(
    settings: Settings, store: Store, records: str
) -> None:
    if records != "sqlite":
        pytest.skip("PostgreSQL plans by how much there is")
    put(store, make_row("a1"))
    with store.database.transaction(write=False) as transaction:
        plan = str(transaction.all(
            "EXPLAIN QUERY PLAN SELECT id FROM gearwsgi_task WHERE state = ? AND state <> 'done'"
            " ORDER BY queued DESC, id DESC", ("dead",),
        ))  # fmt: skip
    assert "gearwsgi_task_open" in plan


def test_letters_of_a_task_are_found_wherever_they_lie(store: Store) -> None:
    with store.database.transaction(write=True) as transaction:
        store.keep_letter(transaction, "s2", "n", "t1", b"two")
        store.keep_letter(transaction, "s1", "n", "t1", b"one")
    found = Queries(store.database).letters("t1")
    assert [(each.spool, each.content) for each in found] == [("s1", b"one"), ("s2", b"two")]

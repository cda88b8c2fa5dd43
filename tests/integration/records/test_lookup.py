"""What became of a task, as a web process asks it: records, outbox and job servers together."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import (
    RecordsUnavailable,
    ResultNotKept,
    ResultPending,
    ServerError,
    ServerUnavailable,
    TaskDead,
    UnknownTask,
)
from gearwsgi.message.response import write_response
from gearwsgi.settings import Settings
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.rows import QUEUED, RUNNING, Row, place
from gearwsgi.state.records.store import Store
from gearwsgi.wire.payload import Submission, make_unique
from tests.support import Bench, free_port, until

from .rows import make_row

ID = "0123456789abcdef" * 2
OTHER = "0123456789abcdee" * 2


def make_app(settings: Settings, **more: object) -> GearmanMiddleware:
    """A middleware with the records of `settings`, and no job server unless one is given."""
    keywords = {"servers": f"127.0.0.1:{free_port()}", "state_dir": settings.state_dir, "records": settings.records}
    return GearmanMiddleware(lambda environ, start: [], **{**keywords, **more})  # type: ignore[arg-type]


def put(store: Store, *rows: Row, result: bytes = b"", seconds: float = 60.0) -> None:
    with store.database.transaction(write=True) as transaction:
        store.put(transaction, rows)
        if result:
            store.keep_result(transaction, rows[0].id, store.database.now() + seconds, result)


def test_a_record_is_found_by_its_id_and_by_as_much_of_it_as_no_other_has(settings: Settings, store: Store) -> None:
    gearman = make_app(settings).gearman
    put(store, make_row(ID), make_row(OTHER, service="other.one"))
    assert gearman.record(ID).service == "mail.welcome"
    assert gearman.record(OTHER[:16]).id == OTHER and str(gearman.status(OTHER[:16])) == "done"
    for ask in (gearman.record, gearman.result, gearman.status):
        with pytest.raises(UnknownTask, match="of several: give more of it"):
            ask(ID[:8])
    for nobody in ("", "ffff", "' OR 1 = 1 --", "\0", "%"):
        with pytest.raises(UnknownTask):
            gearman.record(nobody)
        assert str(gearman.status(nobody)) == "unknown"


def test_a_result_is_the_handlers_own_response(settings: Settings, store: Store) -> None:
    gearman = make_app(settings).gearman
    headers = [("Content-Type", "text/csv"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    put(store, make_row(ID), result=write_response("201 Made", headers, b"a,b\n\0"))
    response = gearman.result(ID[:10])
    assert (response.status, response.body) == ("201 Made", b"a,b\n\0")
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"] and response.content_type == "text/csv"


def test_a_result_that_is_not_kept_is_told_from_one_of_a_dead_task(settings: Settings, store: Store) -> None:
    gearman = make_app(settings).gearman
    put(store, make_row(ID), result=write_response("200 OK", [], b"x"), seconds=-1)
    with pytest.raises(ResultNotKept, match=ID):
        gearman.result(ID)
    for state in ("dead", "cancelled", "discarded"):
        put(store, make_row(OTHER, state=state, reason="ValueError: no such page"))
        with pytest.raises(TaskDead, match=f"is {state}: ValueError") as raised:
            gearman.result(OTHER)
        assert raised.value.reason == "ValueError: no such page" and str(gearman.status(OTHER)) == state


def test_a_result_is_waited_for_and_may_come_from_another_process(settings: Settings, store: Store) -> None:
    gearman = make_app(settings).gearman
    put(store, make_row(ID, state="running", ended=None, place=place(1, RUNNING), done=3, total=9))
    assert str(gearman.status(ID)) == "running 3 of 9"
    with pytest.raises(ResultPending, match="is running"):
        gearman.result(ID, timeout=0.1)
    found: list[bytes] = []
    waiting = threading.Thread(target=lambda: found.append(gearman.result(ID, timeout=60).body))
    waiting.start()
    put(store, make_row(ID), result=write_response("200 OK", [], b"at last"))
    waiting.join(60)
    assert found == [b"at last"]


def test_threads_and_forked_processes_ask_at_once_and_leave_no_connection(settings: Settings, store: Store) -> None:
    gearman = make_app(settings).gearman
    put(store, make_row(ID))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(gearman.record(ID).state)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["done"] * 8
    context = multiprocessing.get_context("fork")
    ends = []
    for _ in range(3):
        child = context.Process(target=lambda: gearman.record(ID))
        child.start()
        child.join(60)
        ends.append(child.exitcode)
    assert ends == [0, 0, 0] and gearman.record(ID).state == "done"
    if settings.records != "sqlite":
        until(lambda: clients(store) == 1, "no connection but the test's own")


def clients(store: Store) -> int:
    """How many connections to the test's database there are; one that was closed is there for a moment."""
    own = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    with store.database.transaction(write=False) as transaction:
        return int(transaction.all(own)[0][0])


def test_what_is_queued_is_never_unknown_and_neither_is_its_retry(site: Bench, settings: Settings) -> None:
    database = open_database(settings)
    assert database is not None
    store = Store(database)
    app = make_app(settings, servers=site.server.address)
    gearman = app.gearman
    try:
        task = gearman.task("mail.welcome")
        assert str(gearman.status(task.id)) == "queued" and str(gearman.status(task)) == "queued"
        record = gearman.record(task.id)
        assert (record.id, record.state, record.service, record.attempts) == (task.id, "queued", "-", 0)
        assert gearman.record(task).service == "mail.welcome"
        with pytest.raises(ResultPending, match="is queued"):
            gearman.result(task.id)
        for attempt, again, state in ((3, "", "retrying"), (1, "~a1b2c3", "queued"), (2, "~a1b2c3", "retrying")):
            other = f"{attempt:x}{again[-1:] or 'e'}" * 16
            payload = b"POST http://localhost/x HTTP/1.1\r\n\r\n"
            app.client.submit([Submission("job", make_unique(other, attempt, again), payload)])
            assert str(gearman.status(other)) == state
        put(store, make_row(ID, state="retrying", ended=None, attempts=2, place=place(2, QUEUED)))
        assert str(gearman.status(ID)) == "retrying"
        assert str(gearman.status("f" * 32)) == "unknown"
        with pytest.raises(UnknownTask):
            gearman.result("f" * 32, timeout=60)
    finally:
        database.close()
        app.client.close()


def test_a_record_that_is_written_while_a_task_is_queued_goes_where_it_is_refused(
    site: Bench, settings: Settings
) -> None:
    app = make_app(settings, servers=site.server.address, on_unavailable="raise")
    with app.client.open_records(make=True) as records:
        assert isinstance(records, Store)
        task = app.gearman.task("mail.welcome", {"to": "Ann"}, delay=60, recorded=True)
        found = app.gearman.record(task)
        assert (found.service, found.state, found.attempts, found.path) == (
            "mail.welcome", "scheduled", 0, "/mail/welcome",
        )  # fmt: skip
        assert b"Ann" in (records.message(task.id) or b"")
        site.server.admin("maxqueue job 1")
        with pytest.raises(ServerError):
            app.gearman.task("mail.never", recorded=True)
        assert [each.record.service for each in records.tasks()] == ["mail.welcome"]
    app.client.close()


def test_what_waits_in_the_outbox_is_queued(settings: Settings) -> None:
    app = make_app(settings)
    task = app.gearman.task("mail.welcome")
    assert not task.handle
    assert str(app.gearman.status(task.id)) == "queued" and app.gearman.record(task.id).state == "queued"
    with pytest.raises(ServerUnavailable):
        app.gearman.status("f" * 32)
    app.client.close()


def test_without_records_status_is_what_job_server_and_outbox_know(embedded_site: Bench) -> None:
    app = embedded_site.app(records=None)
    task = app.gearman.task("mail.welcome")
    assert str(app.gearman.status(task.id)) == "queued" and str(app.gearman.status("f" * 32)) == "unknown"
    for ask in (app.gearman.record, app.gearman.result):
        with pytest.raises(RecordsUnavailable, match="records are off: set records='sqlite'"):
            ask(task)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_that_is_away_is_a_clear_error_and_queues_all_the_same(
    kind: str, embedded_site: Bench, tmp_path: Path
) -> None:
    records = "sqlite" if kind == "sqlite" else f"postgresql://someone:secret@127.0.0.1:{free_port()}/site"
    (tmp_path / "state").mkdir(mode=0o700)
    if kind == "sqlite":
        (tmp_path / "state" / "records.sqlite3").mkdir()
    app = embedded_site.app(records=records, state_dir=tmp_path / "state")
    task = app.gearman.task("mail.welcome")
    assert task.handle and str(app.gearman.status(task)) == "queued" and str(app.gearman.status(task.id)) == "queued"
    for ask in (app.gearman.record, app.gearman.result):
        with pytest.raises(RecordsUnavailable) as raised:
            ask(task)
        assert "secret" not in str(raised.value) and ("records.sqlite3" in str(raised.value) or kind == "postgres")
    with pytest.raises(RecordsUnavailable):
        app.gearman.status("f" * 32)


def test_asking_makes_no_file_where_nobody_has_written_records(embedded_site: Bench) -> None:
    app = embedded_site.app(records="sqlite")
    assert str(app.gearman.status(app.gearman.task("mail.welcome").id)) == "queued"
    assert not list(embedded_site.state_dir.glob("records*"))


def test_a_task_that_has_just_ended_is_not_unknown_until_its_record_is_there(
    embedded_site: Bench, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(settings, servers=embedded_site.server.address)
    put(store, make_row(OTHER))
    find_uniques = app.client.servers.find_uniques

    def find_then_write(beginning: str) -> list[str]:
        found = find_uniques(beginning)
        put(store, make_row(ID))
        return found

    monkeypatch.setattr(app.client.servers, "find_uniques", find_then_write)
    assert str(app.gearman.status(ID)) == "done"
    app.client.close()

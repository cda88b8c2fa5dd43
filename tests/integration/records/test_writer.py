"""The thread that writes records: it gathers, it waits for a database that is ill, and it is on no job's way."""

import contextlib
import logging
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gearwsgi.errors import RecordsUnavailable
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records import pending as pending_rows
from gearwsgi.state.records import postgres
from gearwsgi.state.records import writer as writing
from gearwsgi.state.records.pending import Change
from gearwsgi.state.records.store import Store
from gearwsgi.state.records.writer import Writer
from tests.postgres import PostgresServer
from tests.support import until

from .rows import NOW, make_row

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What was logged of the records."""
    caplog.set_level(logging.INFO, "gearwsgi")
    return lambda: [each.getMessage() for each in caplog.records if each.getMessage().startswith("records: ")]


@pytest.fixture
def writer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writer]:
    monkeypatch.setattr(writing, "INTERVAL", 0.02)
    monkeypatch.setattr(writing, "AGAIN", 0.1)
    monkeypatch.setattr("gearwsgi.state.records.sqlite.BUSY", 0.2)
    made = Writer(settings, "supervisor-1")
    yield made
    made.stop(30)


def put(writer: Writer, task_id: str, **changes: Any) -> None:
    writer.happened.put(lambda: Change(make_row(task_id, **changes)), 100)


def state_of(store: Store, task_id: str) -> str:
    try:
        return next((each.record.state for each in store.tasks(limit=10_000) if each.record.id == task_id), "")
    except RecordsUnavailable:
        return ""  # locked just now, by the writer


def test_what_happens_is_written_and_a_supervisor_is_heard_of(store: Store, writer: Writer) -> None:
    writer.start()
    put(writer, "a")
    until(lambda: state_of(store, "a") == "done")
    assert not store.fleet()
    writer.beat({"host": "here"})
    until(lambda: [each.about for each in store.fleet()] == [{"host": "here"}])
    writer.stop()
    assert not store.fleet(), "a supervisor that ends says so"


def test_what_waits_is_written_at_the_end(store: Store, writer: Writer, lines: Lines) -> None:
    for number in range(2000):
        put(writer, f"t{number}")
    writer.start()
    writer.stop(30)
    assert len(store.tasks(limit=10_000)) == 2000
    assert not lines()


def test_events_of_one_task_become_one_row(store: Store, writer: Writer) -> None:
    put(writer, "a", state="running", ended=None, place=5, started=NOW + 1)
    put(writer, "a", state="done", started=NOW + 1)
    put(writer, "a", state="running", ended=None, place=5, started=NOW + 7)
    writer.start()
    until(lambda: state_of(store, "a") == "done")
    record = store.find("a")
    assert record.started is not None and record.started.timestamp() == NOW + 1


def test_a_response_and_a_dead_letter_are_written_with_their_record(store: Store, writer: Writer) -> None:
    writer.happened.put(lambda: Change(make_row("a"), result=(1000.0, b"response")), 100)
    writer.start()
    until(lambda: store.result("a") == b"response")


def test_a_record_that_cant_be_made_costs_itself_alone(store: Store, writer: Writer, lines: Lines) -> None:
    writer.happened.put(lambda: Change(1 / 0), 1)  # type: ignore[arg-type]
    put(writer, "refused", attempts=1 << 70)
    put(writer, "good")
    writer.start()
    until(lambda: state_of(store, "good") == "done")
    until(lambda: writer.dropped == 2)
    assert any("ZeroDivisionError" in line for line in lines()) and any("id refused" in line for line in lines())


def test_what_the_buffer_cant_hold_is_dropped_counted_and_said_once(
    store: Store, writer: Writer, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_rows, "MAX_ROWS", 10)
    for number in range(50):
        put(writer, f"t{number}")
    writer.start()
    until(lambda: state_of(store, "t49"))
    assert sorted(each.record.id for each in store.tasks()) == sorted(f"t{number}" for number in range(40, 50))
    assert writer.dropped == 40
    for number in range(50):
        put(writer, f"u{number}")
    until(lambda: state_of(store, "u49"))
    assert sum("from now on" in line for line in lines()) == 1


def test_events_that_a_stuck_database_leaves_unread_are_bounded_too(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_rows, "MAX_EVENTS", 10)
    for number in range(50):
        put(writer, f"t{number}")
    assert writer.dropped == 40


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Another client has the tables, and does not let go."""
    if settings.records == "sqlite":
        with contextlib.closing(sqlite3.connect(settings.state_dir / "records.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
    else:
        with psycopg.connect(settings.records) as client:
            client.execute("SET lock_timeout = '60s'")
            client.execute("LOCK TABLE gearwsgi_task, gearwsgi_supervisor IN ACCESS EXCLUSIVE MODE")
            yield


def test_a_locked_database_is_said_once_and_what_waited_is_written_then(
    store: Store, writer: Writer, settings: Settings, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgres._LIMITS, "lock_timeout", "100ms")
    store.tasks()
    with locked(settings):
        writer.start()
        writer.beat({})
        put(writer, "a")
        until(lambda: len(lines()) == 1, "one line")
        put(writer, "b")
    until(lambda: state_of(store, "a") == state_of(store, "b") == "done")
    until(lambda: len(lines()) == 2)
    assert "jobs go on" in lines()[0] and "written again, 0 were dropped" in lines()[1]


@contextlib.contextmanager
def read_only(settings: Settings) -> Iterator[None]:
    """The database can be read, and not written."""
    if settings.records == "sqlite":
        path = settings.state_dir / "records.sqlite3"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # A file of a later format than SQLite can write: it is read-only, whoever the user is.
        with path.open("r+b") as file:
            file.seek(18)
            file.write(b"\x03")
        yield
        with path.open("r+b") as file:
            file.seek(18)
            file.write(b"\x02")
    else:
        name = settings.records.rpartition("/")[2]
        with psycopg.connect(settings.records, autocommit=True) as client:
            client.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            yield
            client.execute("SET transaction_read_only = off")
            client.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")


def test_a_database_that_cant_be_written_is_said_once_and_written_when_it_can(
    store: Store, writer: Writer, settings: Settings, lines: Lines
) -> None:
    store.tasks()
    store.database.close()
    with read_only(settings):
        writer.start()
        put(writer, "a")
        until(lambda: len(lines()) == 1, "one line")
        assert "read" in lines()[0].lower()
    until(lambda: state_of(store, "a") == "done")
    until(lambda: len(lines()) == 2)


def test_nobody_waits_for_a_commit_of_another_client(store: Store, writer: Writer, settings: Settings) -> None:
    store.tasks()
    writer.start()
    for number in range(1, 6):
        with locked(settings):
            for each in range(4):
                put(writer, f"t{number}-{each}")  # who waited for the tables would wait for ever
        until(lambda many=4 * number: len(store_tasks(store)) == many)  # type: ignore[misc]


def store_tasks(store: Store) -> list[Any]:

    try:
        return store.tasks()
    except RecordsUnavailable:
        return []


# -- SQLite alone ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_settings(tmp_path: Path) -> Settings:
    return read_settings({"state_dir": tmp_path / "state", "records": "sqlite"}, {})


def run_until_written(settings: Settings, task_id: str) -> None:
    made = Writer(settings, "s")
    made.start()
    put(made, task_id)
    path = settings.state_dir / "records.sqlite3"

    def written() -> bool:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as file:
            return bool(file.execute("SELECT 1 FROM gearwsgi_task WHERE id = ?", (task_id,)).fetchall())
        return False

    try:
        until(written)
    finally:
        made.stop(30)


@pytest.mark.parametrize("content", [b"not a database", b"\x00" * 5000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_set_aside_and_named(
    sqlite_settings: Settings, lines: Lines, content: bytes
) -> None:
    sqlite_settings.state_dir.mkdir(mode=0o700)
    (sqlite_settings.state_dir / "records.sqlite3").write_bytes(content)
    run_until_written(sqlite_settings, "a")
    (aside,) = sqlite_settings.state_dir.glob("records.sqlite3.broken-*")
    assert aside.read_bytes() == content
    assert any(aside.name in line for line in lines())


def test_a_file_that_breaks_while_it_is_used_is_set_aside(sqlite_settings: Settings, lines: Lines) -> None:
    run_until_written(sqlite_settings, "a")
    path = sqlite_settings.state_dir / "records.sqlite3"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:100] + b"\xa5" * (size - 100))
    run_until_written(sqlite_settings, "b")
    assert list(sqlite_settings.state_dir.glob("records.sqlite3.broken-*"))


def test_an_empty_file_becomes_one(sqlite_settings: Settings, lines: Lines) -> None:
    sqlite_settings.state_dir.mkdir(mode=0o700)
    (sqlite_settings.state_dir / "records.sqlite3").touch()
    run_until_written(sqlite_settings, "a")
    assert not lines()


def test_another_applications_file_is_left_alone(sqlite_settings: Settings, lines: Lines) -> None:
    sqlite_settings.state_dir.mkdir(mode=0o700)
    path = sqlite_settings.state_dir / "records.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
        theirs.commit()
    content = path.read_bytes()
    made = Writer(sqlite_settings, "s")
    made.start()
    put(made, "a")
    until(lambda: any("another application" in line for line in lines()))
    made.stop(30)
    assert path.read_bytes() == content
    assert "could not be written" in lines()[-1]


def test_a_file_that_is_removed_while_it_is_used_is_made_again(sqlite_settings: Settings) -> None:
    made = Writer(sqlite_settings, "s")
    made.start()
    path = sqlite_settings.state_dir / "records.sqlite3"
    try:
        for number in range(3):
            put(made, f"t{number}")
            until(path.exists)
            # The file last: its log would else be removed of one that was made again already.
            for each in sorted(sqlite_settings.state_dir.glob("records.sqlite3*"), reverse=True):
                each.unlink(missing_ok=True)
        put(made, "last")

        def written() -> bool:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as file:
                return bool(file.execute("SELECT 1 FROM gearwsgi_task WHERE id = 'last'").fetchall())
            return False

        until(written)
    finally:
        made.stop(30)


# -- PostgreSQL alone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records", ["postgres"], indirect=True)
def test_a_server_that_dies_amid_a_transaction_and_comes_back_gets_what_waited(
    store: Store, writer: Writer, settings: Settings, lines: Lines, postgres_server: PostgresServer
) -> None:
    store.tasks()
    writer.start()
    writer.beat({})
    until(store.fleet)
    with contextlib.suppress(psycopg.OperationalError), locked(settings):
        put(writer, "a")
        until(lambda: waiting(postgres_server), "the writer waits amid its transaction")
        postgres_server.stop(signal.SIGQUIT)
    until(lambda: len(lines()) == 1)
    put(writer, "b")
    postgres_server.start()
    until(lambda: {each.record.id for each in store_tasks(store)} == {"a", "b"})
    until(lambda: len(lines()) == 2)


def waiting(server: PostgresServer) -> bool:
    return bool(server.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


@pytest.mark.parametrize("records", ["postgres"], indirect=True)
def test_a_table_of_the_same_name_that_is_not_ours_is_left_alone(
    writer: Writer, settings: Settings, lines: Lines
) -> None:
    with psycopg.connect(settings.records, autocommit=True) as client:
        client.execute("CREATE TABLE gearwsgi_task (theirs TEXT)")
        writer.start()
        put(writer, "a")
        until(lambda: len(lines()) == 1)
        assert "already exists" in lines()[0]
        client.execute("DROP TABLE gearwsgi_task")
        until(lambda: len(lines()) == 2, "it is mended")

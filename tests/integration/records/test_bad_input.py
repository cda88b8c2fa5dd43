"""What a database, a driver and a task's own names do to nobody."""

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from gearwsgi.errors import RecordsUnavailable
from gearwsgi.settings import Settings, read_settings
from gearwsgi.state.records import writer as writing
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.pending import Change
from gearwsgi.state.records.store import Store
from gearwsgi.state.records.writer import Writer
from tests.support import until

from .conftest import Answer
from .rows import make_row, put

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "[red]x[/red] [/x]",
    "'; DROP TABLE gearwsgi_task; --",
    "<script>alert(1)</script>",
)


@pytest.mark.usefixtures("environment")
def test_hostile_names_and_reasons_are_stored_as_they_are_and_never_interpreted(
    store: Store, run: Callable[..., Answer]
) -> None:
    for number, text in enumerate(HOSTILE):
        reason = f"{text}{number}"
        put(store, make_row(f"{number}{text}", service=text, queue=text, reason=reason, state="dead", path=f"/{text}"))
    for number, text in enumerate(HOSTILE):
        record = store.find(f"{number}{text}")
        assert (record.service, record.queue, record.path, record.reason) == (text, text, f"/{text}", f"{text}{number}")
        shown = run("task", f"{number}{text}")
        assert shown.code == 0 and not {"\x1b", "\x07"} & set(shown.out + shown.err)
        assert "DROP" not in text or "DROP TABLE" in shown.out
    listed = run("tasks")
    assert listed.code == 0 and "\x1b" not in listed.out
    assert len(store.tasks()) == len(HOSTILE)


def test_without_its_driver_the_records_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gearwsgi.state.records.sqlite", None)
    with pytest.raises(RecordsUnavailable, match="built without SQLite; records='' is off"):
        open_database(read_settings({"state_dir": tmp_path}, {}))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1,600 KB; empty records take a third of it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k,mode=700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs root, and a kernel that lets it mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no room there; the file that has it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 1024):
            pass
    return filler


def states(settings: Settings) -> dict[str, str]:
    database = open_database(settings)
    assert database is not None
    try:
        return {each.record.id: each.record.state for each in Store(database).tasks(limit=10_000)}
    except RecordsUnavailable:
        return {}
    finally:
        database.close()


def test_on_a_full_disk_records_wait_and_are_written_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "gearwsgi")
    monkeypatch.setattr(writing, "INTERVAL", 0.02)
    monkeypatch.setattr(writing, "AGAIN", 0.1)
    with small_disk(tmp_path / "state"):
        settings = read_settings({"state_dir": tmp_path / "state"}, {})
        writer = Writer(settings, "s")
        writer.start()
        writer.happened.put(lambda: Change(make_row("before")), 100)
        until(lambda: "before" in states(settings))
        filler = fill(settings.state_dir)
        for number in range(300):
            writer.happened.put(lambda number=number: Change(make_row(f"t{number}", reason="r" * 200)), 100)  # type: ignore[misc]
        until(lambda: "full" in caplog.text, "the disk is full")
        filler.unlink()
        until(lambda: len(states(settings)) == 301, "all are written")
        writer.stop(30)
        assert caplog.text.count("jobs go on, and records wait") == 1 and "0 were dropped until now" in caplog.text


def test_check_says_whether_the_records_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(
        "from gearwsgi import GearmanMiddleware\napp = GearmanMiddleware(lambda e, s: [], state_dir='state')\n"
    )
    state = tmp_path / "state"
    state.mkdir(mode=0o700)

    def found() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gearwsgi", "check", "application:app"],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
        )  # fmt: skip
        return next(line for line in done.stdout.splitlines() if " records " in line)

    assert "begin with the first worker" in found()
    with contextlib.closing(sqlite3.connect(state / "records.sqlite3")) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
    assert "problem" in found() and "another application's file" in found()


@pytest.mark.parametrize("records", ["postgres"], indirect=True)
def test_commits_that_take_a_second_each_are_waited_for_and_nothing_is_lost(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    store.tasks()
    with psycopg.connect(settings.records, autocommit=True) as client:
        client.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'"
        )
        client.execute(
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON gearwsgi_task DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    writer = Writer(settings, "s")
    writer.start()
    for number in range(4):
        writer.happened.put(lambda number=number: Change(make_row(f"t{number}")), 100)  # type: ignore[misc]
    until(lambda: len(store.tasks()) == 4)
    writer.stop(30)
    assert writer.dropped == 0 and not caplog.text

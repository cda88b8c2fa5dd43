"""The schedule with real supervisors and job servers. Which tick is queued when: `tests/unit/worker/test_keeper.py`."""

import contextlib
import json
import shutil
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import UnknownTask
from gearwsgi.settings import read_settings
from gearwsgi.state.records.model import Record
from gearwsgi.state.records.opening import writing
from gearwsgi.submit.ticks import Plan, plan_all
from tests.clock import Clock
from tests.conftest import KINDS, require
from tests.support import Bench, Worker, bench, free_port, until

APP = """
import json, os, time
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    job = environ["gearwsgi.job"]
    with open(os.environ["RECORD"], "a") as record:
        record.write(" ".join([environ["PATH_INFO"], str(job.attempt), environ["HTTP_X_GEARMAN_SCHEDULED"],
                               job.scheduled_at.isoformat(), environ["HTTP_HOST"], job.handle]) + "\\n")
    while environ["PATH_INFO"] == "/slow" and not os.path.exists("go"):
        time.sleep(0.01)
    is_sick = environ["PATH_INFO"] == "/sick" and not os.path.exists("well")
    start_response("400 Bad Request" if is_sick else "200 OK", [])
    return [b"done"]

application = GearmanMiddleware(
    app, schedule=json.load(open("schedule.json")), base_url="https://shop.example.com",
    records=os.environ.get("RECORDS", "sqlite")
)
"""
METRIC = "gearwsgi_schedule_last_success_timestamp_seconds"
# Rare ones, so that none of them comes while a test looks.
NIGHTLY: dict[str, Any] = {"service": "POST /nightly", "cron": "0 3 1 1 *", "timezone": "Europe/Berlin"}
SLOW: dict[str, Any] = {"service": "/slow", "cron": "0 2 1 1 *", "overlap": False}


class Stand:
    """A job server, and supervisors of the application above; `number` is whose state directory."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.server = bench.server
        (bench.folder / "clocked.py").write_text(APP)

    def write(self, **schedule: Any) -> None:
        (self.bench.folder / "schedule.json").write_text(json.dumps(schedule))

    def worker(self, number: int = 1, *arguments: str, **env: str) -> Worker:
        env = {"GEARWSGI_STATE_DIR": str(self.state(number)), **env}
        return self.bench.worker("--workers", "2", *arguments, app="clocked:application", env=env)

    def state(self, number: int) -> Path:
        return self.bench.folder / f"state-{number}"

    def app(self, **schedule: Any) -> tuple[GearmanMiddleware, dict[str, Plan]]:
        app = self.bench.app(schedule=schedule, base_url="https://shop.example.com", records="sqlite")
        return app, plan_all(app.settings)

    def put(self, tick: datetime, **schedule: Any) -> str:
        """Queue a tick that is due, of the one entry of this schedule; its task's id."""
        app, plans = self.app(**schedule)
        (plan,) = plans.values()
        submission = plan.submission(plan.cron.local(tick.timestamp()), app.settings, time.time(), is_due=True)
        app.client.submit((submission,))
        return submission.id

    def command(self, *arguments: str, ok: bool = True) -> Any:
        self.bench.state_dir = self.state(1)
        return self.bench.run("schedule", *arguments, "--app", "clocked:application", ok=ok)

    def record(self, task_id: str) -> Record | None:
        settings = read_settings({"state_dir": self.state(1), "records": "sqlite"}, {})
        with writing(settings) as store, contextlib.suppress(UnknownTask):
            return store.find(task_id)
        return None

    def lines(self) -> list[str]:
        """What the handler has recorded, without the jobs' handles."""
        return [line.rpartition(" ")[0] for line in self.bench.lines()]

    def ticks(self) -> dict[int, list[str]]:
        """The ticks that have run, and the handle of each run's job."""
        found: dict[int, list[str]] = {}
        for line in self.bench.lines():
            tick = datetime.fromisoformat(line.split()[3])
            found.setdefault(int(tick.timestamp()), []).append(line.split()[-1])
        return found

    def waits(self, tick: int) -> bool:
        """Whether a tick is queued, or runs."""
        return any(each[24:32] == f"{tick:08x}" for each in self.server.admin("show unique jobs"))

    def pending(self) -> int:
        return self.server.queued()


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    require(request.param)
    with bench(request.param) as made:
        yield Stand(made)


def day(number: int) -> datetime:
    """A tick that is past: the later, the lower its number."""
    return datetime(2027 - number, 1, 1, 2, tzinfo=UTC)


def test_two_supervisors_queue_one_job_an_entry_and_reload_what_changes(stand: Stand) -> None:
    yearly = {"service": "/yearly", "cron": "@yearly"}
    stand.write(nightly=NIGHTLY, yearly=yearly)
    first, second = stand.worker(1), stand.worker(2)
    until(lambda: stand.pending() == 2, "the next tick of each entry")
    uniques = set(stand.server.admin("show unique jobs"))
    # Removed, changed and added; then what was pending of the first two is skipped when it comes.
    stand.write(nightly={**NIGHTLY, "data": {"new": True}}, monthly={"service": "/monthly", "cron": "@monthly"})
    for each in (first, second):
        each.signal(signal.SIGHUP)
        each.wait_for("worker ready", 2)
    until(lambda: stand.pending() == 4, "those that are changed and new, beside what waits of before")
    assert uniques < set(stand.server.admin("show unique jobs"))
    stand.put(day(1), nightly=NIGHTLY)
    stand.put(day(1), yearly=yearly)
    stand.put(day(1), nightly={**NIGHTLY, "data": {"new": True}})

    def said(text: str) -> bool:
        return text in first.log + second.log

    until(lambda: said("skipped the tick 2026-01-01T02:00:00+00:00 of yearly: its entry is gone"))
    until(lambda: said("skipped the tick 2026-01-01T03:00:00+01:00 of nightly: its entry was changed"))
    until(lambda: len(stand.bench.lines()) == 1)
    tick = "2026-01-01T03:00:00+01:00"
    assert stand.lines() == [f"/nightly 1 {tick} {tick} shop.example.com"]
    until(lambda: stand.pending() == 4, "what was put is answered")
    first.kill()
    second.kill()
    assert stand.pending() == 4
    if stand.server.kind == "embedded":
        stand.server.restart()
        assert stand.pending() == 4, "kept over a restart"
    stand.worker(2)
    until(lambda: "worker ready" in stand.bench.workers[-1].log)
    assert stand.pending() == 4, "a supervisor that comes back queues none of them twice"


def test_list_run_pause_and_resume(embedded_site: Bench) -> None:
    stand = Stand(embedded_site)
    stand.write(nightly=NIGHTLY)
    port = free_port()
    worker = stand.worker(1, "--metrics", str(port))
    (row,) = json.loads(stand.command("list", "--json").stdout)
    upcoming = datetime.fromisoformat(row["next"])
    assert (row["name"], row["cron"], row["timezone"]) == ("nightly", "0 3 1 1 *", "Europe/Berlin")
    assert upcoming.hour == 3 and upcoming.utcoffset() and row["last"] is None and row["paused"] is False
    assert stand.command("pause", "nightly").stdout == "nightly is paused\n"
    worker.wait_for("schedule: nightly is paused")
    tick = stand.put(day(1), nightly=NIGHTLY)
    until(lambda: "of nightly: its entry is paused" in worker.log)
    assert not stand.bench.lines()

    def last() -> Any:
        (row,) = json.loads(stand.command("list", "--json").stdout)
        return row

    assert stand.command("run", "nightly").stdout.startswith("H:")
    worker.wait_for("result 200 OK")  # also where it is paused
    row = until(lambda: (found := last())["last_state"] == "done" and found)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        (line,) = [each for each in answer.read().decode().splitlines() if each.startswith(METRIC + "{")]
    assert 'entry="nightly"' in line and 0 <= time.time() - float(line.split()[-1]) < 60
    assert row["paused"] is True and datetime.fromisoformat(row["last"]).timestamp() > time.time() - 60
    table = stand.command("list").stdout
    assert "paused" in table and "done" in table and table.count("T03:00") == 3
    assert stand.command("resume", "nightly").stdout == "nightly is resumed\n"
    record = until(lambda: stand.record(tick))
    assert record.state == "cancelled" and "its entry is paused" in str(record.reason)
    worker.wait_for("schedule: nightly is resumed")
    stand.put(day(2), nightly=NIGHTLY)
    until(lambda: len(stand.bench.lines()) == 2, "ticks run again")
    wrong = stand.command("run", "nightlly", ok=False)
    assert wrong.returncode == 1 and "did you mean 'nightly'" in wrong.stderr


def test_without_overlap_a_tick_is_skipped_while_an_earlier_one_runs(stand: Stand) -> None:
    stand.write(slow=SLOW)
    worker = stand.worker(1)
    stand.put(day(3), slow=SLOW)
    until(lambda: len(stand.bench.lines()) == 1)
    second = stand.put(day(2), slow=SLOW)
    until(lambda: "of slow: an earlier one has not ended" in worker.log)
    (stand.bench.folder / "go").touch()
    until(lambda: "result 200 OK" in worker.log)
    until(
        lambda: not [each for each in stand.server.admin("show unique jobs") if each[24:32] < f"{int(time.time()):08x}"]
    )
    stand.put(day(1), slow=SLOW)
    until(lambda: len(stand.bench.lines()) == 2)
    record = until(lambda: stand.record(second))
    assert record.state == "cancelled" and "an earlier one has not ended" in str(record.reason)


def test_the_dead_letter_of_a_tick_is_retried_also_where_its_entry_is_gone(stand: Stand) -> None:
    sick = {"service": "/sick", "cron": "0 2 1 1 *", "overlap": False}
    stand.write(sick=sick)
    worker = stand.worker(1)
    stand.put(day(1), sick=sick)
    worker.wait_for("dead 400 Bad Request")
    stand.write()
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    (stand.bench.folder / "well").touch()
    stand.bench.state_dir = stand.state(1)
    stand.bench.run("dead", "retry", "--all", "--yes", "--app", "clocked:application")
    worker.wait_for("result 200 OK")
    tick = "2026-01-01T02:00:00+00:00"
    assert stand.lines() == [f"/sick 1 {tick} {tick} shop.example.com"] * 2


def test_what_was_missed_runs_once_by_records(stand: Stand) -> None:
    entry = {"service": "/sweep", "cron": "* * * * *", "missed": "once"}
    stand.write(sweep=entry)
    worker = stand.worker(1)
    until(lambda: stand.pending() == 1)
    worker.stop()
    stand.server.stop()
    shutil.rmtree(stand.server.folder, ignore_errors=True)  # nothing of it is queued any more
    with contextlib.closing(sqlite3.connect(stand.state(1) / "records.sqlite3")) as database, database:
        changed = database.execute("UPDATE gearwsgi_tick SET at = at - 6000").rowcount
    assert changed == 1, "since when it is known"
    stand.server.start()
    began = time.time()
    worker = stand.worker(1)
    until(lambda: len(stand.bench.lines()) >= 1, "one for all that were missed")
    tick = datetime.fromisoformat(stand.bench.lines()[0].split()[3]).timestamp()
    assert began - 61 <= tick <= time.time()
    assert "sweep was missed, and is queued for" in worker.log
    worker.stop()
    before = len(stand.bench.lines())
    again = stand.worker(1)
    until(lambda: stand.pending() == 1)
    assert "was missed" not in again.log and before <= 2


def test_a_second_job_of_a_tick_does_not_run_and_one_that_is_handed_out_again_does(stand: Stand) -> None:
    stand.write(slow=SLOW | {"overlap": True})
    schedule = {"slow": SLOW | {"overlap": True}}
    first = stand.worker(1)
    task = stand.put(day(1), **schedule)
    until(lambda: len(stand.bench.lines()) == 1)
    first.kill()
    second, third = stand.worker(1), stand.worker(1)
    until(lambda: len(stand.bench.lines()) == 2, "the job was not answered, and is handed out again")
    (stand.bench.folder / "go").touch()
    until(lambda: "result 200 OK" in second.log + third.log)
    (jobs,) = stand.ticks().values()
    assert len(set(jobs)) == 1
    for worker in (second, third):  # whoever takes the second job, what it remembers itself or what the records do
        worker.signal(signal.SIGHUP)
        worker.wait_for("worker ready", 2)
    for _ in range(4):
        assert stand.put(day(1), **schedule) == task
        until(lambda: stand.pending() == 1)
    said = f"of slow: another job of it came before, id {task}"
    assert (second.log + third.log).count(said) == 4 and len(stand.bench.lines()) == 2
    record = until(lambda: stand.record(task))
    assert record.state == "done"
    stand.write(slow=SLOW | {"overlap": True, "data": 1})
    for worker in (second, third):
        worker.signal(signal.SIGHUP)
        worker.wait_for("worker ready", 3)
    other = stand.put(day(1), slow=SLOW | {"overlap": True, "data": 1})
    until(lambda: (second.log + third.log).count(said) == 5, "nor does that of another version of the entry")
    record = until(lambda: stand.record(other))
    assert record.state == "cancelled"


@pytest.mark.parametrize("records", ["", "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"])
def test_ticks_run_where_records_are_off_or_away(embedded_site: Bench, records: str) -> None:
    stand = Stand(embedded_site)
    stand.write(nightly=NIGHTLY)
    worker = stand.worker(1, RECORDS=records)
    for number in (1, 2):
        stand.put(day(number), nightly=NIGHTLY)
        until(lambda number=number: len(stand.bench.lines()) == number)
    stand.put(day(1), nightly=NIGHTLY)
    worker.wait_for("of nightly: another job of it came before")
    assert worker.log.count("the records are away: ticks run") == (1 if records else 0)
    assert len(stand.bench.lines()) == 2


def test_a_tick_of_an_entry_that_another_worker_has_waits_for_it(embedded_site: Bench) -> None:
    stand = Stand(embedded_site)
    stand.write()  # it has no entry at all
    old = stand.worker(1)
    stand.put(day(2), nightly=NIGHTLY)
    old.wait_for("the tick 2025-01-01T03:00:00+01:00 of nightly: its entry is gone, and no other worker is known to")
    stand.write(nightly=NIGHTLY)
    new = stand.worker(1, "--queues", "other")  # it has the new code; the old one takes what is queued
    told = stand.state(1) / "run" / f"{new.pid}.json"
    until(lambda: told.exists() and "nightly" in told.read_text(), "it says which entries it has, some moments later")
    stand.put(day(1), nightly=NIGHTLY)
    old.wait_for("handed back: the tick 2026-01-01T03:00:00+01:00 of nightly: another worker has its entry", 2)
    assert not stand.bench.lines()
    old.signal(signal.SIGHUP)
    until(lambda: len(stand.bench.lines()) == 1, "now it is the same code")


def test_real_ticks_run_once_with_two_supervisors_one_of_which_is_killed_at_the_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # gearmand goes by no clock but the machine's: `tests/minutes.py` has it.
    minute = int(time.time() // 60) * 60
    clock = Clock(tmp_path / "clock", minute + 20 - time.time())
    for name, value in clock.env.items():
        monkeypatch.setenv(name, value)
    with bench("embedded") as made:
        stand = Stand(made)
        stand.write(every={"service": "/every", "cron": "* * * * *"})
        first = stand.worker(1)
        stand.worker(2)
        for tick in (minute + 60, minute + 120, minute + 180):
            until(lambda tick=tick: stand.waits(tick), "a tick is queued ahead")
            clock.move(tick - 1 - time.time())
            until(lambda tick=tick: tick in stand.ticks(), "a real tick")
            if tick == minute + 120:
                first.kill()
        # Who is killed amid a job has not answered it: it is handed out again.
        assert {tick: len(set(jobs)) for tick, jobs in stand.ticks().items()} == {minute + 60 * n: 1 for n in (1, 2, 3)}

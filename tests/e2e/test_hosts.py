"""Past one machine: a gearmand, a PostgreSQL, two workers' hosts and a web host, and links that are cut and mended."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware, Task
from gearwsgi.errors import GearwsgiError, UnknownTask
from tests import hosts, postgres
from tests.conftest import require
from tests.support import APPS, GEARMAND, until

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.xdist_group("hosts")]


@dataclass
class Site:
    """Five hosts, and what runs on them."""

    folder: Path
    db: hosts.Host
    web: hosts.Host
    workers: list[hosts.Host]
    env: dict[str, str]
    app: GearmanMiddleware

    def of(self, host: hosts.Host) -> dict[str, str]:
        """The environment on a host, which has a state directory of its own."""
        return {**self.env, "GEARWSGI_STATE_DIR": str(self.folder / host.name)}

    def run(self, *arguments: str, ok: bool = True) -> str:
        """A command, on the web host."""
        return self.web.run(*arguments, env=self.of(self.web), folder=self.folder, ok=ok)

    def record(self, task: Task) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("task", task.id, "--json"))
        return found

    def until(self, task: Task, state: str) -> None:
        """Wait until a task is in this state."""

        def is_so() -> bool:
            try:
                return self.app.gearman.record(task).state == state
            except UnknownTask:
                return False  # its supervisor could not write that yet

        until(is_so, f"{task!r} is {state}")

    def lines(self) -> list[str]:
        return (self.folder / "record.txt").read_text().splitlines()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    hosts.require()
    require("gearmand")
    postgres.require()
    assert GEARMAND is not None
    folder = Path(tempfile.mkdtemp(prefix="gearwsgi-hosts-"))
    shutil.copy(APPS / "kitchen.py", folder / "kitchen.py")
    (folder / "record.txt").touch()
    with hosts.network() as network:
        queue, db, web, *workers = [network.host(name) for name in ("queue", "db", "web", "one", "two")]
        server = postgres.PostgresServer(db.address, db.command)
        queue.start(GEARMAND, "-L", queue.address, "-p", "4730", "-l", "stderr", log=folder / "gearmand.log")
        env = {
            "GEARMAN_SERVERS": f"{queue.address}:4730", "GEARWSGI_RECORDS": server.make(),
            "RECORD": str(folder / "record.txt"), "SETTINGS": json.dumps({"backoff_min": 0.1, "backoff_max": 0.1}),
        }  # fmt: skip
        app = GearmanMiddleware(
            lambda environ, start: [], servers=env["GEARMAN_SERVERS"], state_dir=folder / "test",
            records=env["GEARWSGI_RECORDS"], on_unavailable="raise",
        )  # fmt: skip
        made = Site(folder, db, web, workers, env, app)
        for host in workers:
            command = [sys.executable, "-m", "gearwsgi", "worker", "kitchen:application", "--workers", "1"]
            host.start(
                *command, "--queues", "job,mail", log=folder / f"{host.name}.log", env=made.of(host), folder=folder
            )
        until(lambda: len(json.loads(made.run("status", "--json"))["supervisors"]) == 2)
        try:
            yield made
        finally:
            app.client.close()
            server.close()
    shutil.rmtree(folder, ignore_errors=True)


def both_busy(site: Site, go: Path) -> dict[str, Task]:
    """Two tasks that run until a file is there, by the names of the workers' hosts on which they do."""
    tasks = [site.app.gearman.task("/until", {"file": str(go)}) for _ in range(2)]

    def host(task: Task) -> str | None:
        try:
            return site.app.gearman.record(task).host  # the job server alone knows that it runs, and not where
        except UnknownTask:
            return None

    return {until(lambda task=task: host(task), f"the host of {task!r}"): task for task in tasks}  # type: ignore[misc]


def test_the_fleet_is_seen_steered_and_asked_from_any_host(site: Site) -> None:
    go = site.folder / "go1"
    tasks = both_busy(site, go)
    assert set(tasks) == {"one", "two"}
    assert {site.record(task)["state"] for task in tasks.values()} == {"running"}
    known = json.loads(site.run("status", "--json"))
    assert {each["host"]: each["workers"][0]["service"] for each in known["supervisors"]} == {
        "one": "/until",
        "two": "/until",
    }
    assert site.run("pause", "mail") == "mail is paused\n"
    for host in site.workers:
        until(lambda: "queue mail is paused by" in (site.folder / f"{host.name}.log").read_text())  # noqa: B023
    stays = site.app.gearman.task("/good", {"n": "mail"}, queue="mail")
    go.touch()
    for task in tasks.values():
        site.until(task, "done")
    result = site.app.gearman.task("/good", {"n": 1}, keep_result=600)
    site.until(result, "done")
    assert json.loads(site.run("result", result.id[:12])) == {"n": 1}
    assert site.record(stays)["state"] == "queued" and "good mail 1" not in site.lines()
    assert "paused: mail" in site.run("status")
    assert site.run("resume", "mail") == "mail is resumed\n"
    site.until(stays, "done")


def test_a_letter_is_retried_from_another_host_than_where_its_task_died(site: Site) -> None:
    task = site.app.gearman.task("/boom", max_attempts=1)
    site.until(task, "dead")
    died = site.record(task)
    file = site.folder / died["host"] / "dead" / f"{task.id}.http"
    assert file.exists() and task.id in site.run("dead", "list")
    site.run("dead", "discard", task.id[:10])
    until(lambda: not file.exists())
    assert site.record(task)["state"] == "discarded"


def test_tasks_run_and_pauses_hold_while_the_database_is_cut_off(site: Site) -> None:
    logs = [site.folder / f"{host.name}.log" for host in site.workers]
    before = [log.read_text().count("queue mail is paused by") for log in logs]
    site.run("pause", "mail")
    for log, count in zip(logs, before, strict=True):
        until(lambda: log.read_text().count("queue mail is paused by") == count + 1)  # noqa: B023
    site.db.cut()
    try:
        good = site.app.gearman.task("/good", {"n": "cut"})
        mail = site.app.gearman.task("/good", {"n": "cut mail"}, queue="mail")
        until(lambda: "good cut 1" in site.lines())
        assert any(text.startswith("records: ") for text in json.loads(site.run("status", "--json"))["warnings"])
        assert site.run("task", good.id, ok=False).startswith("gearwsgi: postgresql://")
    finally:
        site.db.mend()
    site.until(good, "done")
    assert "good cut mail 1" not in site.lines()
    site.run("resume", "mail")
    site.until(mail, "done")


def test_a_link_that_is_cut_for_a_moment_costs_no_job_its_run(site: Site) -> None:
    go = site.folder / "go2"
    tasks = both_busy(site, go)
    one = site.workers[0]
    one.cut()
    try:
        go.touch()
        site.until(tasks["two"], "done")
    finally:
        one.mend()
    site.until(tasks["one"], "done")
    assert site.record(tasks["one"])["attempts"] == 1


def test_a_cancel_that_a_host_could_not_hear_of_is_obeyed_when_it_can(site: Site) -> None:
    tasks = both_busy(site, site.folder / "never")
    one = site.workers[0]
    one.cut()
    try:
        assert site.run("cancel", *[task.id for task in tasks.values()]).count("runs, and is ended") == 2
        site.until(tasks["two"], "cancelled")
        assert site.record(tasks["one"])["state"] == "running"
    finally:
        one.mend()
    site.until(tasks["one"], "cancelled")
    assert site.record(tasks["one"])["history"][0]["outcome"] == "cancelled"
    with pytest.raises(GearwsgiError, match="is cancelled"):
        site.app.gearman.result(tasks["one"])

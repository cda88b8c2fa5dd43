"""Django's own Tasks (before 6.0: the package django-tasks) on both job servers, in a project served and worked."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from gearwsgi.state.dead import DeadLetters
from tests.conftest import KINDS, require
from tests.e2e.frameworks.conftest import APPS
from tests.serving import Site, WebServer
from tests.support import bench, until

APP = "tasksite.wsgi:application"
PATH = "/-/django-tasks"
pytestmark = pytest.mark.xdist_group("django tasks")


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    require(request.param)
    with bench(request.param, durable=True) as made:
        shutil.copytree(APPS, made.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        with closing(sqlite3.connect(made.folder / "tasks.sqlite3")) as database:
            database.execute("CREATE TABLE shop (number)")
        site = Site(made, APP, {"DJANGO_SETTINGS_MODULE": "tasksite.settings"})
        try:
            yield site
        finally:
            site.close()


def ask(site: Site, path: str, **query: Any) -> Any:
    answer = site.web.get(f"{path}?{urlencode(query)}", Host="acme.example.org")
    assert answer.status == 200, (answer.status, answer.text[-2000:], site.web.log[-3000:])
    return answer.json


def enqueue(site: Site, task: str, *args: Any, using: Any = None, **kwargs: Any) -> Any:
    query = {"args": json.dumps(args), "kwargs": json.dumps(kwargs), "using": json.dumps(using or {})}
    return ask(site, "/enqueue", task=task, **query)


def result(site: Site, task_id: str) -> Any:
    return ask(site, "/result", id=task_id)


def finished(site: Site, task_id: str) -> Any:
    def found() -> Any:
        seen = result(site, task_id)
        return seen if seen["status"] in ("SUCCESSFUL", "FAILED") else None

    return until(found, f"the end of {task_id}\n{site.worker.log[-2000:]}")


def notes(site: Site, **wanted: Any) -> list[Any]:
    found = [json.loads(line) for line in site.bench.lines()]
    return [note for note in found if wanted.items() <= note.items()]


def rows(site: Site) -> int:
    with closing(sqlite3.connect(site.bench.folder / "tasks.sqlite3")) as database:
        (count,) = database.execute("SELECT count(*) FROM shop").fetchone()
    return int(count)


def test_the_system_checks_find_nothing_and_say_what_is_missing(site: Site) -> None:
    def check(**env: str) -> str:
        command = [sys.executable, "manage.py", "check"]
        done = subprocess.run(
            command, cwd=site.bench.folder, env={**site.env, **env, "PATH": ""}, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    assert (
        "identified 1 issue" in check() and "default, mail where `--queues` does not say, and not unserved" in check()
    )
    said = check(SETTINGS=json.dumps({"records": "", "queues": ["other"], "servers": "10.0.0.7:4730"}))
    for known in ("W003", "records are off", "W004", "and not default, mail", "W006", "secret_keys"):
        assert known in said, said


def test_what_a_task_returns_and_raises_is_known_with_attempts_and_workers(site: Site) -> None:
    site.forget()
    queued = enqueue(site, "add", 1, b=2)
    assert (queued["status"], queued["args"], queued["kwargs"]) == ("READY", [1], {"b": 2})
    assert queued["times"] == [True, False, False, False]
    others = {name: enqueue(site, name, *args)["id"] for name, args in (
        ("second_time", [{"1": [2, None]}]), ("echo", [["a", {"b": 1.5}]]), ("boom", []), ("kill", []),
    )}  # fmt: skip
    added = finished(site, queued["id"])
    assert (added["value"], added["attempts"], added["errors"]) == (3, 1, []) and all(added["times"])

    again = finished(site, others["second_time"])
    assert again["value"] == {"attempt": 2, "workers": 2, "value": {"1": [2, None]}}
    assert (again["attempts"], again["priority"], again["queue"]) == (2, 7, "mails")
    ((path, _, trace),) = again["errors"]
    assert path == "builtins.ValueError" and "the first attempt fails" in trace and "jobs.py" in trace
    assert finished(site, others["echo"])["value"] == ["a", {"b": 1.5}]

    failed = finished(site, others["boom"])
    assert (failed["status"], failed["attempts"], failed["value"]) == ("FAILED", 2, None)
    assert [error[0] for error in failed["errors"]] == ["builtins.LookupError"] * 2
    killed = finished(site, others["kill"])
    assert killed["attempts"] == 2 and len(set(killed["worker_ids"])) == 2
    assert [error[1] for error in killed["errors"]] == ["AttemptFailed"] * 2 and "SIGKILL" in killed["errors"][0][2]

    signals = [(note["signal"], note["status"], note["attempts"]) for note in notes(site, id=others["second_time"])
               if note["signal"].startswith("task")]  # fmt: skip
    signals.remove(("task_enqueued", "READY", 0))  # of another process, which may be later than the worker
    assert signals == [
        ("task_started", "RUNNING", 1), ("task_started", "RUNNING", 2), ("task_finished", "SUCCESSFUL", 2),
    ]  # fmt: skip
    assert [note["status"] for note in notes(site, id=others["boom"], signal="task_finished")] == ["FAILED"]
    assert {note["sender"] for note in notes(site, id=others["boom"]) if "sender" in note} == {"GearmanBackend"}
    assert len(notes(site, id=others["boom"], signal="request_started")) == 2


def test_a_return_value_that_cannot_be_kept_is_final(site: Site) -> None:
    no_json, too_large = (enqueue(site, "returns", size)["id"] for size in (None, 2_000_000))
    found = finished(site, no_json)
    assert (found["status"], found["attempts"], found["errors"][0][0]) == ("FAILED", 1, "builtins.TypeError")
    found = finished(site, too_large)
    assert (found["status"], found["attempts"]) == ("FAILED", 1) and "more than" in found["errors"][0][2]


TEST_CLIENT = """
import django
django.setup()
from django.test import Client
from gearwsgi.testing import capture
from tasksite.wsgi import application

with capture(application) as tasks:
    queued = Client().get("/enqueue", {"task": "add", "args": "[1, 2]"}).json()
    assert [task.id for task in tasks] == [queued["id"]], tasks
    tasks.run()
    seen = Client().get("/result", {"id": queued["id"]}).json()
    assert (seen["status"], seen["value"]) == ("SUCCESSFUL", 3), seen
"""


def test_a_view_that_queues_is_tested_by_djangos_client(site: Site) -> None:
    command = [sys.executable, "-c", TEST_CLIENT]
    done = subprocess.run(command, cwd=site.bench.folder, env={**site.env, "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_where_any_queue_may_be_named_a_worker_serves_the_usual_one(site: Site) -> None:
    code = (
        "import django; django.setup()\n"
        "from gearwsgi.contrib.django.tasks import GearmanBackend\n"
        "for options in {}, {'queues': ['b']}, {'queues': {'b': 'c'}}:\n"
        "    print(*GearmanBackend('default', {'QUEUES': [], 'OPTIONS': options}).served())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=site.bench.folder, env={**site.env, "PATH": ""}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["default", "b default", "c default"], done.stderr


def test_a_task_is_known_before_any_worker_has_seen_it(site: Site) -> None:
    unserved = enqueue(site, "add", 1, using={"queue_name": "unserved", "priority": -7})
    assert site.bench.server.queued("unserved") >= 1
    seen = result(site, unserved["id"])
    assert seen == unserved and (seen["status"], seen["priority"], seen["queue"]) == ("READY", -7, "unserved")
    later = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    delayed = enqueue(site, "add", 2, using={"run_after": later})
    assert result(site, delayed["id"])["status"] == "READY"
    assert finished(site, delayed["id"])["value"] == 2
    for unknown in ("0" * 32, unserved["id"][:8], "", "a b"):
        assert site.web.get(f"/result?{urlencode({'id': unknown})}").status == 404


def test_a_cancelled_task_has_failed_and_its_error_says_why(site: Site) -> None:
    site.forget()
    waiting = enqueue(site, "add", 1, using={"queue_name": "unserved"})["id"]
    running = enqueue(site, "wait", str(site.bench.folder / "never"))["id"]
    until(lambda: notes(site, kind="wait"), "the task to run")
    until(lambda: result(site, running)["status"] == "RUNNING", "its record")
    site.bench.run("cancel", waiting, running, "--app", APP, env=site.env)
    until(lambda: finished(site, running)["attempts"] == 1, "the end of the one that runs")
    for each in (waiting, running):
        found = finished(site, each)
        ((_, kind, why),) = found["errors"]
        assert (found["status"], kind) == ("FAILED", "AttemptFailed") and "cancelled" in why


def test_nobody_waits_for_a_task_whose_end_was_never_written_down(site: Site) -> None:
    lost = enqueue(site, "add", 1, using={"queue_name": "unserved"})["id"]
    # Another site's worker takes it: to us that is as a supervisor that was killed before it wrote what it had done.
    state = {"GEARWSGI_STATE_DIR": str(site.bench.folder / "another state")}
    worker = site.bench.worker("--queues", "unserved", env=state)
    until(lambda: not site.bench.server.queued("unserved"), "the end of all in the queue")
    worker.stop()
    kept = enqueue(site, "add", 1, using={"queue_name": "unserved"})["id"]
    until(lambda: site.web.get(f"/result?id={lost}").status == 404, "its record to be out of date")
    until(lambda: datetime.now(UTC).timestamp() - enqueued(site, kept) > 11, "the other's record to be as old")
    assert result(site, kept)["status"] == "READY"


def enqueued(site: Site, task_id: str) -> float:
    return float(datetime.fromisoformat(result(site, task_id)["enqueued_at"]).timestamp())


def test_a_task_runs_in_the_sites_request_life_cycle(site: Site) -> None:
    site.forget()
    finished(site, enqueue(site, "surroundings")["id"])
    (seen,) = notes(site, kind="surroundings")
    assert (seen["tenant"], seen["atomic"]) == ("acme", True) and seen["url"].startswith("/")


def test_a_transaction_that_comes_to_nothing_queues_nothing(site: Site) -> None:
    site.forget()
    before = rows(site)
    (never,) = ask(site, "/order", how="rollback")
    (once,) = ask(site, "/order", how="at once")
    (done,) = ask(site, "/order", how="commit")
    batch = ask(site, "/order", how="batch")
    assert finished(site, once)["value"] == "at once"
    assert finished(site, done)["value"] >= before + 1
    assert all(finished(site, each)["status"] == "SUCCESSFUL" for each in batch) and len(batch) == 3
    failed = ask(site, "/order", how="failed batch")
    assert len(failed) == 3
    for each in (never, *failed):
        assert site.web.get(f"/result?id={each}").status == 404
        assert not notes(site, id=each)


def test_the_tasks_address_is_no_page_for_the_public(site: Site) -> None:
    ways = (PATH, PATH + "/", "/-//django-tasks", "/%2D/django-tasks", "/x/../-/django-tasks", PATH + "?a=b")
    for method in ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "ANY"):
        assert site.web.send(method, "/any/other/page").status == 200
        for path in ways:
            answer = site.web.send(method, path, [("X-Gearman-Task", "1"), ("gearwsgi.job", "1")], b"{}")
            assert answer.status == 404, (method, path)


def test_a_name_leads_to_a_task_and_to_nothing_else(site: Site) -> None:
    site.forget()
    application = site.bench.app()
    named: dict[str, Any] = {}
    for name in ("tasksite.jobs.no_task", "os.system", "tasksite.jobs", "tasksite.jobs.task", 7, None):
        call = {
            "task": name,
            "args": ["true"],
            "kwargs": {},
            "backend": "default",
            "priority": 0,
            "queue_name": "default",
        }
        named[application.gearman.task("hostile", call, "default", target=f"POST {PATH}").id] = name
    letters = DeadLetters(application.settings)

    def found() -> Any:
        mine = [letter for letter in letters.all() if letter.id in named]
        return mine if len(mine) == len(named) else None

    for letter in until(found, site.worker.log[-1000:]):
        assert letter.attempts == 1 and "NoTask" in letter.reason and "never" in letter.reason, named[letter.id]
    assert not notes(site, kind="no task was run")


def test_a_killed_web_process_leaves_no_result_that_never_comes(site: Site) -> None:
    site.forget()
    before = rows(site)
    with pytest.raises((OSError, ValueError)):
        site.web.get("/crash", Host="acme.example.org")
    site.web.process.wait(30)
    (crashed,) = notes(site, kind="crash")
    assert rows(site) == before + 1
    site.web = WebServer(site.bench.folder, APP, site.env).ready()
    assert site.web.get(f"/result?id={crashed['id']}").status == 404
    assert not notes(site, id=crashed["id"], signal="task_enqueued")


def test_killed_workers_and_job_servers_cost_no_task_and_no_result(site: Site) -> None:
    site.forget()
    gate = site.bench.folder / "gate"
    waiting = enqueue(site, "wait", str(gate))["id"]
    until(lambda: notes(site, kind="wait"), "the task to run")
    assert until(lambda: result(site, waiting)["status"] == "RUNNING", "its record")
    site.worker.kill()
    site.bench.server.kill()
    away = enqueue(site, "add", 3)
    assert result(site, away["id"])["status"] == "READY"  # on disk, in the outbox
    site.bench.server.start()
    gate.touch()
    site.worker = site.bench.start_worker("--workers", "1", app=APP, env=site.env).ready()
    assert finished(site, away["id"])["value"] == 3
    found = finished(site, waiting)
    assert (found["value"], found["errors"]) == ("waited", [])

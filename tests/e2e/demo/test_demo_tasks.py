"""The demo's pages and services, tested as its users would test theirs: with the test kit."""

import hmac
from collections.abc import Iterator

import pytest
from webtest import TestApp

from demo_app import application
from gearwsgi.testing import Live, Tasks, capture, live


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    with capture(application) as captured:
        yield captured


@pytest.fixture
def client() -> TestApp:
    return TestApp(application)


def test_a_page_queues_its_service_and_answers_at_once(tasks: Tasks, client: TestApp) -> None:
    answer = client.get("/index/index?name=Ada").json
    (task,) = tasks
    assert (task.service, task.data, task.path) == ("default.index", {"name": "Ada"}, "/default/index")
    assert answer["task"] == task.id
    (run,) = tasks.run()
    assert run.json["name"] == "Ada" and run.json["hello"] == "world"


def test_an_alias_leads_to_its_service(tasks: Tasks, client: TestApp) -> None:
    client.get("/index/test?name=Ada")
    assert (tasks[0].service, tasks[0].path) == ("testTask", "/Test/task")
    assert tasks.run()[0].json == {"name": "Ada", "test": "done"}


def test_the_flaky_service_is_tried_three_times_two_seconds_apart(tasks: Tasks, client: TestApp) -> None:
    client.get("/index/flaky?name=Ada")
    runs = tasks.run(until_empty=True)
    assert [(run.fate, run.retry_in) for run in runs] == [("retry", 2), ("retry", 2), ("done", None)]
    assert runs[-1].json["attempt"] == 3


def test_the_status_page_knows_a_task_from_its_queueing_to_its_last_attempt(tasks: Tasks, client: TestApp) -> None:
    status = client.get("/index/flaky").json["status"]
    seen = [client.get(status).json["status"]]
    tasks.run()
    for _ in range(2):
        seen.append(client.get(status).json["status"])
        tasks.advance(2)
    assert seen == ["queued", "retrying", "retrying"]
    assert client.get(status).json["status"] == "done"


def test_a_webhook_is_taken_once_and_a_forged_one_is_not(tasks: Tasks, client: TestApp) -> None:
    body = b'{"name": "Ada"}'
    signature = hmac.digest(b"the secret of the demo", body, "sha256").hex()
    client.post("/hooks/demo", body, headers={"X-Signature": "0" * 64}, status=400)
    for _ in range(2):
        client.post("/hooks/demo", body, headers={"X-Signature": signature, "Content-Type": "application/json"})
    (run,) = tasks.run()
    assert run.json == {"name": "Ada", "verified": True}
    client.get("/hooks/demo", status=404)


def test_services_for_tasks_only_are_not_for_the_public(tasks: Tasks, client: TestApp) -> None:
    client.post("/slow/count", status=404)
    client.post("/flaky/index", status=404)
    assert not tasks


def test_a_plain_call_as_php_sends_it_runs(tasks: Tasks) -> None:
    tasks.put(b'{"service": "default.index", "name": "x"}')
    assert tasks.run()[0].json["name"] == "x"


@pytest.fixture
def running() -> Iterator[Live]:
    with live("demo_app:application", workers=2) as started:
        yield started


def test_from_end_to_end_with_a_job_server_and_two_workers(running: Live, client: TestApp) -> None:
    task = client.get("/index/index?name=Ada").json["task"]
    running.wait()
    assert any(task in line and "Ada" in line and "result" in line for line in running.log.splitlines())
    assert running.dead == []

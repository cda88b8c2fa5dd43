"""Batches and follow-ups in the test kit: its queue is in memory, and all else is the true code."""

import asyncio
import contextvars
import json
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from webtest import TestApp

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.testing import Tasks, capture

KEY = "a secret key of the tests"


def make_app(**settings: Any) -> GearmanMiddleware:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        gearman, path = environ["gearman"], environ["PATH_INFO"]
        if path == "/order":
            with gearman.batch():
                gearman.task("/good", {"n": 1}, after_response=True)
                gearman.task("/good", {"n": 2})
        if path == "/boom":
            raise LookupError("boom on purpose")
        status = {"/missing": "404 Not Found", "/flaky": "503 Busy"}.get(path, "200 OK")
        start_response(status, [("Content-Type", "text/plain")])
        return [path.encode()]

    return GearmanMiddleware(app, servers="127.0.0.1:1", backoff_min=1, **settings)


def services(tasks: Tasks) -> list[Any]:
    return [task.data["n"] for task in tasks]


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_queued_at_its_end_and_its_tasks_have_their_handles_then() -> None:
    application = make_app()
    with capture(application) as tasks:
        gearman = application.gearman
        with gearman.batch() as batch:
            first = gearman.task("/good", {"n": 1})
            gearman.task("/good", {"n": 2}, priority="high", delay=5)
            assert tasks == [] and str(first) == "" and str(gearman.status(first)) == "queued"
        assert [task.id for task in batch] == [task.id for task in tasks]
        assert [str(task) for task in batch] == [task.handle for task in tasks]
        gearman.task("/good", {"n": 3})
        assert services(tasks) == [1, 2, 3] and len(batch) == 2


def test_a_block_that_raises_queues_nothing_of_itself_and_all_of_what_is_around_it() -> None:
    application = make_app()
    gearman = application.gearman
    with capture(application) as tasks:
        held: list[Any] = []
        with pytest.raises(LookupError), gearman.batch():
            gearman.task("/good", {"n": 1})
            gearman.task("/good", {"n": 2}, after=held.append)
            raise LookupError
        held[0]()  # the transaction is committed all the same, say
        assert tasks == []
        with gearman.batch() as outer:
            gearman.task("/good", {"n": 3})
            with pytest.raises(LookupError), gearman.batch():
                gearman.task("/good", {"n": 4})
                raise LookupError
            with gearman.batch() as inner:
                gearman.task("/good", {"n": 5})
            assert tasks == [] and len(inner) == 1 and len(outer) == 2
        assert services(tasks) == [3, 5] and all(str(task) for task in (*inner, *outer))


def test_a_batch_is_that_of_its_object_and_of_its_context() -> None:
    application, other = make_app(), make_app()
    gearman = application.gearman
    seen: list[Any] = []
    with capture(application) as tasks, capture(other) as others:
        with gearman.batch() as batch:
            with other.gearman.batch():
                other.gearman.task("/good", {"n": "other"})
                gearman.task("/good", {"n": "ours"})
            assert services(others) == ["other"] and tasks == []
            thread = threading.Thread(target=lambda: seen.append(str(gearman.task("/good", {"n": "thread"}))))
            copied = contextvars.copy_context()
            thread.start()
            thread.join()
            copied.run(gearman.task, "/good", {"n": "copied"})
        assert seen == [tasks[0].handle]  # another thread's is queued at once
        copied.run(gearman.task, "/good", {"n": "late"})  # where the block is over, too
        assert services(tasks) == ["thread", "ours", "copied", "late"]
        assert len(batch) == 2


def test_a_batch_in_coroutines_collects_what_its_own_one_queues() -> None:
    application = make_app()

    async def queue(n: int) -> None:
        with application.gearman.batch() as batch:
            for part in range(3):
                application.gearman.task("/good", {"n": [n, part]})
                await asyncio.sleep(0)
        assert len(batch) == 3 and all(str(task) for task in batch)

    async def both() -> None:
        await asyncio.gather(queue(1), queue(2))

    with capture(application) as tasks:
        asyncio.run(both())
        assert sorted(services(tasks)) == [[n, part] for n in (1, 2) for part in range(3)]


def test_what_waits_for_the_response_or_the_commit_waits_in_a_batch_too() -> None:
    application = make_app()
    with capture(application) as tasks:
        TestApp(application).post("/order")
        assert services(tasks) == [2, 1]
        held: list[Any] = []
        with application.gearman.batch() as batch:
            application.gearman.task("/good", {"n": 3}, after=held.append)
            application.gearman.task("/good", {"n": 4}, after=lambda submit: submit())
        assert services(tasks) == [2, 1, 4] and len(batch) == 2
        held[0]()
        assert services(tasks) == [2, 1, 4, 3] and all(str(task) for task in batch)


# -- follow-ups --------------------------------------------------------------------------------------------------------


def test_what_follows_has_the_outcome_and_the_data_and_may_be_followed_itself() -> None:
    application = make_app(secret_keys=[KEY], inherit=["X-Tenant"], tasks={"mail": "report.mail"})
    environ = {
        "REQUEST_METHOD": "GET", "HTTP_HOST": "shop.example", "wsgi.url_scheme": "https", "SCRIPT_NAME": "/mount",
        "HTTP_X_TENANT": "seven", "HTTP_TRACEPARENT": "00-1", "REMOTE_ADDR": "10.0.0.7", "HTTP_COOKIE": "no",
    }  # fmt: skip
    with capture(application) as tasks:
        from gearwsgi import Gearman

        gearman = Gearman(application.client, environ)
        then = {
            "service": "mail", "queue": "mails", "priority": "high", "delay": 60, "headers": {"X-Own": "Zoë"},
            "params": {"a": "b"}, "max_attempts": 2, "then": "last.one", "on_dead": "never",
        }  # fmt: skip
        then["on_dead"] = {"service": "/never"}
        task = gearman.task("report.build", {"year": 2026}, headers={"X-First": "only"}, then=then)
        assert tasks.run(1)[0].fate == "done"
        second = tasks[1]
        assert (second.service, second.queue, second.priority, second.delay) == ("mail", "mails", "high", 60)
        assert (second.method, second.path, second.max_attempts) == ("POST", "/report/mail?a=b", 2)
        assert second.data == {
            "id": task.id, "service": "report.build", "status": 200, "reason": None, "data": {"year": 2026},
        }  # fmt: skip
        assert second.headers["X-Tenant"] == "seven" and second.headers["traceparent"] == "00-1"
        assert second.headers["X-Own"] == "Zoë" and "X-First" not in second.headers and "Cookie" not in second.headers
        assert second.payload.startswith(b"POST https://shop.example/mount/report/mail?a=b HTTP/1.1\r\n")
        assert second.headers["Idempotency-Key"] == second.id and second.unique == f"{second.id}:1"
        assert tasks.run() == []  # it is not due
        (run, last) = tasks.advance(60)
        assert run.status == "200 OK" and last.task.service == "last.one"
        assert last.task.data["id"] == second.id and last.task.data["data"] == second.data
        assert len(tasks) == 3 and not tasks.waiting


def test_what_is_dead_is_followed_once_and_after_its_last_attempt() -> None:
    application = make_app(max_attempts=2)
    gearman = application.gearman
    with capture(application) as tasks:
        for service in ("/boom", "/missing", "/flaky", "/good"):
            gearman.task(service, {"n": service}, then="went.well", on_dead="ops.alert")
        tasks.run(until_empty=True, raises=False)
        well, alerts = tasks.of("went.well"), tasks.of("ops.alert")
        assert [task.data["service"] for task in well] == ["/good"]
        found = {task.data["service"]: (task.data["status"], task.data["reason"]) for task in alerts}
        assert found["/missing"] == (404, "404 Not Found from POST /missing")
        assert found["/boom"][0] is None and "LookupError: boom on purpose" in found["/boom"][1]
        assert found["/flaky"][0] == 503 and "all 2 attempts used" in found["/flaky"][1]
        assert [task.data["data"] for task in alerts] == [{"n": task.data["service"]} for task in alerts]
        assert len({task.id for task in (*well, *alerts)}) == 4


def test_data_that_is_no_json_is_null_to_what_follows() -> None:
    application = make_app()
    with capture(application) as tasks:
        application.gearman.task("/good", form={"a": "b"}, then="next.one")
        application.gearman.task("/good", body=b"\xff", content_type="application/json", then="next.one")
        application.gearman.task("/good", body=b"[NaN]", content_type="application/json", then="next.one")
        application.gearman.task("/good", then={"service": "PUT /next/one", "unique": "one"})
        tasks.run()
        following = [*tasks.of("next.one"), *tasks.of("PUT /next/one")]
        assert [task.data["data"] for task in following] == [None] * 4
        assert following[-1].unique == "one" and following[-1].method == "PUT"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"then": "no such"}, "unknown service"),
        ({"then": {"queue": "mail"}}, "names no service"),
        ({"then": {"service": "a.b", "data": 1}}, "then has 'data'"),
        ({"then": {"service": "a.b", "quee": "x"}}, "did you mean 'queue'"),
        ({"then": {"service": "a.b", "headers": {"X-Gearman-Task": "x"}}}, "reserved"),
        ({"then": {"service": "a.b", "delay": 1, "max_attempts": 0}}, "max_attempts"),
        ({"on_dead": "GET /a"}, "no body"),
        ({"on_dead": 7}, "give a service"),
        ({"on_dead": {"service": "a.b", "then": {"service": "a.b", "name": 1}}}, "then has 'name'"),
        ({"on_dead": {"service": "a.b", "queue": "php"}}, "plain calls"),
        ({"then": "a.b", "plain": True}, "plain call"),
    ],
)
def test_a_follow_up_that_can_be_none_is_refused_at_the_call(given: dict[str, Any], says: str) -> None:
    application = make_app(plain_queues=["php"])
    with capture(application) as tasks:
        with pytest.raises(InvalidTask, match=says):
            application.gearman.task("/good", {"n": 1}, **given)
        assert tasks == []


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass
class Money:
    amount: Decimal


class Coder(json.JSONEncoder):
    def default(self, o: Any) -> Any:
        return f"<{o}>" if isinstance(o, complex) else super().default(o)


def test_a_site_and_a_task_may_have_an_encoder_of_their_own() -> None:
    application = make_app(json=Coder)
    with capture(application) as tasks:
        gearman = application.gearman
        gearman.task("/good", {"n": 1j})
        gearman.task("/good", {"n": 2}, json=lambda data: json.dumps({**data, "by": "Zoë"}, ensure_ascii=False))
        gearman.task("/good", {"n": 3}, json=lambda data: b'{"n": "bytes"}')
        assert [task.data for task in tasks] == [{"n": "<1j>"}, {"n": 2, "by": "Zoë"}, {"n": "bytes"}]
        wrong = ({"data": {"n": {1}}}, {"data": 1, "json": str.upper}, {"data": 1, "json": id}, {"json": {"n": 1}})
        for given in wrong:
            with pytest.raises(InvalidTask):
                gearman.task("/good", **given)
        assert len(tasks) == 3

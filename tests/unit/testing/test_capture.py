"""The test kit: what a test of an application sees of its tasks."""

import json
import threading
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, request
from webtest import TestApp

from gearwsgi import GearmanMiddleware, Retry
from gearwsgi.errors import (
    BadMessage,
    ConfigError,
    InvalidTask,
    RecordsUnavailable,
    ResultNotKept,
    ResultPending,
    TaskDead,
    UnknownTask,
)
from gearwsgi.testing import Run, TaskFailed, capture

KEY = "a secret key of the tests"


def make_app(**settings: Any) -> GearmanMiddleware:
    """An application whose tasks end in every way; `app.seen` is what its handlers were called with."""
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path, job = environ["PATH_INFO"], environ.get("gearwsgi.job")
        if job is not None:
            seen.append((path, job.data, job.attempt))
        status, headers = "200 OK", [("Content-Type", "application/json")]
        if path == "/signup":
            environ["gearman"].task("mail.welcome", {"to": "Ada"})
        elif path == "/later":
            environ["gearman"].task("mail.welcome", {"to": "Ada"}, after_response=True)
        elif path == "/refuse":
            environ["gearman"].task("mail.welcome", {"to": "Ada"}, after_response=True)
            status = "400 Bad Request"
        elif path == "/chain":
            environ["gearman"].task("chain.end", {"from": job.id})
        elif path == "/for/ever":
            environ["gearman"].task("for.ever")
        elif path == "/boom":
            raise LookupError("boom on purpose")
        elif path == "/flaky" and job.attempt < 3:
            status, headers = "503 Service Unavailable", [("Retry-After", "7")]
        elif path == "/busy" and job.attempt < 3:
            status = "500 Internal Server Error"
        elif path == "/again" and job.attempt < 2:
            raise Retry(delay=42)
        elif path == "/moved":
            status, headers = "302 Found", [("Location", "/login")]
        elif path == "/asks":
            job.progress(3, 7)
            seen.append(environ["gearman"].status(job.handle))
        start_response(status, headers)
        return [json.dumps({"path": path}).encode()]

    settings.setdefault("servers", "127.0.0.1:1")
    made = GearmanMiddleware(app, **settings)
    made.seen = seen  # type: ignore[attr-defined]
    return made


def test_a_test_sees_what_was_queued() -> None:
    app = make_app()
    with capture(app) as tasks:
        assert len(tasks) == 0 and not tasks.waiting
        TestApp(app).post("/signup", headers={"X-Request-ID": "r1"})
        app.gearman.task("/report?year=2026", "text", "slow", method="PUT", delay=90, headers={"X-Mine": "1"})
    first, second = tasks
    assert (first.service, first.data, first.queue, first.delay) == ("mail.welcome", {"to": "Ada"}, "job", 0)
    assert (first.method, first.path, first.attempt, first.max_attempts) == ("POST", "/mail/welcome", 1, 5)
    assert first.headers["x-request-id"] == "r1" and first.headers["Content-Type"] == "application/json"
    assert (second.method, second.path, second.data, second.queue) == ("PUT", "/report?year=2026", "text", "slow")
    assert second.delay == pytest.approx(90, abs=0.01) and second.headers["x-mine"] == "1"
    assert "mail.welcome" in repr(first) and first.id in repr(tasks)
    assert tasks.of("mail.welcome") == [first]


def test_tasks_compare_with_a_list() -> None:
    app = make_app()
    with capture(app) as tasks:
        assert tasks == []
        app.gearman.task("/one")
        assert tasks == [tasks[0]] and tasks not in ([], ())
        with pytest.raises(TypeError):
            hash(tasks)


def test_run_replays_them_in_order_with_what_they_queue_in_turn() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/chain")
        app.gearman.task("/one", priority="high")
        runs = tasks.run()
    assert [run.task.path for run in runs] == ["/one", "/chain", "/chain/end"]
    assert [run.fate for run in runs] == ["done"] * 3
    assert runs[0].status == "200 OK" and runs[0].json == {"path": "/one"}
    assert tasks.waiting == [] and len(tasks) == 3 and tasks.runs == runs
    assert app.seen[2][1] == {"from": tasks[0].id}


def test_run_takes_as_many_as_are_asked_for_and_from_the_queue_asked_for() -> None:
    app = make_app()
    with capture(app) as tasks:
        for number in range(4):
            app.gearman.task(f"/{number}", queue="odd" if number % 2 else "even")
        assert [run.task.path for run in tasks.run(1)] == ["/0"]
        assert [run.task.path for run in tasks.run(queue="odd")] == ["/1", "/3"]
        assert [task.path for task in tasks.waiting] == ["/2"]


def test_a_handlers_exception_comes_out_with_its_traceback_and_the_retry_is_queued_first() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/boom")
        with pytest.raises(LookupError, match="boom on purpose") as caught:
            tasks.run()
    assert "raise LookupError" in "".join(traceback.format_exception(caught.value))
    (run,) = tasks.runs
    assert run.fate == "retry" and run.error is caught.value and "LookupError" in run.output
    (retry,) = tasks.waiting
    assert (retry.attempt, retry.id) == (2, tasks[0].id)


def test_retries_come_when_the_clock_reaches_them_and_nothing_sleeps() -> None:
    app = make_app(backoff_min=100)
    with capture(app) as tasks:
        app.gearman.task("/flaky")
        start = tasks.clock.now()
        (run,) = tasks.run()
        assert (run.fate, run.retry_in) == ("retry", 7)
        assert tasks.run() == []
        assert tasks.advance(6.5) == []
        assert [run.task.attempt for run in tasks.advance(1)] == [2]
        (last,) = tasks.run(until_empty=True)
        assert (last.task.attempt, last.fate) == (3, "done")
        assert tasks.clock.now() - start == pytest.approx(14)


def test_without_retry_after_the_backoff_is_the_ceiling_so_that_tests_are_the_same_each_time() -> None:
    app = make_app(backoff_min=100)
    with capture(app) as tasks:
        app.gearman.task("/busy")
        assert [run.retry_in for run in tasks.run(until_empty=True)] == [100, 200, None]


def test_a_handlers_retry_is_no_error() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/again")
        assert [run.retry_in for run in tasks.run(until_empty=True)] == [42, None]


def test_a_dead_letter_without_an_exception_is_an_error_that_shows_the_response() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/moved")
        with pytest.raises(TaskFailed, match="behind a login") as caught:
            tasks.run()
    assert "Location: /login" in str(caught.value)
    (letter,) = tasks.dead
    assert letter is caught.value.run and letter.status == "302 Found" and letter.task is tasks[0]


def test_after_the_last_attempt_a_task_is_a_dead_letter() -> None:
    app = make_app(max_attempts=3)
    with capture(app) as tasks:
        app.gearman.task("/boom")
        runs = tasks.run(until_empty=True, raises=False)
    assert [run.fate for run in runs] == ["retry", "retry", "dead"]
    assert tasks.dead == runs[-1:] and "all 3 attempts used" in tasks.dead[0].reason


def test_delayed_tasks_wait_for_the_clock_in_the_order_of_their_times() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/late", delay=3600)
        app.gearman.task("/soon", at=datetime.now(UTC) + timedelta(seconds=60))
        app.gearman.task("/now")
        assert [run.task.path for run in tasks.run()] == ["/now"]
        assert [run.task.path for run in tasks.advance(61)] == ["/soon"]
        assert [run.task.path for run in tasks.advance(7200)] == ["/late"]
        app.gearman.task("/after", delay=10)
        assert [run.task.path for run in tasks.advance(11)] == ["/after"], "a delay counts from the clock's now"


def test_messages_are_signed_and_verified_whatever_the_clock_says() -> None:
    app = make_app(secret_keys=[KEY])
    with capture(app) as tasks:
        app.gearman.task("/flaky")
        app.gearman.task("/late", delay=30 * 86400)
        assert b"X-Gearman-Signature" in tasks[0].payload
        tasks.run(until_empty=True)
        app.gearman.task("/one")
        assert [run.fate for run in tasks.run()] == ["done"]
        assert not tasks.dead


def test_a_plain_call_that_may_not_run_is_a_dead_letter_as_with_a_worker() -> None:
    app = make_app(secret_keys=[KEY])
    with capture(app) as tasks:
        app.gearman.task("default.index", {"name": "x"}, plain=True)
        assert tasks[0].data == {"name": "x"} and tasks[0].service == "default.index"
        with pytest.raises(TaskFailed, match="signature"):
            tasks.run()
        app.gearman.task("App.Hello World", plain=True)
        assert (tasks[1].service, tasks[1].path) == ("App.Hello World", "")


def test_a_second_task_with_the_same_unique_is_dropped_while_the_first_waits() -> None:
    app = make_app()
    with capture(app) as tasks:
        first = app.gearman.task("/one", 1, unique="u")
        assert str(app.gearman.task("/one", 2, unique="u")) == str(first)
        assert [task.data for task in tasks] == [1]
        tasks.run()
        assert str(app.gearman.task("/one", 3, unique="u")) != str(first)


def test_status_and_call_work_in_memory_too() -> None:
    app = make_app()
    with capture(app) as tasks:
        task = app.gearman.task("/asks")
        assert str(app.gearman.status(task)) == "queued"
        tasks.run()
        assert str(app.seen[-1]) == "running 3 of 7"
        assert str(app.gearman.status(task)) == "done"
        assert app.gearman.call("/one").json == {"path": "/one"}
        assert app.gearman.call("/moved").status_code == 302
        assert app.gearman.call("/boom").status_code == 500
        assert [call.path for call in tasks.calls] == ["/one", "/moved", "/boom"] and len(tasks) == 1


def test_inline_runs_a_task_at_once_and_leaves_the_delayed_ones() -> None:
    app = make_app()
    with capture(app, inline=True) as tasks:
        app.gearman.task("/chain")
        assert [path for path, _, _ in app.seen] == ["/chain", "/chain/end"]
        app.gearman.task("/late", delay=5)
        assert [task.path for task in tasks.waiting] == ["/late"]
        with pytest.raises(LookupError):
            app.gearman.task("/boom")
    with capture(app, inline=True, raises=False) as tasks:
        app.gearman.task("/boom")
        assert [run.fate for run in tasks.runs] == ["retry"]


def test_after_response_is_queued_when_the_response_is_closed_and_not_after_a_400() -> None:
    app = make_app()
    with capture(app) as tasks:
        TestApp(app).get("/later")
        assert len(tasks) == 1
        TestApp(app).get("/refuse", status=400)
        assert len(tasks) == 1


def test_a_task_that_queues_itself_for_ever_is_told_of() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("for.ever")
        with pytest.raises(AssertionError, match="queue itself"):
            tasks.run()
        tasks.clear()
        assert not tasks and not tasks.waiting and not tasks.runs


def test_what_can_not_be_a_task_raises_as_it_does_in_production() -> None:
    app = make_app()
    with capture(app) as tasks, pytest.raises(InvalidTask):
        app.gearman.task("/one", {1, 2})
    assert not tasks


def test_the_block_ends_with_the_client_that_was_there_before() -> None:
    app = make_app()
    gearman, client = app.gearman, app.client
    with capture(app) as outer:
        with pytest.raises(ZeroDivisionError), capture(app) as inner:
            gearman.task("/inner")
            raise ZeroDivisionError
        gearman.task("/outer")
    assert [task.path for task in inner] == ["/inner"] and [task.path for task in outer] == ["/outer"]
    assert app.client is client and gearman._client is client and app.gearman is gearman


def test_blocks_that_cross_each_other_end_with_the_applications_own_client() -> None:
    app = make_app()
    client = app.client
    first, second = capture(app), capture(app)
    first.__enter__()
    tasks = second.__enter__()
    first.__exit__(None, None, None)
    app.gearman.task("/one")
    assert len(tasks) == 1
    second.__exit__(None, None, None)
    assert app.client is client


def test_many_threads_can_queue_and_each_task_runs_once() -> None:
    app = make_app()
    with capture(app) as tasks:
        threads = [
            threading.Thread(target=lambda: [app.gearman.task("/one", unique=None) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({task.id for task in tasks}) == 200 == len(tasks.run())


def test_an_application_without_the_middleware_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match="no GearmanMiddleware"), capture(lambda environ, start: []):
        raise AssertionError("not reached")


@pytest.fixture
def flask_app() -> Flask:
    app = Flask(__name__)
    app.wsgi_app = GearmanMiddleware(app.wsgi_app, servers="127.0.0.1:1")  # type: ignore[method-assign]

    @app.post("/signup")
    def signup() -> str:
        request.environ["gearman"].task("mail.welcome", request.form.to_dict())
        return "welcome\n"

    @app.post("/mail/welcome")
    def mail() -> str:
        return f"mail to {request.json['name']}\n"

    @app.post("/boom")
    def boom() -> str:
        raise LookupError("boom in Flask")

    return app


def test_flasks_test_client_works(flask_app: Flask) -> None:
    with capture(flask_app) as tasks:
        assert flask_app.test_client().post("/signup", data={"name": "Ada"}).status_code == 200
        (run,) = tasks.run()
    assert run.body == b"mail to Ada\n"


@pytest.mark.parametrize("testing", [True, False])
def test_an_exception_that_flask_makes_a_500_of_comes_out_all_the_same(flask_app: Flask, testing: bool) -> None:
    flask_app.testing = testing
    with capture(flask_app) as tasks:
        tasks.middleware.gearman.task("/boom")
        with pytest.raises(LookupError, match="boom in Flask"):
            tasks.run()


def test_headers_are_found_by_their_names_in_any_case() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/one", headers=[("X-Mine", "1"), ("X-Other", "2"), ("x-mine", "3")])
    headers = tasks[0].headers
    assert headers["x-MINE"] == "1, 3" and "X-Other" in headers and headers.get("x-none") is None
    assert {"X-Mine", "X-Other", "Idempotency-Key"} <= set(headers) and len(headers) == len(dict(headers))


def test_runs_are_values_that_show_what_matters() -> None:
    app = make_app()
    with capture(app) as tasks:
        app.gearman.task("/one")
        (run,) = tasks.run()
    assert isinstance(run, Run) and "fate='done'" in repr(run) and "/one" in repr(run)


def test_the_test_kit_takes_messages_of_other_programs() -> None:
    seen = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        seen.append((environ["PATH_INFO"], environ["gearwsgi.job"].data))
        start_response("200 OK", [])
        return []

    wrapped = GearmanMiddleware(app, servers="127.0.0.1:1", secret_keys=["a key that has its length"])
    with capture(wrapped) as tasks:
        tasks.put(b"PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx")
        tasks.put(b"PUT /b HTTP/1.1\r\n\r\n", queue="mail")
        with pytest.raises(BadMessage):
            tasks.put(b"neither this nor that")
        assert [run.fate for run in tasks.run()] == ["done", "done"]
    assert seen == [("/a", b"x"), ("/b", None)]


def test_records_and_results_are_known_in_memory_at_once() -> None:
    app = make_app()
    with capture(app) as tasks:
        gearman = app.gearman
        kept = gearman.task("/one", keep_result=60)
        later = gearman.task("/asks", delay=30)
        assert (gearman.record(kept).state, gearman.record(later.id).state) == ("queued", "scheduled")
        with pytest.raises(ResultPending):
            gearman.result(kept, timeout=600)
        tasks.run()
        assert gearman.result(kept.id[:12]).json == {"path": "/one"}
        record = gearman.record(kept.id)
        assert (record.state, record.attempts, record.status, record.service) == ("done", 1, 200, "/one")
        assert [each.outcome for each in record.history] == ["done"] and record.to_json()["started"] is not None
        tasks.clock.advance(61)
        tasks.run()
        for task in (kept, later):
            with pytest.raises(ResultNotKept):
                gearman.result(task)
        assert str(gearman.status("0" * 32)) == "unknown"
        with pytest.raises(UnknownTask):
            gearman.record("0" * 32)


def test_a_retry_and_a_dead_letter_are_records_in_memory_too() -> None:
    app = make_app()
    with capture(app, raises=False) as tasks:
        task = app.gearman.task("/boom", max_attempts=2)
        tasks.run(raises=False)
        assert str(app.gearman.status(task)) == "retrying"
        tasks.run(until_empty=True, raises=False)
        record = app.gearman.record(task)
        assert (record.state, [each.outcome for each in record.history]) == ("dead", ["retried", "dead"])
        assert "Traceback" in (record.history[0].traceback or "")
        with pytest.raises(TaskDead) as raised:
            app.gearman.result(task)
        assert raised.value.reason == record.reason
    off = make_app(records="")
    with capture(off), pytest.raises(RecordsUnavailable, match="records are off"):
        off.gearman.record(off.gearman.task("/one"))

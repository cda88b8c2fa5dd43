"""With `wait` the true response is awaited, and given where it comes in time."""

import threading
import time
from typing import Any

import pytest

from gearwsgi.testing import capture
from tests.integration.deferral.conftest import Site
from tests.support import until

FAIL = {"route": "POST /fail", "wait": 20, "max_attempts": 1}


def test_the_handlers_own_response_is_given_where_it_comes_in_time(working: Site) -> None:
    for _ in range(3):
        answer = working.ask("http://x.example:8000/waits?a=1", POST=b"abc")
        assert (answer.status_code, answer.content_type) == (200, "text/csv")
        assert answer.text == "POST http://x.example:8000/waits?a=1 3 job"
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        assert "Connection" not in answer.headers
        assert answer.content_length == len(answer.body)


def test_a_client_says_itself_how_long_it_waits(working: Site) -> None:
    assert working.ask("/reports/1", method="POST", headers={"Prefer": "wait=20"}).status_code == 200
    assert working.ask("/waits", method="POST", headers={"Prefer": "respond-async, wait=0"}).status_code == 202
    capped = working.make(defer_max_wait=0)
    assert working.ask("/reports/1", app=capped, method="POST", headers={"Prefer": "wait=20"}).status_code == 202


def test_a_response_that_says_that_it_failed_is_given_too_and_the_task_is_tried_again(working: Site) -> None:
    app = working.make(defer=[FAIL])
    answer = working.ask("/fail?status=503", app=app, method="POST")
    assert (answer.status_code, answer.text) == (503, "it is 503")
    answer = working.ask("/fail?status=404", app=app, method="POST")
    assert (answer.status_code, answer.text) == (404, "it is 404")
    answer = working.ask("/fail?raise=1", app=app, method="POST")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    again = working.make(defer=[{**FAIL, "max_attempts": 2, "backoff_min": 0.01, "backoff_max": 0.01}])
    before = working.bench.lines().count("fail again")
    assert working.ask("/fail?status=503", app=again, POST=b"again").status_code == 503
    until(lambda: working.bench.lines().count("fail again") == before + 2, "a second attempt")


def test_where_the_time_is_over_the_answer_is_202_and_the_task_runs_all_the_same(working: Site, tmp_path: Any) -> None:
    app = working.make(defer=[{"route": "POST /steps", "wait": 0.2}])
    file = tmp_path / "go"
    file.write_text("1")
    answer = working.ask("/steps", app=app, POST=b"late", headers={"X-File": str(file)})
    assert answer.status_code == 202
    working.when("running", answer.location)
    file.write_text("end")
    working.when("done", answer.location)
    assert working.bench.lines().count("steps late") == 1
    # The mailbox in which nobody waited any more is used again.
    assert working.ask("/waits", app=working.application, POST=b"next").text.endswith("4 job")


def test_many_wait_at_once_and_each_gets_its_own(working: Site) -> None:
    answers: list[str] = []

    def ask(number: int) -> None:
        answers.append(working.ask(f"/waits?n={number}", method="POST").text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"POST http://localhost/waits?n={number} 0 job" for number in range(20))
    assert working.ask("/waits", method="POST").status_code == 200


def test_with_no_worker_nobody_waits_longer_than_said(idle: Site) -> None:
    app = idle.make(defer=[{"route": "/waits", "wait": 0.3}])
    began = time.monotonic()
    answer = idle.ask("/waits", app=app, method="POST")
    assert answer.status_code == 202
    assert time.monotonic() - began >= 0.3
    assert idle.ask(answer.location).json["state"] == "queued"


def test_the_test_kit_gives_the_true_response_of_what_it_runs_at_once(
    idle: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORD", str(idle.bench.record))
    with capture(idle.application, inline=True):
        assert idle.ask("/waits", POST=b"abc").text.endswith("3 job")
    with capture(idle.application) as tasks:
        assert idle.ask("/waits", POST=b"abc").status_code == 202
        assert len(tasks) == 1

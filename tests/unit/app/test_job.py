"""What a handler may raise to go on later, and when that is what its response means."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from gearwsgi import Continue, GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.testing import Tasks, capture


def queued(handler: Callable[[Any], str]) -> Callable[[dict[str, Any], Any], list[bytes]]:
    """An application that answers the status line that `handler` makes of its job."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(handler(environ["gearwsgi.job"]), [])
        return []

    return app


def start(tasks: Tasks) -> None:
    tasks.middleware.gearman.task("/import", {"file": "x"})


def test_work_goes_on_from_where_a_stop_was_requested_with_data_attempt_and_progress() -> None:
    seen: list[Any] = []

    def work(job: Any) -> str:
        step = job.cursor["step"] if job.cursor is not None else 0
        seen.append((step, job.data, job.attempt))
        if job.stop_requested:
            job.progress(step + 1, 3)
            raise Continue(cursor={"step": step + 1}, delay=60 * step)
        return "200 OK"

    with capture(GearmanMiddleware(queued(work), secret_keys=["k" * 32])) as tasks:
        start(tasks)
        tasks.stop_requested = True
        runs = tasks.run()
        assert [(run.fate, run.retry_in, run.error) for run in runs] == [("continue", 0, None), ("continue", 60, None)]
        (rest,) = tasks.waiting
        assert (rest.cursor, rest.attempt, rest.delay, rest.id) == ({"step": 2}, 1, 60, tasks[0].id)
        assert "X-Gearman-Progress: 2 3" in rest.payload.decode()
        tasks.stop_requested = False
        assert [run.fate for run in tasks.run(until_empty=True)] == ["done"]
    assert seen == [(step, {"file": "x"}, 1) for step in range(3)]


def test_the_same_piece_twice_queues_one_rest() -> None:
    def work(job: Any) -> str:
        raise Continue(cursor=(job.cursor or 0) + 1)

    with capture(GearmanMiddleware(queued(work))) as tasks:
        start(tasks)
        tasks.run(1)
        first = tasks.waiting[0].unique
        tasks.run(1)
        assert first == f"{tasks[0].id}:1+1" and tasks.waiting[0].unique == f"{tasks[0].id}:1+2"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"cursor": {1, 2}}, "can't be written as JSON"),
        ({"cursor": "x" * 4095}, "4097 characters of JSON"),
        ({"cursor": 1, "delay": -1}, "delay is -1"),
        ({"cursor": 1, "delay": float("nan")}, "delay is nan"),
    ],
)
def test_what_no_message_can_hold_is_said_where_it_is_raised(arguments: Any, why: str) -> None:
    with pytest.raises(InvalidTask, match=why):
        raise Continue(**arguments)


def test_one_that_was_made_and_not_raised_hides_no_failure() -> None:
    app = Flask(__name__)

    @app.post("/import")
    def work() -> str:
        Continue(cursor=1)
        raise ValueError("boom on purpose")

    with capture(GearmanMiddleware(app)) as tasks:
        start(tasks)
        (run,) = tasks.run(raises=False)
    assert run.fate == "retry" and "boom on purpose" in run.reason


def test_of_a_call_it_is_an_exception_as_any_other() -> None:
    def work(job: Any) -> str:
        raise Continue(cursor=1)

    with capture(GearmanMiddleware(queued(work))) as tasks:
        assert tasks.middleware.gearman.call("/import").status_code == 500
        assert not tasks.waiting

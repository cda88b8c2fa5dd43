"""The inbox at its door: what is taken, what is refused and why, and what a second delivery gets."""

import hmac
import io
import logging
from typing import Any

import pytest
from webtest import TestApp

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ConfigError, ServerUnavailable
from gearwsgi.submit.client import Client
from gearwsgi.testing import capture
from gearwsgi.webhooks import github, hmac_header

SECRET = "a secret of the tests"
ROUTE = "POST /hooks/github"


def handler(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers what only a replay has: that its sender was found genuine."""
    job = environ.get("gearwsgi.job")
    start_response("200 OK", [])
    text = f"{job.verified} {environ['HTTP_X_GITHUB_EVENT']}" if job is not None else "public"
    return [text.encode() + environ["wsgi.input"].read()]


def make(**entry: Any) -> GearmanMiddleware:
    found = {"route": ROUTE, "verify": github(SECRET), **entry}
    return GearmanMiddleware(handler, inbox=[found], tasks_only=["/hooks/*"], servers="127.0.0.1:1", max_body=1000)


def headers(body: bytes, id: str = "1", secret: str = SECRET) -> dict[str, str]:
    signature = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
    return {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": id, "X-GitHub-Event": "push"}


def deliver(app: GearmanMiddleware, body: bytes = b"\xff{}", status: int = 200, **more: str) -> Any:
    return TestApp(app).post("/hooks/github", body, headers=headers(body, **more), status=status)


def test_a_genuine_delivery_runs_once_with_its_headers_and_raw_body_and_knows_that_it_is_genuine() -> None:
    app = make(queue="hooks", priority="high", max_attempts=9, timeout=7)
    with capture(app) as tasks:
        assert deliver(app).json["status"] == "accepted"
        assert deliver(app).json["status"] == "duplicate"
        (task,) = tasks
        assert (task.queue, task.priority, task.max_attempts, task.verified) == ("hooks", "high", 9, True)
        assert "X-Gearman-Timeout: 7" in task.payload.decode("latin-1")
        assert tasks.run()[0].body == b"True push\xff{}"
        assert deliver(app).json["status"] == "duplicate", "after it has run, too"
        deliver(app, id="2")
        assert len(tasks) == 2


def test_what_was_seen_is_forgotten_after_inbox_keep() -> None:
    app = GearmanMiddleware(handler, inbox=[{"route": ROUTE, "verify": github(SECRET)}], inbox_keep=60)
    with capture(app) as tasks:
        deliver(app)
        tasks.run()
        tasks.advance(59)
        deliver(app)
        assert len(tasks) == 1
        tasks.advance(2)
        deliver(app)
        assert len(tasks) == 2


def test_a_bad_delivery_queues_nothing_blocks_no_id_and_its_reason_is_in_the_log_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make()
    with capture(app) as tasks:
        answer = deliver(app, secret="another", status=400)
        assert "fit" not in answer.text and SECRET not in caplog.text + answer.text
        assert "inbox: POST /hooks/github refused: the signature does not fit" in caplog.text
        TestApp(app).post("/hooks/github", b"x", status=400)
        assert "the header X-Hub-Signature-256 is missing" in caplog.text
        assert not tasks
        deliver(app)
        assert len(tasks) == 1


def test_a_delivery_that_could_not_be_queued_is_a_503_and_blocks_no_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    with capture(app) as tasks:
        with monkeypatch.context() as patch:
            patch.setattr(app.client, "submit", _nobody_answers)
            answer = deliver(app, status=503)
            assert answer.headers["Retry-After"] == "30" and "is not queued" in caplog.text
        deliver(app)
        assert len(tasks) == 1


def _nobody_answers(submissions: Any) -> Any:
    raise ServerUnavailable("no job server answers")


@pytest.mark.parametrize("records", [None, "postgresql://127.0.0.1:1/nobody"], ids=["off", "away"])
def test_without_records_all_is_taken_and_the_log_says_once_that_duplicates_cant_be_told(
    caplog: pytest.LogCaptureFixture, records: str | None
) -> None:
    caplog.set_level(logging.INFO, "gearwsgi")
    app = GearmanMiddleware(handler, inbox=[{"route": ROUTE, "verify": github(SECRET)}], records=records)
    with capture(app) as tasks:
        app.client.look_for = Client(app.settings).look_for  # type: ignore[method-assign]  # the real records
        for _ in range(2):
            deliver(app)
            tasks.run()
        assert len(tasks) == 2, "one that waits still would be told by its unique"
    assert caplog.text.count("duplicates can't be told, what comes is taken and run: ") == 1


@pytest.mark.parametrize("id", ["X-My-Id", lambda environ, body: environ["HTTP_X_MY_ID"]])
def test_an_id_of_ones_own_is_a_header_or_a_callable(id: Any) -> None:
    app = make(id=id)
    with capture(app) as tasks:
        for delivery, mine in (("1", "a"), ("2", "a"), ("2", "b")):
            TestApp(app).post("/hooks/github", b"x", headers={**headers(b"x", delivery), "X-My-Id": mine})
        assert len(tasks) == 2


def test_a_delivery_without_an_id_is_taken_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    app = make(id="X-My-Id")
    with capture(app) as tasks:
        deliver(app)
        deliver(app)
        assert len(tasks) == 2 and "a delivery has no id" in caplog.text


def test_a_verifier_of_ones_own_says_yes_no_or_raises() -> None:
    def verify(environ: Any, body: bytes) -> bool:
        return {b"yes": True, b"no": False}[body]

    app = make(verify=verify, id="X-GitHub-Delivery")
    with capture(app) as tasks:
        deliver(app, b"yes")
        deliver(app, b"no", status=400)
        with pytest.raises(KeyError):  # its bug is no bad delivery: the sender is to try again
            deliver(app, b"else")
        assert len(tasks) == 1


def test_the_route_decides_which_requests_are_deliveries_and_the_rest_is_as_before() -> None:
    app = make()
    with capture(app) as tasks:
        assert TestApp(app).get("/hooks/github", status=404)  # tasks_only
        assert TestApp(app).post("/elsewhere").text == "public"
        assert not tasks


def test_a_body_that_is_too_large_or_cut_off_is_refused() -> None:
    app = make()
    with capture(app) as tasks:
        deliver(app, b"x" * 1000)
        deliver(app, b"x" * 1001, status=413)
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/hooks/github", "CONTENT_LENGTH": "9"}
        seen: list[str] = []
        list(app({**environ, "wsgi.input": io.BytesIO(b"cut")}, lambda status, headers: seen.append(status)))
        assert seen == ["400 Bad Request"] and len(tasks) == 1


@pytest.mark.parametrize(
    ("inbox", "why"),
    [
        ({"route": ROUTE}, "a list of dicts"),
        ([ROUTE], r"inbox\[0\] is str: give a dict"),
        ([{"route": ROUTE}], r"inbox\[0\] has no 'verify'"),
        ([{"verify": github(SECRET)}], r"inbox\[0\] has no 'route'"),
        ([{"route": "hooks", "verify": github(SECRET)}], "give a method and a pattern"),
        ([{"route": ROUTE, "verify": SECRET}], "gearwsgi.webhooks"),
        ([{"route": ROUTE, "verify": lambda environ, body: True}], r"inbox\[0\] has no 'id'"),
        ([{"route": ROUTE, "verify": github(SECRET), "id": "no header"}], "give a header's name"),
        ([{"route": ROUTE, "verify": github(SECRET), "timeot": 3}], "unknown key 'timeot'.*timeout"),
        ([{"route": ROUTE, "verify": github(SECRET), "max_attempts": 0}], r"inbox\[0\]\['max_attempts'\] is 0"),
    ],
)
def test_an_inbox_that_cant_work_is_an_error_at_the_start_which_shows_no_secret(inbox: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as raised:
        GearmanMiddleware(handler, inbox=inbox)
    assert "secret of" not in str(raised.value)


def test_a_handler_that_has_verified_a_delivery_itself_says_so_in_its_replay() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if "gearwsgi.job" not in environ:
            environ["gearman"].replay(verified=True)
        start_response("200 OK", [])
        return [str(getattr(environ.get("gearwsgi.job"), "verified", "")).encode()]

    wrapped = GearmanMiddleware(app)
    with capture(wrapped) as tasks:
        TestApp(wrapped).post("/x", b"")
        assert tasks.run()[0].body == b"True"


def test_bodies_that_are_the_same_are_one_delivery_where_a_scheme_has_no_id() -> None:
    app = make(verify=hmac_header("X-Hub-Signature-256", SECRET, prefix="sha256="))
    with capture(app) as tasks:
        for body in (b"a", b"a", b"b"):
            deliver(app, body)
        assert len(tasks) == 2

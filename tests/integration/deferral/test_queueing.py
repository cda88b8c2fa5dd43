"""A public request that a rule names is queued and answered 202, or answered why not."""

import io
import json
from typing import Any

import pytest

from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.testing import capture
from tests.apps import deferring
from tests.integration.deferral.conftest import Site
from tests.support import free_port


def test_a_route_of_a_rule_is_queued_and_answered_202_with_its_status_address(idle: Site) -> None:
    answer = idle.ask("http://shop.example:8000/reports/7?a=b", POST=b"x=1")
    assert (answer.status, answer.content_type) == ("202 Accepted", "application/json")
    assert answer.json == {"id": answer.json["id"], "status": answer.headers["Location"]}
    assert answer.headers["Location"] == f"http://shop.example:8000/-/tasks/{answer.json['id']}"
    assert (answer.headers["Retry-After"], answer.headers["Cache-Control"]) == ("1", "no-store")
    assert "Preference-Applied" not in answer.headers
    known = idle.ask(answer.headers["Location"])
    assert (known.status_code, known.json["state"], known.json["id"]) == (200, "queued", answer.json["id"])
    assert known.headers["Retry-After"] == "1"
    assert known.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/reports/1", 202),
        ("POST", "//reports/./1", 202),
        ("POST", "/x/../reports/1", 202),
        ("POST", "/%72eports/1", 202),
        ("GET", "/reports/1", 200),
        ("POST", "/plain", 200),
        ("GET", "/forms", 202),
        ("PUT", "/forms", 202),
        ("OPTIONS", "/forms", 200),
        ("HEAD", "/forms", 200),
    ],
)
def test_method_and_path_as_the_application_sees_it_decide(idle: Site, method: str, path: str, status: int) -> None:
    if status == 202 or path == "/reports/1":
        assert idle.ask(path, method=method).status_code == status
    else:
        assert "direct" in idle.ask(path, method=method).text or method == "HEAD"


def test_a_preflight_is_the_applications_even_where_a_rule_names_its_method(idle: Site) -> None:
    app = idle.make(defer=["OPTIONS /forms"])
    asks = {"Origin": "https://else.example", "Access-Control-Request-Method": "POST"}
    assert "direct" in idle.ask("/forms", app=app, method="OPTIONS", headers=asks).text
    assert idle.ask("/forms", app=app, method="OPTIONS").status_code == 202


def test_with_prefer_only_a_client_that_asks_is_answered_at_once(idle: Site) -> None:
    assert idle.ask("/prefer", method="POST").status_code == 200
    assert idle.ask("/prefer", method="POST", headers={"Prefer": 'foo="respond-async"'}).status_code == 200
    answer = idle.ask("/prefer", method="POST", headers={"Prefer": "Respond-Async; x=1, handling=lenient"})
    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")


def test_a_browser_gets_a_small_page_that_leads_to_the_status_address(idle: Site) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = idle.ask("/reports/1", method="POST", headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (202, "text/html")
    assert f'<meta http-equiv="refresh" content="1; url={answer.headers["Location"]}">' in answer.text
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for other in ("application/json, text/html;q=0.5", "*/*", "image/png", "nonsense;;q=x"):
        assert idle.ask("/reports/1", method="POST", headers={"Accept": other}).content_type == "application/json"


def test_a_rules_options_are_the_tasks(idle: Site) -> None:
    app = idle.make()
    with capture(app) as tasks:
        secret = {"Cookie": "session=1", "Authorization": "Basic eA=="}
        idle.ask("http://x.example/headers?q=%20", app=app, POST=b"body", headers=secret)
        idle.ask("/reports/1", app=app, POST=b"", headers=secret)
    first, second = tasks
    assert (first.priority, first.max_attempts, first.body) == ("high", 3, b"body")
    assert (first.headers.get("Cookie"), first.headers.get("Authorization")) == ("session=1", None)
    assert (second.headers.get("Cookie"), second.headers.get("Authorization")) == (None, None)
    assert b"\r\nX-Gearman-Keep-Result: 3600\r\n" in first.payload
    assert b"\r\nX-Gearman-Origin: request\r\n" in first.payload


def test_a_body_over_max_body_is_413_and_one_that_ends_too_early_400(idle: Site) -> None:
    limit = 100_000
    assert idle.ask("/reports/1", POST=b"x" * limit).status_code == 202
    too_long = idle.ask("/reports/1", POST=b"x" * (limit + 1))
    assert (too_long.status, too_long.content_type) == ("413 Content Too Large", "application/problem+json")
    assert "max_body=100000" in too_long.json["detail"]
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    for size, status in ((limit, 202), (limit + 1, 413)):
        environ = {**chunked, "CONTENT_LENGTH": "", "wsgi.input": io.BytesIO(b"x" * size)}
        assert idle.ask("/reports/1", method="POST", environ=environ).status_code == status
    assert idle.ask("/reports/1", method="POST", environ={"CONTENT_LENGTH": "9"}).status_code == 400
    assert idle.ask("/reports/1", method="POST", environ={"HTTP_TRANSFER_ENCODING": "chunked"}).status_code == 411


def test_a_full_queue_is_503_with_retry_after_and_nothing_is_queued(idle: Site) -> None:
    statuses = [idle.ask("/few", method="POST").status_code for _ in range(4)]
    assert statuses == [202, 202, 503, 503]
    assert idle.ask("/few", method="POST").headers["Retry-After"] == "5"
    assert idle.bench.server.queued("few") == 2


def test_no_202_where_nothing_takes_it_and_one_where_the_outbox_does(idle: Site, tmp_path: Any) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    app = idle.make(servers=nobody, on_unavailable="raise")
    answer = idle.ask("/reports/1", app=app, method="POST")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "Location" not in answer.headers
    kept = idle.make(servers=nobody, state_dir=tmp_path / "own")
    answer = idle.ask("/reports/1", app=kept, method="POST")
    assert answer.status_code == 202
    assert idle.ask(answer.location, app=kept).json["state"] == "queued"
    (tmp_path / "file").write_text("")
    broken = idle.make(servers=nobody, state_dir=tmp_path / "file")
    assert idle.ask("/reports/1", app=broken, method="POST").status_code == 503


def test_a_handler_defers_behind_its_own_checks(idle: Site) -> None:
    assert idle.ask("/handler?bad=1", method="POST").status_code == 422
    answer = idle.ask("http://h.example/handler", POST=b"x")
    assert (answer.status_code, answer.json["status"]) == (202, answer.location)
    assert idle.ask(answer.location).json["state"] == "queued"
    assert idle.ask("/handler?options=" + json.dumps({"prefer": True}), method="POST").status_code == 200
    with pytest.raises(InvalidTask, match="did you mean 'keep_result'"):
        idle.ask("/handler?options=" + json.dumps({"keep_results": 1}), method="POST")
    with pytest.raises(InvalidTask, match="needs a request"):
        idle.application.gearman.defer()


def test_a_handler_alone_makes_its_process_answer_status_addresses(
    idle: Site, caplog: pytest.LogCaptureFixture
) -> None:
    app = idle.make(defer=[])
    own = idle.ask("/-/tasks/" + "0" * 32, app=app)
    assert "the application's own" in own.text
    answer = idle.ask("/handler", app=app, POST=b"x")
    assert idle.ask(answer.location, app=app).json["state"] == "queued"
    assert "give status_path='/-/tasks'" in caplog.text


@pytest.mark.parametrize(
    ("defer", "text"),
    [
        ("POST /x", "defer is 'POST /x': give a list"),
        (["x"], r"defer\[0\]\['route'\] is 'x': give a method and a pattern"),
        ([{"prefer": True}], r"defer\[0\] is .* with a 'route'"),
        ([{"route": "/x", "waits": 2}], r"defer\[0\] has an unknown key 'waits', did you mean 'wait'\?"),
        ([{"route": "/x", "wait": -1}], r"defer\[0\]\['wait'\] is -1: give a number from 0"),
        ([{"route": "/x", "queue": "a b"}], "queue 'a b' can't be one"),
        ([{"route": "/x", "succeeds": [200]}], r"defer\[0\]\['succeeds'\]"),
        ([{"route": "/x", "delay": "1"}], r"defer\[0\]\['delay'\]"),
        ([{"route": "/x", "owner": "me"}], r"defer\[0\]\['owner'\] is 'me': give a callable"),
        ([{"route": "/x", "max_waiting": 0}], r"defer\[0\]\['max_waiting'\]"),
    ],
)
def test_a_rule_that_cant_work_is_told_at_the_start(defer: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        deferring.make(defer=defer)


def test_a_status_path_is_a_path_without_a_slash_at_its_end() -> None:
    for bad in ("tasks", "/tasks/", "/", "/a b", 7):
        with pytest.raises(ConfigError, match="status_path"):
            deferring.make(status_path=bad)


def test_a_path_for_tasks_only_stays_so_where_a_rule_names_it_too(idle: Site) -> None:
    app = idle.make(tasks_only=["/reports/*"])
    assert idle.ask("/reports/1", app=app, method="POST").status_code == 404

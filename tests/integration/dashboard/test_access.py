"""Who gets in, and what may be sent: by the application itself, without a server."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp

from gearwsgi.dashboard import Dashboard, on_this_machine
from gearwsgi.errors import ConfigError
from tests.dashboards import below, fill, middleware, no_application
from tests.support import free_port


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = middleware(tmp_path_factory.mktemp("state"), f"127.0.0.1:{free_port()}")
    made.ids = fill(made.settings, tasks=50, dead=3)
    yield made
    made.client.close()


def as_ada(environ: dict[str, Any]) -> str | None:
    return "ada"


def csrf_of(page: Any) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert found
    return found[1]


PATHS = ("/", "/tasks", "/dead", "/services", "/queues", "/outbox", "/task?id=x", "/letter?id=x", "/dead/ask?do=retry",
         "/static/dashboard.css", "/nowhere", "")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_without_authorize_nothing_is_answered_without_the_token(shop: Any, path: str) -> None:
    site = TestApp(Dashboard(shop))
    for address in (path, path + ("&" if "?" in path else "?") + "token=wrong"):
        answer = site.get(address, status=403)
        assert "mail.welcome" not in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    dashboard = Dashboard(shop)
    site = TestApp(below("/ops/tasks", dashboard))
    first = site.get(f"/ops/tasks/tasks?state=dead&token={dashboard.token}", status=303)
    assert first.headers["Location"] == "/ops/tasks/tasks?state=dead"
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/ops/tasks;" in cookie
    assert "secure" not in cookie.lower() and dashboard.token not in cookie
    page = site.get("/ops/tasks/tasks?state=dead", status=200)
    assert dashboard.token not in page.text and page.headers["Referrer-Policy"] == "no-referrer"
    assert dashboard.token not in caplog.text


def test_over_https_the_cookie_is_secure(shop: Any) -> None:
    dashboard = Dashboard(shop)
    answer = TestApp(dashboard, extra_environ={"wsgi.url_scheme": "https"}).get(f"/?token={dashboard.token}")
    assert "secure" in answer.headers["Set-Cookie"].lower()


def test_each_answer_has_the_headers_that_keep_a_browser_safe(shop: Any) -> None:
    site = TestApp(Dashboard(shop, as_ada))
    for path in PATHS:
        answer = site.get(path, expect_errors=True)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == ("private, max-age=3600" if ".css" in path else "no-store")


@pytest.mark.parametrize("path", ["/dead/retry", "/dead/discard"])
def test_a_form_from_elsewhere_changes_nothing(shop: Any, path: str) -> None:
    site = TestApp(Dashboard(shop, as_ada))
    own = csrf_of(site.get("/dead"))
    form = {"one": shop.ids["dead"]}
    site.post(path, form, status=403)
    site.post(path, {**form, "csrf": "0" * 64}, status=403)
    site.post(path, {**form, "csrf": own}, headers={"Sec-Fetch-Site": "cross-site"}, status=403)
    site.post(path, {**form, "csrf": own}, headers={"Sec-Fetch-Site": "same-site"}, status=403)
    other = TestApp(Dashboard(shop, as_ada))
    other.get("/dead")
    other.post(path, {**form, "csrf": own}, status=403)  # another visitor's
    site.get(path, form, status=405)
    site.post_json(path, {**form, "csrf": own}, status=415)
    site.post(path, {**form, "csrf": own, "more": "x" * 70_000}, status=413)
    assert (shop.settings.state_dir / "dead" / f"{shop.ids['dead']}.http").exists()


def test_read_only_has_no_button_and_takes_no_form(shop: Any) -> None:
    site = TestApp(Dashboard(shop, as_ada, read_only=True))
    for path in ("/", "/dead", "/queues", "/tasks", f"/task?id={shop.ids['dead']}", "/dead/ask?do=discard"):
        assert 'method="post"' not in site.get(path).text
    site.post("/dead/discard", {"one": shop.ids["dead"]}, status=403)
    assert (shop.settings.state_dir / "dead" / f"{shop.ids['dead']}.http").exists()


def test_authorize_decides_by_the_environ(shop: Any) -> None:
    site = TestApp(Dashboard(shop, lambda environ: environ.get("REMOTE_USER")))
    assert "log" in site.get("/", status=403).text
    assert ">ada<" in site.get("/", extra_environ={"REMOTE_USER": "ada"}).text


@pytest.mark.parametrize(
    ("host", "address", "is_in"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True), ("localhost:8080", "127.0.0.1", True), ("[::1]:8080", "::1", True),
        ("shop.localhost", "127.0.0.1", True), ("evil.example:8080", "127.0.0.1", False),
        ("localhost", "10.0.0.7", False), ("127.0.0.1.evil.example", "127.0.0.1", False), ("", "127.0.0.1", False),
    ],
)  # fmt: skip
def test_on_this_machine_is_who_comes_from_it_by_its_own_name(host: str, address: str, is_in: bool) -> None:
    assert (on_this_machine({"HTTP_HOST": host, "REMOTE_ADDR": address}) is not None) == is_in


def test_what_is_no_middleware_is_an_error_that_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match="GearmanMiddleware"):
        Dashboard(no_application)


def test_a_trace_address_without_a_place_for_the_id_is_an_error(shop: Any) -> None:
    with pytest.raises(ConfigError, match="trace_id"):
        Dashboard(shop, trace_url="javascript:alert(1)")


def test_hostile_addresses_are_answered_and_never_a_trace(shop: Any) -> None:
    site = TestApp(Dashboard(shop, as_ada))
    for query in ("?state=x", "?since=1y", "?after=nan", "?after=x", "?service=" + "x" * 600, "?reason=%ff", "?span=x"):
        path = "/" if "span" in query else "/tasks"
        answer = site.get(path + query, status=400)
        assert "Traceback" not in answer.text
    for query in ("?id=%00", "?reason=%25", "?service=%27%3B--", "?id=%F4%8F%BF%BF", "?reason=%5C"):
        site.get("/tasks" + query, status=200)
    site.get("/task?id=", status=404)


def test_the_request_of_a_task_in_the_outbox_is_shown(shop: Any) -> None:
    page = TestApp(Dashboard(shop, as_ada)).get(f"/task?id={shop.ids['queued']}")
    assert "POST http://localhost/search/index HTTP/1.1" in page.text and ">pytest<" not in page.text


def test_who_did_what_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = middleware(tmp_path / "state", f"127.0.0.1:{free_port()}")
    ids = fill(shop.settings, tasks=10, dead=4)
    site = TestApp(Dashboard(shop, lambda environ: "ada\nroot"))
    caplog.set_level(logging.INFO, "gearwsgi")
    own = csrf_of(site.get("/dead"))
    site.post("/dead/discard", {"one": ids["dead"], "csrf": own}, status=303)
    assert f"dashboard: ada\\nroot discarded dead letter {ids['dead']}" in caplog.text
    asked = site.get("/dead/ask?do=discard&service=mail.welcome")
    number = re.search(r"Discard (\d+) dead letter", asked.text)
    assert number
    done = asked.form.submit().follow()
    assert f"{number[1]} discarded" in done.text
    s = "s" if number[1] != "1" else ""
    assert f"dashboard: ada\\nroot discarded {number[1]} dead letter{s} of mail.welcome" in caplog.text
    shop.client.close()

"""What `task()` takes and sends, beside what a message is."""

import dataclasses
import io
import json
import sys
import time
import types
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.message.reading import read
from gearwsgi.submit.frameworks import known_base_url, known_login_urls
from gearwsgi.testing import capture

Environ = dict[str, Any]


@dataclasses.dataclass
class Address:
    street: str
    since: date


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


def answering(status: str, location: str = "") -> Callable[..., Iterable[bytes]]:
    """An application whose requests are replayed, and whose jobs are answered so."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "gearwsgi.job" in environ:
            start_response(status, [("Location", location)] if location else [])
        else:
            environ["gearman"].replay()
            start_response("200 OK", [])
        return [b"done"]

    return app


def fate_of_replay(status: str, location: str = "", *, mount: str = "", **settings: Any) -> str:
    """done, retry or dead: what becomes of a replayed request."""
    application = GearmanMiddleware(answering(status, location), "127.0.0.1:1", **settings)
    request = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/form", "SCRIPT_NAME": mount, "HTTP_HOST": "h.example",
        "wsgi.input": io.BytesIO(),
    }  # fmt: skip
    with capture(application) as tasks:
        list(application(request, lambda status, headers, exc_info=None: None))
        return tasks.run(raises=False)[0].fate


def fate_of_task(status: str, settings: dict[str, Any], **given: Any) -> str:
    application = GearmanMiddleware(answering(status, "/thanks"), "127.0.0.1:1", **settings)
    with capture(application) as tasks:
        application.gearman.task("form.save", **given)
        return tasks.run(raises=False)[0].fate


@pytest.mark.parametrize(
    ("status", "location", "fate"),
    [
        ("303 See Other", "/thanks", "done"),
        ("303 See Other", "/login", "done"),
        ("302 Found", "/thanks", "done"),
        ("302 Found", "https://h.example/thanks?a=login", "done"),
        ("302 Found", "", "done"),
        ("302 Found", "/login", "dead"),
        ("302 Found", "/accounts/login/?next=/form", "dead"),
        ("302 Found", "https://sso.example.com/login?next=x", "dead"),
        ("301 Moved Permanently", "/thanks", "dead"),
        ("307 Temporary Redirect", "/thanks", "dead"),
        ("404 Not Found", "", "dead"),
        ("503 Service Unavailable", "", "retry"),
    ],
)
def test_a_replayed_form_that_redirects_is_done_unless_to_a_login(status: str, location: str, fate: str) -> None:
    assert fate_of_replay(status, location) == fate


@pytest.mark.parametrize(
    ("pages", "location"),
    [
        (["/enter"], "/enter?next=/form"),
        (["/enter"], "/enter/"),
        (["/enter"], "http://h.example/m/enter"),
        (["/enter*"], "/enter/here"),
        (["https://sso.example.com/*"], "https://sso.example.com/x/y?z"),
    ],
)
def test_a_login_page_that_is_named_is_known_in_every_spelling(pages: list[str], location: str) -> None:
    assert fate_of_replay("302 Found", location, mount="/m", login_urls=pages) == "dead"
    assert fate_of_replay("302 Found", "/thanks", mount="/m", login_urls=pages) == "done"


def test_a_redirect_is_success_for_a_task_only_where_it_or_its_alias_says_so() -> None:
    alias = {"tasks": {"form.save": {"target": "/form", "succeeds": [302, 303]}}}
    assert fate_of_task("303 See Other", {}) == "dead"
    assert fate_of_task("303 See Other", {}, succeeds=(302, 303)) == "done"
    assert fate_of_task("302 Found", alias) == "done"
    assert fate_of_task("303 See Other", alias, succeeds=[409]) == "dead"
    assert fate_of_task("409 Conflict", {}, succeeds=[409]) == "done"


@pytest.mark.parametrize("succeeds", [[200], [700], ["302"], [True], 302, "302", [302.0]])
def test_what_is_no_list_of_statuses_is_refused_at_the_call_and_in_an_alias(succeeds: Any) -> None:
    with pytest.raises(ConfigError, match="succeeds"):
        GearmanMiddleware(app, "127.0.0.1:1", tasks={"a": {"target": "/a", "succeeds": succeeds}})
    with pytest.raises(InvalidTask, match="succeeds"):
        GearmanMiddleware(app, "127.0.0.1:1").gearman.task("a.b", succeeds=succeeds)


def test_login_pages_and_hosts_that_django_knows_need_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    django: Any = types.ModuleType("django.conf")
    django.settings = types.SimpleNamespace(
        configured=True, LOGIN_URL="/enter/", ALLOWED_HOSTS=["*", ".example", "shop.example"], SECURE_SSL_REDIRECT=True,
        FORCE_SCRIPT_NAME="/m/", DEBUG=False,
    )  # fmt: skip
    assert known_base_url() == ("http", "localhost", "")
    monkeypatch.setitem(sys.modules, "django.conf", django)
    monkeypatch.delitem(sys.modules, "django.shortcuts", raising=False)
    assert known_base_url() == ("https", "shop.example", "/m")
    assert list(known_login_urls(app)) == ["/enter/"]


def test_a_login_view_of_flask_login_is_known_by_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask_login", types.ModuleType("flask_login"))
    inner = Flask("shop")
    inner.add_url_rule("/<language>/enter", "auth.enter", lambda language: "")
    login: Any = types.SimpleNamespace(login_view="auth.enter", blueprint_login_views={"admin": "/door"})
    inner.login_manager = login  # type: ignore[attr-defined]
    assert list(known_login_urls(inner)) == ["/*/enter", "/door"]


def test_data_takes_dates_uuids_decimals_and_dataclasses() -> None:
    number = UUID(int=5)
    data = {
        "at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "on": date(2026, 1, 2), "time": clock_time(3, 4), "id": number,
        "price": Decimal("1.10"), "to": [Address("Main", date(2020, 1, 1))],
    }  # fmt: skip
    expected = {
        "at": "2026-01-02T03:04:00+00:00", "on": "2026-01-02", "time": "03:04:00", "id": str(number), "price": "1.10",
        "to": [{"street": "Main", "since": "2020-01-01"}],
    }  # fmt: skip
    application = GearmanMiddleware(app, "127.0.0.1:1")
    with capture(application) as tasks:
        application.gearman.task("a.b", data)
        application.gearman.task("GET /a", Address("Main", date(2020, 1, 1)))
        application.gearman.task("a.b", Address("Main", date(2020, 1, 1)))
        application.gearman.task("a.b", Address("Main", date(2020, 1, 1)), plain=True)
    assert json.loads(tasks[0].body) == expected
    assert tasks[1].path == "/a?street=Main&since=2020-01-01"
    assert json.loads(tasks[2].body) == {"street": "Main", "since": "2020-01-01"}
    assert json.loads(tasks[3].payload) == {"street": "Main", "since": "2020-01-01", "service": "a.b"}


@pytest.mark.parametrize("data", [object(), {1, 2}, Address, b"bytes", {"a": object()}])
def test_data_that_json_has_no_form_for_is_refused(data: Any) -> None:
    with pytest.raises(InvalidTask, match="JSON"):
        GearmanMiddleware(app, "127.0.0.1:1").gearman.task("a.b", data)


def test_a_delay_may_be_a_timedelta_of_no_negative_length() -> None:
    application = GearmanMiddleware(app, "127.0.0.1:1")
    with capture(application) as tasks:
        application.gearman.task("a.b", delay=timedelta(minutes=2))
        with pytest.raises(InvalidTask, match="timedelta"):
            application.gearman.task("a.b", delay=timedelta(seconds=-1))
    assert tasks[0].delay == pytest.approx(120, abs=1)


def test_when_a_task_was_queued_travels_and_a_retry_keeps_it() -> None:
    application = GearmanMiddleware(answering("503 Service Unavailable"), "127.0.0.1:1")
    with capture(application) as tasks:
        before = round(time.time(), 3)
        application.gearman.task("a.b")
        first = read(tasks[0].payload).queued
        assert before <= first <= round(time.time(), 3)
        tasks.run(raises=False)
        assert read(tasks.waiting[0].payload).queued == first
        assert read(tasks.waiting[0].payload).attempt == 2


@pytest.mark.parametrize(
    ("url", "begins"),
    [
        ("https://shop.example.com/mount", "https://shop.example.com/mount/a/b"),
        ("https://shop.example.com/mount/", "https://shop.example.com/mount/a/b"),
        ("HTTP://shop.example.com:8080", "http://shop.example.com:8080/a/b"),
        (None, "http://localhost/a/b"),
    ],
)
def test_what_is_queued_without_a_request_has_the_base_url(url: str | None, begins: str) -> None:
    application = GearmanMiddleware(app, "127.0.0.1:1", base_url=url)
    with capture(application) as tasks:
        application.gearman.task("a.b")
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "/m", "HTTP_HOST": "other.example"}
        application(request, lambda status, headers, exc_info=None: None)
        request["gearman"].task("a.b")
    assert read(tasks[0].payload).url == begins
    assert read(tasks[1].payload).url == "http://other.example/m/a/b"


@pytest.mark.parametrize(
    "url", ["shop.example.com", "ftp://a", "https://", "https://a b", "https://a/?x", "https://u@a", 5]
)
def test_a_base_url_that_can_begin_no_url_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        GearmanMiddleware(app, "127.0.0.1:1", base_url=url)

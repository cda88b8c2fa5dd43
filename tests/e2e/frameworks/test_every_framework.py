"""The same promises for each framework: a small application as its tutorial writes it, a real server, a real worker."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.frameworks.apps.notes import PHOTO
from tests.e2e.frameworks.conftest import HOST, MOUNT, framework_site
from tests.serving import Answer, Site

APPS = {
    "flask": "flask_app:app",
    "django": "mysite.wsgi:application",
    "pyramid": "pyramid_app:application",
    "bottle": "bottle_app:application",
    "falcon": "falcon_app:application",
    "cherrypy": "cherrypy_app:application",
    "webob": "webob_app:application",
}

GOT = {
    "json": {"name": "Zoë", "n": [1, 2.5, None, True]},
    "form": {"name": "Zoë & Co", "tags": ["a", "b"]},
    "raw": [b"\x00\xff{raw}\r\n\r\n".hex(), "application/x-thing"],
    "query": {"name": "Zoë & Co", "tags": ["a", "b"]},
    "upload": ["Zoë", "été.png", "image/png", PHOTO.hex()],
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in APPS])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with framework_site(APPS[request.param]) as made:
        yield made


@pytest.fixture(autouse=True)
def afresh(site: Site) -> None:
    site.forget()


def get(site: Site, path: str, **headers: str) -> Answer:
    answer = site.web.get(MOUNT + path, Host=HOST, **headers)
    assert answer.status == 200, (answer, site.web.log)
    return answer


def record(site: Site) -> dict[str, Any]:
    """The one thing that was recorded."""
    (found,) = site.records(1)
    return dict(found)


@pytest.mark.parametrize("kind", GOT)
def test_what_was_given_arrives_as_the_frameworks_own_object(site: Site, kind: str) -> None:
    assert get(site, f"/queue/{kind}").text.startswith("H:")
    found = record(site)
    assert (found["kind"], found["got"]) == (kind, GOT[kind])
    assert found["service"] == ("testTask" if kind == "json" else f"/receive/{kind}")
    assert found["attempt"] == 1


def test_urls_client_language_and_session_are_the_original_requests(site: Site) -> None:
    cookie = (get(site, "/login").header("Set-Cookie") or "").partition(";")[0]
    get(site, "/queue/json", **{"Cookie": cookie, "Accept-Language": "de"})
    found = record(site)
    assert found["url"] == f"https://{HOST}{MOUNT}/hello/x"
    assert found["client"] == "127.0.0.1"
    assert found["language"] == "de"
    assert found["user"] == "alice"


def test_long_work_goes_on_from_its_cursor_and_uses_up_no_attempt(site: Site) -> None:
    site.bench.app(base_url=f"https://{HOST}{MOUNT}").gearman.task("/long")
    found = record(site)
    assert (found["got"], found["attempt"]) == ({"half": 2}, 1)
    assert "continues, id " in site.worker.log


def test_the_request_in_hand_is_replayed(site: Site) -> None:
    token = site.web.get(f"{MOUNT}/token", Host=HOST)  # Django alone has one
    headers = {"Host": HOST, "Cookie": (token.header("Set-Cookie") or "").partition(";")[0]}
    headers |= {"X-CSRFToken": token.text, "Referer": f"https://{HOST}/"} if token.status == 200 else {}
    assert site.web.post(f"{MOUNT}/defer?page=7", {"name": "Zoë"}, **headers).status == 202
    found = record(site)
    assert (found["kind"], found["got"]) == ("defer", ["Zoë", "7"])
    assert found["url"] == f"https://{HOST}{MOUNT}/hello/x"


def test_a_task_after_the_response_reaches_a_page_that_the_public_does_not(site: Site) -> None:
    for spelling in ("/tasks/clean", "/tasks//clean", "/./tasks/clean", "/%74asks/clean", "/x/../tasks/clean"):
        answer = site.web.send("POST", MOUNT + spelling, [("Host", HOST), ("X-Gearman-Task", "1")], b"{}")
        assert (answer.status, answer.text) == (404, "404 Not Found\n"), spelling
    assert get(site, "/later").text == "later"
    assert record(site)["got"] == {"n": 1}


def test_a_call_answers_with_the_frameworks_response(site: Site) -> None:
    assert get(site, "/call").text == "Hello Zoë"


def test_a_handler_that_raises_is_tried_again(site: Site) -> None:
    get(site, "/fail")
    assert record(site)["attempt"] == 2
    assert "attempt 2 of 5" in site.worker.log

"""Flask's own: the extension, Flask-WTF's check, factories, and what is queued outside of a request."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.frameworks.conftest import HOST, MOUNT, framework_site
from tests.serving import Answer, Site

pytestmark = pytest.mark.xdist_group("flask")


@pytest.fixture(scope="module", params=["", "1"], ids=["ours first", "Flask-WTF first"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with framework_site("flask_ext:app", CSRF_FIRST=request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def afresh(request: pytest.FixtureRequest) -> None:
    if "site" in request.fixturenames:
        request.getfixturevalue("site").forget()


def post(site: Site, path: str, *, token: bool = True, **headers: str) -> Answer:
    form = {"name": "Zoë"}
    headers["Host"] = HOST
    if token:
        page = site.web.get(f"{MOUNT}/form", Host=HOST)
        headers |= {"Cookie": (page.header("Set-Cookie") or "").partition(";")[0], "Referer": f"https://{HOST}/"}
        form["csrf_token"] = page.text
    return site.web.post(MOUNT + path, form, **headers)


def test_a_form_with_its_token_queues_one_that_needs_none(site: Site) -> None:
    answer = post(site, "/submit")
    assert (answer.status, answer.text) == (200, "queued")
    (found,) = site.records(1)
    assert (found["got"], found["url"]) == ("Zoë", f"https://{HOST}{MOUNT}/submit")


def test_a_public_post_without_a_token_is_refused_after_replays_as_before(site: Site) -> None:
    assert post(site, "/submit").text == "queued"
    assert len(site.records(1)) == 1
    forged = {"X-Gearman-Task": "1", "Idempotency-Key": "1", "gearwsgi.job": "1"}
    assert post(site, "/submit", token=False).status == 400
    assert post(site, "/submit", token=False, **forged).status == 400
    assert len(site.bench.lines()) == 1


def test_long_work_goes_on_without_an_error_in_the_log_and_a_call_is_told(site: Site) -> None:
    gearman = site.bench.app().gearman
    gearman.task("/long", headers={"Host": HOST})
    assert site.records(1)[0]["got"] == {"half": 2}
    assert "Traceback" not in site.worker.log
    assert gearman.call("/long", headers={"Host": HOST}).status_code == 500


def test_the_same_worker_process_refuses_what_is_no_replay(site: Site) -> None:
    """What lets replays pass is no switch that stays on: a forged field in a job changes nothing either."""
    gearman = site.bench.app().gearman
    answer = gearman.call("/submit", form={"name": "x"}, headers={"Host": HOST})
    assert answer.status_code == 200
    assert post(site, "/defer", token=False).status == 400


@pytest.mark.parametrize("query", ["", "?first=1"], ids=["after the form was read", "before"])
def test_the_request_in_hand_is_replayed_whole(site: Site, query: str) -> None:
    answer = post(site, "/defer" + query)
    assert (answer.status, answer.text) == (202, "Zoë")
    (found,) = site.records(1)
    assert found["got"] == "Zoë"


def test_a_form_that_redirects_is_done_and_one_that_flask_login_sends_to_its_view_is_dead(site: Site) -> None:
    assert post(site, "/sign/members").status == 202
    assert post(site, "/sign").status == 202
    site.worker.wait_for("result 302 FOUND from /sign")
    (found,) = site.records(1)
    assert found["got"] == "Zoë"
    (letter,) = json.loads(site.bench.run("dead", "list", "--json").stdout)
    assert "302 FOUND from POST /sign/members" in letter["reason"]
    assert f"{MOUNT}/door?next=" in letter["reason"] and "login" in letter["reason"]


def test_a_call_through_the_extension(site: Site) -> None:
    assert site.web.get(f"{MOUNT}/call/abc", Host=HOST).text == "ABC"


def test_a_command_queues_a_task_whose_urls_are_as_configured(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "flask_ext", "remind"],
        cwd=site.bench.folder,
        env={**os.environ, **site.env, "OUTSIDE_NAME": HOST},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("H:"), done.stderr
    (found,) = site.records(1)
    assert (found["got"], found["url"]) == ("from a command", f"https://{HOST}/submit")


# -- the extension alone -----------------------------------------------------------------------------------------------

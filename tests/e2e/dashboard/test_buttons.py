"""Each button of the dashboard, pressed in a real browser; what it did is looked up where it counts."""

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gearwsgi.state.dead import DeadLetters
from gearwsgi.state.records.steering import PAUSE_ENTRY
from tests.dashboards import TRACEPARENT, beat, bury, fail, make_row, open_store, put
from tests.e2e.dashboard.conftest import Place
from tests.support import until


def dead_ids(place: Place) -> set[str]:
    return {entry.id for entry in DeadLetters(place.shop.settings).entries()}


def state_of(place: Place, task_id: str) -> str:
    with open_store(place.shop.settings) as store:
        return store.find(task_id).state


def test_run_again_queues_a_dead_task_and_is_in_its_story(place: Place, open_page: Callable[..., Any]) -> None:
    page, task_id = open_page(), place.ids["dead"]
    page.goto(f"{place.url}/task?id={task_id}")
    before = place.server.queued("mail")
    page.get_by_role("button", name="Run again").click()
    page.locator(".head .state.queued").wait_for()
    assert place.server.queued("mail") == before + 1
    assert task_id not in dead_ids(place) and state_of(place, task_id) == "queued"
    assert "retried" in page.locator(".story").inner_text() and "by ada" in page.locator(".story").inner_text()
    assert page.get_by_role("button", name="Run again").count() == 0


def test_dead_letters_are_retried_and_discarded_one_by_one_by_group_and_all(
    make_place: Callable[..., Place], open_page: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    place = make_place(tasks=20, dead=20)
    page = open_page()
    page.goto(place.url + "/dead")
    rows = page.locator("section[aria-labelledby=single] tbody tr")
    assert rows.count() == 21
    first = rows.first.get_attribute("data-key")
    rows.first.get_by_role("button", name="Retry").click()
    page.wait_for_url(f"**/task?id={first}")
    assert first not in dead_ids(place)

    page.goto(place.url + "/dead")
    group = page.locator("section[aria-labelledby=groups] tbody tr").first
    number = int(group.locator("td").first.inner_text())
    service = group.locator("th").inner_text()
    group.get_by_role("link", name="Discard…").click()
    assert page.locator("h1").inner_text() == f"Discard {number} dead letter{'s' * (number != 1)}?"
    before = len(dead_ids(place))
    page.get_by_role("button", name=f"Discard {number}").click()
    page.locator(".said").wait_for()
    assert page.locator(".said").inner_text() == f"{number} discarded."
    assert len(dead_ids(place)) == before - number
    assert f"dashboard: ada discarded {number} dead letter{'s' * (number != 1)} of {service}" in caplog.text

    page.goto(place.url + "/dead")
    page.get_by_role("link", name="Retry all…").click()
    with open_store(place.shop.settings) as store:  # one that dies while somebody reads the question is not meant
        late = fail(make_row(random.Random(3), time.time(), 0), "too late")
        put(store, [late])
    bury(place.shop.settings, late)
    left = before - number
    page.get_by_role("button", name=f"Retry {left}").click()
    page.locator(".said").wait_for()
    assert dead_ids(place) == {late.id}
    assert f"dashboard: ada retried {left} dead letters" in caplog.text
    page.goto(place.url + "/dead?id=" + late.id)
    page.get_by_role("link", name="Discard these…").click()
    page.get_by_role("link", name="Back").click()
    assert dead_ids(place) == {late.id}


def test_a_request_is_downloaded_as_http_curl_and_test_without_its_secrets(
    place: Place, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    with open_store(place.shop.settings) as store:
        row = fail(make_row(random.Random(4), time.time() - 9, 0, traceparent=TRACEPARENT), "no")
        put(store, [row])
    headers = (("Cookie", "session=s3cr3t"), ("Authorization", "Bearer s3cr3t"), ("X-Note", "kept"))
    bury(place.shop.settings, row, headers=headers)
    page = open_page()
    page.goto(f"{place.url}/task?id={row.id}")
    assert "s3cr3t" not in page.content() and "X-Note: kept" in page.locator("main").inner_text()
    for name, beginning in ((".http", "POST https://"), ("curl", "curl --include"), ("pytest", '"""A task that died')):
        with page.expect_download() as loading:
            page.get_by_role("link", name=name, exact=True).click()
        text = Path(loading.value.path()).read_text()
        assert text.startswith(beginning) and "s3cr3t" not in text and "kept" in text
        assert re.fullmatch(r"(test_)?dead[-_]\w{12}\.(http|sh|py)", loading.value.suggested_filename)


def test_a_queue_is_paused_for_a_while_and_resumed(place: Place, open_page: Callable[..., Any]) -> None:
    with open_store(place.shop.settings) as store:
        beat(store, time.time())
    page = open_page()
    page.goto(place.url + "/queues")
    row = page.locator("tr", has=page.get_by_role("link", name="images"))
    row.get_by_label("Pause images for").select_option("for 1h")
    row.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert "paused" in row.inner_text() and "by ada" in row.inner_text()
    with open_store(place.shop.settings) as store:
        (pause,) = store.steering.pauses()
        assert pause.name == "images" and pause.until is not None and 3500 < pause.until - time.time() <= 3600
    page.goto(place.url + "/")
    assert "The queue images is paused" in page.locator(".notes").inner_text()
    page.goto(place.url + "/queues")
    page.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Pause").wait_for()
    with open_store(place.shop.settings) as store:
        assert not store.steering.pauses()


def test_a_task_that_waits_is_cancelled_and_says_by_whom(place: Place, open_page: Callable[..., Any]) -> None:
    page, task_id = open_page(), place.ids["scheduled"]
    page.goto(f"{place.url}/task?id={task_id}")
    page.get_by_role("button", name="Cancel").click()
    until(lambda: state_of(place, task_id) == "cancelled")
    page.locator(".story .cancelled").wait_for()
    assert "by ada" in page.locator(".story").inner_text()
    assert page.get_by_role("button", name="Cancel").count() == 0


def test_an_entry_of_the_schedule_is_run_now_paused_and_resumed(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(place.url + "/schedules")
    row = page.locator("tbody tr").nth(1)
    assert "sweep <old>" in row.inner_text() and "*/5 * * * *" in row.inner_text()
    before = place.server.queued("slow")
    row.get_by_role("button", name="Run now").click()
    page.wait_for_url("**/task?id=*")
    assert place.server.queued("slow") == before + 1
    page.goto(place.url + "/schedules")
    row.get_by_role("button", name="Pause").click()
    row.locator(".tag.warn").wait_for()
    with open_store(place.shop.settings) as store:
        (pause,) = store.steering.pauses(PAUSE_ENTRY)
    assert (pause.name, pause.about) == ("sweep <old>", "ada")
    row.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Pause").wait_for()
    assert not page.problems

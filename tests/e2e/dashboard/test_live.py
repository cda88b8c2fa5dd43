"""What refreshes itself: only what has changed, and only while somebody looks."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.dashboards import make_row, open_store, put
from tests.e2e.dashboard.conftest import Place
from tests.support import until

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_new_tasks_appear_while_what_is_selected_stays(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(place.url + "/tasks")
    page.evaluate("""() => {
        const row = document.querySelector("tbody tr:nth-child(3)");
        row.dataset.mark = "mine";
        document.querySelector("[name=reason]").value = "typed";
        getSelection().selectAllChildren(row.querySelector("th"));
        window.row = row;
    }""")
    selected = page.evaluate("getSelection().toString()")
    new = make_row(random.Random(11), time.time() + 1, 3)
    with open_store(place.shop.settings) as store:
        put(store, [new])
    page.locator(f'[data-key="{new.id}"]').wait_for()
    assert page.evaluate("window.row.isConnected && window.row.rowIndex") == 4
    assert page.evaluate("getSelection().toString()") == selected != ""
    assert page.evaluate("document.querySelector('[name=reason]').value") == "typed"
    assert not page.problems


def test_progress_moves_and_what_was_opened_stays_open(place: Place, open_page: Callable[..., Any]) -> None:
    page, task_id = open_page(), place.ids["retrying"]
    page.goto(f"{place.url}/task?id={task_id}")
    with open_store(place.shop.settings) as store:
        record = store.find(task_id)
        assert record.queued is not None
        row = make_row(random.Random(1), record.queued.timestamp() + 1, 5, id=task_id)
        runs = replace(row, state="running", attempts=3, done=3, total=9, place=4 * 3 + 1, ended=None, status=None)
        put(store, [runs])
        page.locator("progress[value='3']").wait_for()
        put(store, [replace(runs, done=8)])
        page.locator("progress[value='8']").wait_for()
        put(store, [replace(row, attempts=3, place=4 * 3 + 2)])
        page.locator(".head .state.done").wait_for()
    assert page.locator("progress").count() == 0


def test_it_stops_while_the_tab_is_hidden_and_goes_on_after(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.resource_type == "fetch" else None)
    page.goto(place.url + "/queues")
    until(lambda: page.wait_for_timeout(50) or asked)
    page.evaluate(HIDE, True)
    page.wait_for_timeout(300)  # one may be on its way
    asked.clear()
    page.wait_for_timeout(5000)  # two and a half times its pause
    assert not asked
    page.evaluate(HIDE, False)
    until(lambda: page.wait_for_timeout(50) or asked)


def test_it_says_when_the_dashboard_does_not_answer(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(place.url + "/queues")
    page.route("**/queues", lambda route: route.abort())
    page.get_by_text("no answer, trying again").wait_for()
    page.unroute("**/queues")
    until(lambda: page.wait_for_timeout(50) or not page.locator("#live").inner_text())
    page.route("**/queues", lambda route: route.fulfill(status=403, body="closed"))
    page.get_by_text("load this page anew").wait_for()

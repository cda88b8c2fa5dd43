"""The dashboard's pages in a real browser: what they show, on any screen, to anybody, with and without a script."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from gearwsgi.dashboard.pages.routes import PAGES
from tests.dashboards import beat, open_store
from tests.e2e.dashboard.conftest import Place, pages

TITLES = [page.title for page in PAGES if page.title]
ADDRESSES = """found => found.map(each =>
    each.getAttribute("href") || each.getAttribute("action") || each.getAttribute("src") || "#")"""
PHONE = {"viewport": {"width": 390, "height": 844}}


def test_each_page_shows_its_title_and_breaks_no_policy(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    for name, path in pages(place.ids).items():
        answer = page.goto(place.url + path)
        assert answer.status == 200, name
        assert page.locator("h1").count() == 1, name
        assert page.locator("header nav a").count() == len(TITLES)
    assert not page.problems


def test_the_overview_says_what_needs_attention_first(place: Place, open_page: Callable[..., Any]) -> None:
    with open_store(place.shop.settings) as store:
        beat(store, time.time())
    page = open_page()
    page.goto(place.url + "/")
    notes = page.locator(".notes li").all_inner_texts()
    assert notes[0].startswith("Supervisor web3:900 has not been heard of for")
    assert any("died in the last hour" in note for note in notes)
    assert any("The outbox has grown by 1" in note for note in notes)
    assert page.locator(".chart svg").count() == 2
    assert "web1:4100" in page.locator("main").inner_text()
    page.get_by_role("link", name="day", exact=True).click()
    page.wait_for_url("**/?span=day")
    assert "24 h ago" in page.locator("figcaption").inner_text()


def test_tasks_are_found_by_each_filter_and_page_by_page(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(place.url + "/tasks")
    assert page.locator("tbody tr").count() == 50
    first = page.locator("tbody tr").first.get_attribute("data-key")
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**after=**")
    assert first not in page.eval_on_selector_all("tbody tr", "rows => rows.map(row => row.dataset.key)")
    page.get_by_role("link", name="Newest").click()
    page.get_by_label("State").select_option("retrying")
    page.get_by_label("Service").fill("webhook.deliver")
    page.get_by_label("Queue", exact=True).fill("job")
    page.get_by_label("Queued within").select_option("1h")
    page.get_by_label("Id begins with").fill(place.ids["retrying"][:6])
    page.get_by_label("Reason has").fill("bad GATEWAY")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**state=retrying**")
    assert page.locator("tbody tr").count() == 1
    page.get_by_label("Reason has").fill("100%")
    page.keyboard.press("Enter")
    page.wait_for_url("**reason=100%25**")
    assert "match" in page.locator(".empty").inner_text()


def test_a_tasks_page_tells_its_story_with_tracebacks_folded(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"{place.url}/task?id={place.ids['dead']}")
    story = page.locator(".story")
    assert story.locator("li").count() == 6
    assert not page.get_by_text("smtplib.SMTP(").first.is_visible()
    page.locator("summary").first.click()
    assert page.get_by_text("smtplib.SMTP(").first.is_visible()
    assert "POST https://shop.example.com/mail/welcome HTTP/1.1" in page.locator("pre").all_inner_texts()[-2]
    page.goto(f"{place.url}/task?id={place.ids['done']}")
    result = page.locator("pre").inner_text()
    assert '{"sent": 1}' in result and "Set-Cookie: [redacted]" in result
    page.goto(f"{place.url}/task?id={place.ids['running'][:12]}")
    assert page.locator("progress").get_attribute("value") == "17"


def test_a_trace_is_linked_where_its_address_is_known(
    make_place: Callable[..., Place], open_page: Callable[..., Any]
) -> None:
    place = make_place(trace_url="https://traces.example/trace/{trace_id}", tasks=10, dead=2)
    page = open_page()
    page.goto(f"{place.url}/task?id={place.ids['dead']}")
    link = page.get_by_role("link", name="00-4bf92f3577b34da6a3ce929d0e0e4736")
    assert link.get_attribute("href") == "https://traces.example/trace/4bf92f3577b34da6a3ce929d0e0e4736"


def test_times_are_in_the_readers_zone(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page(timezone_id="Asia/Tokyo", locale="en-GB")
    page.goto(place.url + "/tasks")
    page.locator("time[title*='GMT+9']").first.wait_for()
    assert "ago" in page.locator("time").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(place: Place, open_page: Callable[..., Any], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme)
    axe = Axe()
    found = []
    for name, path in pages(place.ids).items():
        page.goto(place.url + path)
        for each in axe.run(page).response["violations"]:
            if each["impact"] in ("serious", "critical"):
                found.append((name, each["id"], [node["html"][:200] for node in each["nodes"][:3]]))
    assert not found


def test_dark_follows_the_system(place: Place, open_page: Callable[..., Any]) -> None:
    for scheme, is_dark in (("light", False), ("dark", True)):
        page = open_page(color_scheme=scheme)
        page.goto(place.url + "/")
        red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
        assert (red < 60) == is_dark


def test_nothing_is_wider_than_a_phone_and_the_link_of_this_page_is_in_sight(
    place: Place, open_page: Callable[..., Any]
) -> None:
    page = open_page(**PHONE)
    for name, path in pages(place.ids).items():
        page.goto(place.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        right = "document.querySelector('nav [aria-current]')?.getBoundingClientRect().right ?? 0"
        assert int(page.evaluate(right)) <= 390, name  # a browser scrolls by whole pixels


def test_all_of_it_is_reached_by_keyboard_with_a_focus_that_is_seen(
    place: Place, open_page: Callable[..., Any]
) -> None:
    page = open_page()
    page.goto(place.url + "/dead")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "(e => [e.textContent.trim() || e.name, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        assert style[1] != "none", style
        seen.append(style[0])
    assert "Retry all…" in seen and "service" in seen and "Filter" in seen and "Retry" in seen


def test_without_a_script_all_is_shown_and_done(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page(java_script_enabled=False)
    for name, path in pages(place.ids).items():
        assert page.goto(place.url + path).status == 200, name
    page.goto(place.url + "/tasks")
    assert "ago" in page.locator("time").first.inner_text()
    page.goto(place.url + "/dead")
    before = page.locator("#single ~ .scroll tbody tr").count()
    one = page.locator("#single ~ .scroll tbody tr").first
    one.get_by_role("link", name="Discard…").click()
    page.get_by_role("button", name="Discard 1").click()
    assert "1 discarded" in page.locator(".said").inner_text()
    assert page.locator("#single ~ .scroll tbody tr").count() == before - 1


def test_below_a_prefix_every_address_leads_there(
    make_place: Callable[..., Place], open_page: Callable[..., Any]
) -> None:
    place = make_place("/admin/täsks", tasks=60, dead=3)
    page = open_page()
    for name, path in pages(place.ids).items():
        answer = page.goto(place.url + path)
        assert answer.status == 200, name
        for where in page.eval_on_selector_all("a, form, link, script", ADDRESSES):
            assert where.startswith(("#", "/admin/t%C3%A4sks/")), where
    assert not page.problems
    page.goto(place.url)
    page.wait_for_url("**/admin/t%C3%A4sks/")


def test_without_records_it_says_what_to_set(make_place: Callable[..., Place], open_page: Callable[..., Any]) -> None:
    place = make_place(records="")
    page = open_page()
    for path in ("/", "/tasks", "/dead", "/services", "/queues"):
        page.goto(place.url + path)
        assert "records='sqlite'" in page.locator("main").inner_text(), path
    assert page.locator("button", has_text="Pause").count() == 0


def test_what_is_not_there_says_so_and_what_to_do(place: Place, open_page: Callable[..., Any]) -> None:
    page = open_page()
    for path, status in (("/task?id=" + "f" * 32, 404), ("/nowhere", 404), ("/tasks?since=1y", 400)):
        assert page.goto(place.url + path).status == status
        assert page.get_by_role("link", name="Overview").is_visible()

"""The demo's report and the status page in a browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import browser
from tests.serving import Site
from tests.support import ROOT, bench

playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def demo() -> Iterator[Site]:
    browser.require()
    with bench("embedded") as made:
        site = Site(made, "demo_app:application", {"PYTHONPATH": str(ROOT)})
        yield site
        site.close()


def test_a_report_in_a_browser_with_events_and_without_javascript(demo: Site, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with playwright.sync_playwright() as started, browser.chromium(started) as chromium:
        page = chromium.new_page()
        page.goto(f"http://{demo.web.host}/")
        page.click("a[href=report]")
        page.click("button")
        page.wait_for_function("document.getElementById('bar').value > 2")
        page.screenshot(path=pictures / "report.png")
        page.wait_for_function("document.getElementById('result').textContent.includes('line 20: 400')")
        assert page.text_content("#state") == "done"
        plain = chromium.new_context(java_script_enabled=False, color_scheme="dark").new_page()
        refused: list[str] = []
        plain.on("console", lambda message: refused.append(message.text))
        plain.goto(f"http://{demo.web.host}/report")
        plain.click("button")
        plain.wait_for_selector("h1:has-text('In progress')", timeout=60_000)  # it looks again by itself
        plain.screenshot(path=pictures / "status.png")
        assert "/-/tasks/" in plain.url
        plain.wait_for_url("**/result", timeout=60_000)
        assert "line 20: 400" in plain.content()
        assert not refused  # the page's own policy lets its own style pass

"""A real browser: Debian's chromium, steered by Playwright."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

CHROMIUM = shutil.which("chromium")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--renderer-process-limit=1",
]  # fmt: skip


def require() -> None:
    """Skip where there is no chromium; in CI that is a failure."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed; CI must test with it")
        pytest.skip("chromium is not installed (Debian: chromium): the dashboard's tests in a browser are left out")


@contextlib.contextmanager
def chromium(playwright: "Playwright") -> Iterator["Browser"]:
    """A browser, which fetches nothing by itself."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
    try:
        yield browser
    finally:
        browser.close()

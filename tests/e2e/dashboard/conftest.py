"""One chromium for all, and one dashboard for each module of tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.dashboard import Dashboard
from gearwsgi.dashboard.pages.routes import PAGES
from tests import browser as chromium
from tests.dashboards import below, fill, middleware, served
from tests.support import JobServer


class Place(NamedTuple):
    """A dashboard that is served.

    Attributes:
        url: its address, without a slash at its end.
        shop: the middleware whose tasks it shows.
        ids: of the tasks in it, by what they are.
        server: the job server.
    """

    url: str
    shop: GearmanMiddleware
    ids: dict[str, str]
    server: JobServer


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    chromium.require()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, chromium.chromium(playwright) as made:
        yield made


@pytest.fixture(scope="module")
def make_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Place]]:
    """Serve a dashboard on a job server of its own; `tasks` and `dead`: how many it has to show."""
    with ExitStack() as stack:

        def make(
            prefix: str = "", *, tasks: int = 120, dead: int = 12, records: str = "sqlite", **options: Any
        ) -> Place:
            folder: Path = tmp_path_factory.mktemp("dashboard")
            server = JobServer("embedded", folder)
            stack.callback(server.stop)
            server.start()
            shop = middleware(folder / "state", server.address, records=records)
            stack.callback(shop.client.close)
            ids = fill(shop.settings, tasks=tasks, dead=dead) if records else {}
            dashboard = Dashboard(shop, **{"authorize": lambda environ: "ada", **options})
            url = stack.enter_context(served(below(prefix, dashboard) if prefix else dashboard))
            return Place(url + prefix, shop, ids, server)

        yield make


@pytest.fixture(scope="module")
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


@pytest.fixture(scope="package")
def usual(browser: Any) -> Any:
    """The context of all pages that want none of their own: a new one is a new process of the browser's."""
    context = browser.new_context()
    context.new_page()  # keeps that process
    return context


@pytest.fixture
def open_page(browser: Any, usual: Any) -> Iterator[Callable[..., Any]]:
    """A new page of the browser, whose `problems` are what its console and its script complained of."""
    opened = []

    def make(**options: Any) -> Any:
        context = browser.new_context(**options) if options else usual
        page = context.new_page()
        opened.append(context if options else page)
        page.set_default_timeout(30_000)
        page.problems = []
        page.on("console", lambda said: page.problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        return page

    yield make
    for each in opened:
        each.close()
    usual.clear_cookies()


def pages(ids: dict[str, str]) -> dict[str, str]:
    """Every page, by its name."""
    titled = {page.title: f"/{page.path}" for page in PAGES if page.title}
    found = {**titled, "day": "/?span=day", "ask": "/dead/ask?do=discard"}
    return {**found, **{f"task {name}": f"/task?id={task_id}" for name, task_id in ids.items()}}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests in a browser run in one process, which starts that and each module's dashboard once."""
    for item in items:
        if isinstance(item, pytest.Function) and "browser" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("browser"))

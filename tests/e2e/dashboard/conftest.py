"""One chromium and one dashboard for each module of tests."""

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


@pytest.fixture(scope="module")
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


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """A new page of the browser, whose `problems` are what its console and its script complained of."""
    contexts = []

    def make(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.problems = []
        page.on("console", lambda said: page.problems.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()


def pages(ids: dict[str, str]) -> dict[str, str]:
    """Every page, by its name."""
    titled = {page.title: f"/{page.path}" for page in PAGES if page.title}
    found = {**titled, "day": "/?span=day", "ask": "/dead/ask?do=discard"}
    return {**found, **{f"task {name}": f"/task?id={task_id}" for name, task_id in ids.items()}}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of a module run in one process, which starts their browser and their dashboard once."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

"""A site whose routes are deferred: one job server of each kind, with or without a worker, for all tests."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from webob import Request, Response

from gearwsgi import GearmanMiddleware
from tests.apps import deferring
from tests.conftest import kinds, require
from tests.support import APPS, Bench, bench, until


class Site:
    """A bench and the application in this process."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._apps: dict[str, GearmanMiddleware] = {}
        self.application = self.make()

    def make(self, **settings: Any) -> GearmanMiddleware:
        """The application, with settings of its own; made once for each."""
        key = repr(sorted(settings.items()))
        if key not in self._apps:
            own = {"servers": self.bench.server.address, "state_dir": self.bench.state_dir}
            self._apps[key] = deferring.make(**{**own, **settings})
        return self._apps[key]

    def ask(self, target: str, *, app: Any = None, **options: Any) -> Response:
        """A request through the application in this process; `environ` and WebOb's other options."""
        environ = options.pop("environ", {})
        request = Request.blank(target, **options)
        request.environ.update(environ)
        return request.get_response(app or self.application)

    def when(self, state: str, url: str, **options: Any) -> dict[str, Any]:
        """What a status address says, as soon as the task is in this state."""

        def look() -> dict[str, Any] | None:
            answer = self.ask(url, **options)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json
            return found if found["state"] == state else None

        return until(look, f"{state} at {url}")  # type: ignore[return-value]

    def close(self) -> None:
        for app in self._apps.values():
            app.client.close()


@pytest.fixture(scope="module", params=kinds("deferral-idle"))
def idle(request: pytest.FixtureRequest) -> Iterator[Site]:
    """No worker runs."""
    require(request.param)
    with bench(request.param) as made:
        site = Site(made)
        yield site
        site.close()


@pytest.fixture(scope="module", params=kinds("deferral-working"))
def working(request: pytest.FixtureRequest) -> Iterator[Site]:
    """One worker with two processes runs."""
    require(request.param)
    with bench(request.param) as made:
        shutil.copy(APPS / "deferring.py", made.folder)
        made.worker("--workers", "2", "--queues", "job,few", app="deferring:application")
        site = Site(made)
        yield site
        site.close()

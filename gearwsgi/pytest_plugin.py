"""The pytest plugin: `gearman_tasks`, a queue in memory, and `gearman_live`, a real one with a worker.

Which application: the ini option `gearwsgi_app = mysite.wsgi:application`, or a fixture `gearman_app` of the project's
own that answers the application.
"""

# What a fixture needs is imported when it is asked for: the plugin is loaded into every test run of its environment.
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Live, Tasks

_OPTION = "gearwsgi_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option."""
    parser.addini(_OPTION, "gearwsgi: the WSGI application as module:name, such as mysite.wsgi:application", default="")


@pytest.fixture
def gearman_app(request: pytest.FixtureRequest) -> Any:
    """The application whose tasks are captured; a project may have its own fixture of this name."""
    from .app.loading import load_application

    return load_application(_path(request))[0]


@pytest.fixture
def gearman_tasks(gearman_app: Any) -> "Iterator[Tasks]":
    """What the application queues in this test, in memory: `gearwsgi.testing.Tasks`."""
    from .testing import capture

    with capture(gearman_app) as tasks:
        yield tasks


@pytest.fixture
def gearman_live(request: pytest.FixtureRequest) -> "Iterator[Live]":
    """A real embedded job server and worker for this test: `gearwsgi.testing.Live`; `gearwsgi_app` must be set."""
    from .testing import live

    with live(_path(request)) as running:
        yield running


def _path(request: pytest.FixtureRequest) -> str:
    path = str(request.config.getini(_OPTION))
    if not path:
        raise pytest.UsageError(
            f"gearwsgi needs to know the application: set `{_OPTION} = module:name` in pytest's configuration, "
            "or write a fixture `gearman_app` that answers it"
        )
    return path

"""The pytest plugin: `gearman_tasks`, a queue in memory; `gearman_live`, a real one with a worker; and a guard.

Which application: the ini option `gearwsgi_app = mysite.wsgi:application`, or a fixture `gearman_app` of the project's
own that answers the application. Where the option is set, a test that would queue real work fails; `gearwsgi_block`
(or `--gearwsgi-block`, `--no-gearwsgi-block`) says otherwise for all tests, and the marker `gearwsgi_allow` for one.
"""

# What a fixture needs is imported when it is asked for: the plugin is loaded into every test run of its environment.
import argparse
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .submit.client import Client
    from .testing import Live, Tasks
    from .wire.payload import Submission

_APP = "gearwsgi_app"
_BLOCK = "gearwsgi_block"
_ALLOW = "gearwsgi_allow"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini options, and the guard's on the command line, which wins."""
    parser.getgroup("gearwsgi").addoption(
        "--gearwsgi-block",
        action=argparse.BooleanOptionalAction,
        default=None,
        help=f"whether a test that queues real work fails; else as the ini option {_BLOCK} says",
    )
    parser.addini(_APP, "gearwsgi: the WSGI application as module:name, such as mysite.wsgi:application", default="")
    parser.addini(
        _BLOCK,
        f"gearwsgi: whether a test that queues real work fails; true where {_APP} is set",
        type="bool",
        default=None,
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and the guard where it is wanted."""
    config.addinivalue_line("markers", f"{_ALLOW}: gearwsgi: this test may queue real work")
    block = config.getoption("gearwsgi_block")
    if block is None:
        block = config.getini(_BLOCK)  # pytest before 8 makes a list of None
    if block if isinstance(block, bool) else config.getini(_APP):
        config.pluginmanager.register(_Guard(), "gearwsgi-guard")


class _Guard:
    """Makes a test fail that would queue on a real job server, where the next worker would run it, with real data."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._allowed = False
        self._refused: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Put a check before the methods that handlers queue by. `capture`'s client has its own: no check."""
        from .submit.client import Client

        for name in ("submit", "call"):
            self._patch.setattr(Client, name, self._guarded(getattr(Client, name)))

    def pytest_unconfigure(self) -> None:
        self._patch.undo()

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def guarded(client: "Client", what: "Submission | Sequence[Submission]", *rest: Any) -> Any:
            __tracebackhide__ = True
            self._check(client, what)
            return method(client, what, *rest)

        return guarded

    def _check(self, client: "Client", what: "Submission | Sequence[Submission]") -> None:
        from .testing.live import LiveClient
        from .wire.payload import Submission

        __tracebackhide__ = True
        if self._allowed or isinstance(client, LiveClient):
            return
        first = what if isinstance(what, Submission) else what[0]
        line = first.payload.partition(b"\r\n")[0].decode("latin-1")[:100]
        text = (
            f"this would queue real work: {line!r} on {', '.join(map(str, client.settings.servers))}, which a worker "
            "there would do. With the fixture gearman_tasks, or `with gearwsgi.testing.capture(application):`, it is "
            f"queued in memory. A test that means it is marked @pytest.mark.{_ALLOW}; `{_BLOCK} = false` in pytest's "
            "configuration ends this check."
        )
        self._refused.append(text)
        pytest.fail(text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Note whether this test may queue for real."""
        self._allowed = item.get_closest_marker(_ALLOW) is not None
        try:
            return (yield)
        finally:
            self._allowed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        """Make the test fail even if the application, or a thread of it, has swallowed the exception."""
        try:
            result = yield
        finally:
            refused, self._refused = self._refused, []
        if refused:
            pytest.fail(refused[0], pytrace=False)
        return result

    pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup


@pytest.fixture
def gearman_app(request: pytest.FixtureRequest) -> Any:
    """The application whose tasks are captured; a project may have its own fixture of this name."""
    from .app.loading import load_application

    path = request.config.getini(_APP)
    if not path:
        raise pytest.UsageError(
            f"gearwsgi needs to know the application: set `{_APP} = module:name` in pytest's configuration, "
            "or write a fixture `gearman_app` that answers it"
        )
    return load_application(path)[0]


@pytest.fixture
def gearman_tasks(gearman_app: Any) -> "Iterator[Tasks]":
    """What the application queues in this test, in memory: `gearwsgi.testing.Tasks`."""
    from .testing import capture

    with capture(gearman_app) as tasks:
        yield tasks


@pytest.fixture
def gearman_live(request: pytest.FixtureRequest, gearman_app: Any) -> "Iterator[Live]":
    """A real embedded job server and worker for this test: `gearwsgi.testing.Live`."""
    from .app.loading import load_application
    from .testing import live

    path = request.config.getini(_APP)
    with live(path if path and load_application(path)[0] is gearman_app else gearman_app) as running:
        yield running

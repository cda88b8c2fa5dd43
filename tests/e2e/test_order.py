"""Inside and outside of the middlewares that applications have: both must do their work, in requests and in replays."""

import functools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beaker.middleware import SessionMiddleware
from flask import Flask
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from whitenoise import WhiteNoise

from gearwsgi import GearmanMiddleware
from gearwsgi.app.loading import load_application
from gearwsgi.errors import AppLoadError, ConfigError
from gearwsgi.submit.middleware import find_middleware
from tests.serving import Site
from tests.support import APPS, Bench, bench, until

NAMES = ("whitenoise", "proxyfix", "beaker", "sentry", "opentelemetry", "all")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def server() -> Iterator[Bench]:
    """One job server for all; each order has a queue, a worker and a web server of its own."""
    with bench("embedded") as made:
        yield made


@pytest.fixture
def make(server: Bench) -> Iterator[Callable[[str], Site]]:
    sites: list[Site] = []

    def make(order: str) -> Site:
        folder = server.folder / order.replace(":", "-")
        (folder / "static").mkdir(parents=True)
        (folder / "static" / "a.txt").write_text("a static file")
        shutil.copy(APPS / "ordered.py", folder / "ordered.py")
        own = Bench.__new__(Bench)  # with the job server of all
        own.__dict__.update(server.__dict__, folder=folder, record=folder / "record.txt", workers=server.workers)
        own.record.touch()
        sites.append(
            Site(own, "ordered:application", {"ORDER": order}, arguments=["--no-clear-untrusted-proxy-headers"])
        )
        return sites[-1]

    yield make
    for site in sites:
        site.close()
        site.worker.kill()


def having(site: Site, key: str, count: int = 1) -> list[dict[str, Any]]:
    """The records that have a key, as soon as there are so many."""

    def found() -> list[dict[str, Any]]:
        records = [json.loads(line) for line in site.bench.lines()]
        return [record for record in records if key in record]

    until(lambda: len(found()) >= count, f"{count} of {key} in {site.bench.lines()}\n{site.worker.log}")
    return found()


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("name", NAMES)
def test_both_do_their_work_in_either_order(make: Callable[[str], Site], name: str, place: str) -> None:
    site = make(f"{name}:{place}")
    web = site.web
    client, url = "127.0.0.1", f"http://{web.host}/work"
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    user = None
    if name in ("proxyfix", "all"):
        headers |= {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example.org"}
        headers |= {"X-Forwarded-Prefix": "/shop"}
        client, url = "9.9.9.9", "https://shop.example.org/shop/work"
    if name in ("beaker", "all"):
        user = "alice"
        cookie = web.get("/login").header("Set-Cookie")
        assert cookie is not None
        headers["Cookie"] = cookie.partition(";")[0]
    for page in ("/queue", "/later"):
        assert web.get(page, **headers).text == "page " + page
    assert having(site, "run", 2) == [
        {"run": "/work", "url": url, "client": client, "user": user, "attempt": 1} for _ in range(2)
    ]
    if name in ("whitenoise", "all"):
        assert web.get("/static/a.txt").text == "a static file"
        gearman = site.bench.app(queue=f"{name}-{place}").gearman
        assert gearman.call("GET /static/a.txt").text == "a static file"
    if name in ("sentry", "all"):
        gearman = site.bench.app(queue=f"{name}-{place}").gearman
        gearman.task("/boom", headers={"Host": "shop.example.org"}, max_attempts=2)
        # Seen by Sentry in each attempt, and by the queue: it was tried again.
        errors = having(site, "sentry", 2)
        assert [error["sentry"] for error in errors] == ["LookupError"] * 2
        assert {error["url"] for error in errors} == {"http://shop.example.org/boom"}
        assert [run["attempt"] for run in having(site, "run") if run["run"] == "/boom"] == [1, 2]
    if name in ("opentelemetry", "all"):
        # The span of a request and of its job are of one trace; so are those of the second pair.
        spans = [span for span in having(site, "span", 4) if span["trace"] == TRACE]
        assert len(spans) == 4
        assert len({span["path"] for span in spans}) == 2  # the web's process and the worker's


def test_a_dispatcher_that_mounts_ours_is_no_application_for_the_worker_and_what_it_mounts_is(server: Bench) -> None:
    """Through the dispatcher a job would be routed by its path below the mount."""
    (server.folder / "mounted.py").write_text(
        "import os\n"
        "from wsgiref.util import request_uri\n"
        "from werkzeug.middleware.dispatcher import DispatcherMiddleware\n"
        "from gearwsgi import GearmanMiddleware\n"
        "def inner(environ, start_response):\n"
        "    if 'gearwsgi.job' in environ:\n"
        "        with open('mounted.txt', 'a') as file:\n"
        "            file.write(request_uri(environ) + '\\n')\n"
        "    else:\n"
        "        environ['gearman'].task('default.index')\n"
        "    start_response('200 OK', [])\n"
        "    return [b'inner']\n"
        "wrapped = GearmanMiddleware(inner, queue='mounted')\n"
        "application = DispatcherMiddleware(inner, {'/app': wrapped})\n"
    )
    worker = server.start_worker("--workers", "1", app="mounted:application")
    assert worker.process.wait(60) != 0
    assert "no GearmanMiddleware around it" in worker.log
    site = Site(server, "mounted:application", worker_app="mounted:wrapped")
    try:
        assert site.web.get("/app/page").text == "inner"
        written = server.folder / "mounted.txt"
        until(lambda: written.exists() and written.read_text(), "the job")
        assert written.read_text() == f"http://{site.web.host}/app/default/index\n"
    finally:
        site.close()


# -- finding ours in theirs --------------------------------------------------------------------------------------------


def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"plain"]


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.inner(environ, start_response)

    def method(self, environ: dict[str, Any], start_response: Any) -> Any:
        return self.inner(environ, start_response)


def by_closure(inner: Any) -> Any:
    def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
        return inner(environ, start_response)

    return wrapped


def by_decorator(inner: Any) -> Any:
    @functools.wraps(inner)
    def wrapped(*arguments: Any) -> Any:
        return Slotted(inner)(*arguments)

    return wrapped


def by_partial(inner: Any) -> Any:
    return functools.partial(lambda inner, environ, start_response: inner(environ, start_response), inner)


def in_flask(inner: Any) -> Any:
    app = Flask("inner")
    app.wsgi_app = inner
    return app


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "whitenoise": WhiteNoise,
    "proxyfix": ProxyFix,
    "beaker": lambda inner: SessionMiddleware(inner, {"session.type": "memory"}),
    "sentry": SentryWsgiMiddleware,
    "opentelemetry": OpenTelemetryMiddleware,
    "slots": Slotted,
    "method": lambda inner: Slotted(inner).method,
    "closure": by_closure,
    "decorator": by_decorator,
    "partial of ours": functools.partial,
    "partial with ours": by_partial,
    "flask": in_flask,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_twice_is_an_error_at_start_whatever_is_in_between(name: str) -> None:
    wrap = WRAPPERS[name]
    ours = GearmanMiddleware(plain, servers="127.0.0.1:1")
    assert find_middleware(wrap(ours)) is ours
    with pytest.raises(ConfigError, match="wrapped in GearmanMiddleware already"):
        GearmanMiddleware(wrap(ours), servers="127.0.0.1:1")
    assert find_middleware(wrap(plain)) is None
    GearmanMiddleware(wrap(plain), servers="127.0.0.1:1")


def test_wrapping_it_directly_twice_is_an_error() -> None:
    ours = GearmanMiddleware(plain, servers="127.0.0.1:1")
    with pytest.raises(ConfigError, match="once"):
        GearmanMiddleware(ours)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Write a module that can be imported; its name."""

    def write(text: str) -> str:
        name = f"module_{abs(hash(request.node.name))}"
        (tmp_path / f"{name}.py").write_text("from gearwsgi import GearmanMiddleware\n" + text)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return write


def test_an_application_that_is_a_function_around_ours_is_found_by_the_name_it_uses(module: Any) -> None:
    name = module(
        "def app(environ, start_response): ...\n"
        "inner = GearmanMiddleware(app, servers='127.0.0.1:1')\n"
        "def application(environ, start_response):\n"
        "    environ['who'] = 'outer'\n"
        "    return inner(environ, start_response)\n"
    )
    found, ours = load_application(f"{name}:application")
    assert found.__name__ == "application"
    assert ours is found.__globals__["inner"]


def test_a_handler_that_names_the_middleware_it_is_in_does_not_count_as_wrapped(module: Any) -> None:
    """`application.gearman.task(…)` in a handler; and another middleware around the same handlers is no second wrap."""
    name = module(
        "def app(environ, start_response):\n"
        "    application.gearman.task('default.index')\n"
        "application = GearmanMiddleware(app, servers='127.0.0.1:1')\n"
        "another = GearmanMiddleware(app, servers='127.0.0.1:2')\n"
    )
    _, ours = load_application(f"{name}:another")
    assert str(ours.settings.servers[0]) == "127.0.0.1:2"


def test_an_application_without_ours_says_how_to_wrap_it(module: Any) -> None:
    name = module("def application(environ, start_response): ...\n")
    with pytest.raises(AppLoadError, match="no GearmanMiddleware around it"):
        load_application(f"{name}:application")


def test_a_frameworks_object_is_the_application_when_ours_is_in_it(module: Any) -> None:
    name = module(
        "from flask import Flask\n"
        "app = Flask(__name__)\n"
        "app.wsgi_app = GearmanMiddleware(app.wsgi_app, servers='127.0.0.1:1')\n"
    )
    found, ours = load_application(f"{name}:app")
    assert isinstance(found, Flask)
    assert found.wsgi_app is ours

"""How an application and the middleware in it are found, and what is wrapped twice."""

import functools
from collections.abc import Callable, Iterable
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

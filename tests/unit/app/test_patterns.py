"""The patterns of an application's routes, as its framework says them."""

from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.app.patterns import find_patterns


def flask_app() -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("shop")
    app.add_url_rule("/orders/<int:order>", "order", lambda order: "ok", methods=["POST"])
    app.wsgi_app = GearmanMiddleware(app.wsgi_app)
    return app


def pyramid_app() -> Any:
    config = pytest.importorskip("pyramid.config").Configurator()
    config.add_route("order", "orders/{order}")
    config.add_view(lambda request: request.response, route_name="order")
    return GearmanMiddleware(config.make_wsgi_app())


@pytest.mark.parametrize(("make", "pattern"), [(flask_app, "/orders/<int:order>"), (pyramid_app, "/orders/{order}")])
def test_a_path_is_known_by_its_route_s_pattern_and_no_other_is(make: Any, pattern: str) -> None:
    find = find_patterns(make())
    assert find is not None
    assert find("POST", "/orders/7?full=1") == find("POST", "/orders/%38") == pattern
    assert find("POST", "/nothing") == ""


def test_an_application_without_a_known_router_is_not_asked() -> None:
    assert find_patterns(lambda environ, start: []) is None

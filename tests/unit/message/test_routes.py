"""Which requests a route is for."""

from typing import Any

import pytest

from gearwsgi.errors import ConfigError
from gearwsgi.message.routes import Route, Routes, read_route


@pytest.mark.parametrize(
    ("text", "route"),
    [("POST /reports/*", Route("POST", "/reports/*")), ("/x", Route("", "/x")), ("put /a", Route("PUT", "/a"))],
)
def test_a_route_is_a_method_and_a_pattern_or_a_pattern_alone(text: str, route: Route) -> None:
    assert read_route("defer[0]", text) == route


@pytest.mark.parametrize("bad", ["", "POST", "reports", "POST reports", " /x", "A B /x", "G@T /x", 7, None, b"/x"])
def test_what_is_no_route_is_told_with_its_place(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"defer\[0\] .*'POST /reports/\*'"):
        read_route("defer[0]", bad)


ROUTES = Routes([Route("POST", "/reports/*"), Route("", "/any"), Route("OPTIONS", "/any"), Route("", "/café")])


@pytest.mark.parametrize(
    ("method", "path", "number"),
    [
        ("POST", "/reports/1/pdf", 0),
        ("POST", "//reports//1", 0),
        ("POST", "/x/../reports/1", 0),
        ("GET", "/reports/1", None),
        ("post", "/reports/1", None),  # methods have a case
        ("POST", "/reportsx", None),
        ("GET", "/any", 1),
        ("PATCH", "/any", 1),
        ("OPTIONS", "/any", 2),
        ("HEAD", "/any", None),
        ("GET", "/anything", None),
        ("GET", "/caf\xc3\xa9", 3),
    ],
)
def test_method_and_path_as_the_application_may_see_it_decide(method: str, path: str, number: int | None) -> None:
    assert ROUTES.find(method, path) == number

"""Paths that only a replay may reach (tasks_only)."""

from collections.abc import Callable
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ConfigError

Environ = dict[str, Any]


@pytest.mark.parametrize(
    "path",
    [b"/tasks/run", b"//tasks/run", b"/tasks//run", b"/./tasks/run", b"/x/../tasks/run", b"/%74asks/run",
     b"/tasks%2frun", b"/%2ftasks/run", b"/%2e/tasks/run", b"/x/%2e%2e/tasks/run", b"/tasks/../tasks/run",
     b"/tasks/run?x=/public", b"/tasks/./run", b"/tasks/run/", b"/tasks/%0arun", b"/tasks/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "X"])
def test_a_path_for_tasks_only_is_no_page_however_it_is_written(tmp_path: Any, path: bytes, method: str) -> None:
    from urllib.parse import unquote_to_bytes

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        raise AssertionError("reached")

    wrapped = GearmanMiddleware(app, "127.0.0.1:1", tasks_only=["/tasks/*"], state_dir=tmp_path)
    raw, _, query = path.partition(b"?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "QUERY_STRING": query.decode(),
        "HTTP_X_GEARMAN_TASK": "forged",
    }
    answered: list[str] = []
    wrapped(environ, lambda status, headers, exc_info=None: answered.append(status))
    assert answered == ["404 Not Found"]


def guarded(patterns: list[str], path: str) -> int:
    statuses: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    application = GearmanMiddleware(app, servers="127.0.0.1:1", tasks_only=patterns)
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": path}
    list(application(environ, lambda status, headers: statuses.append(status)))
    return int(statuses[0][:3])


@pytest.mark.parametrize(
    "path",
    ["tasks/x", "./tasks/x", "../tasks/x", "/tasks/x", "/caf\xc3\xa9/x", "/café/x", "/tasks/\n", "/tasks/\ud800"],
)
def test_servers_that_decode_in_another_way_are_met_as_well(path: str) -> None:
    assert guarded(["/tasks/*", "/café/*"], path) == 404


def test_what_is_no_path_is_refused_at_the_start() -> None:
    bad: Any
    for bad in (["tasks/*"], "/tasks/*", [""], [7], {"/tasks": 1}):
        if bad == {"/tasks": 1}:
            continue  # a dict's keys are names, and fine
        with pytest.raises(ConfigError):
            guarded(bad, "/")

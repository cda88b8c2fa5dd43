"""What is refused where it is queued."""

from collections.abc import Callable
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.state.outbox import Outbox
from tests.unit.submit.test_guard import Environ


def request(tmp_path: Any, handler: Callable[[Any], None], **settings: Any) -> GearmanMiddleware:
    """Run `handler` with the `gearman` of a public request; nothing listens, so its tasks are in the outbox."""

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        handler(environ["gearman"])
        return []

    wrapped = GearmanMiddleware(app, "127.0.0.1:1", state_dir=tmp_path, connect_timeout=0.2, **settings)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http", "HTTP_HOST": "a:b:c"}
    wrapped(environ, lambda *arguments: None)
    wrapped.client.close()
    return wrapped


@pytest.mark.parametrize(
    "given",
    [{"body": bytes(1001)}, {"data": "x" * 1001}, {"form": {"a": "x" * 1001}}, {"files": {"a": bytes(1001)}},
     {"data": {"a": "x" * 1001}, "plain": True}],
    ids=["body", "data", "form", "files", "plain"],
)  # fmt: skip
def test_a_task_over_max_body_is_refused_where_it_is_queued(tmp_path: Any, given: dict[str, Any]) -> None:
    def handler(gearman: Any) -> None:
        with pytest.raises(InvalidTask, match="max_body=1000"):
            gearman.task("/x", **given)

    wrapped = request(tmp_path, handler, max_body=1000)
    assert Outbox(wrapped.settings).spool.names() == []


@pytest.mark.parametrize(
    "given",
    [{"headers": {"A": "b" * 70_000}}, {"params": {"a": "b" * 70_000}}, {"headers": [("A", "b")] * 201}],
    ids=["a long header", "a long query", "201 headers"],
)
def test_a_task_that_no_worker_would_read_is_refused_where_it_is_queued(tmp_path: Any, given: dict[str, Any]) -> None:
    def handler(gearman: Any) -> None:
        with pytest.raises(InvalidTask, match="over"):
            gearman.task("/x", **given)

    assert Outbox(request(tmp_path, handler).settings).spool.names() == []

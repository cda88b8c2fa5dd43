"""The public side: what a client sends never passes for a job, and what one request may queue has limits."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.message.reading import read
from gearwsgi.state.outbox import Outbox
from tests.unit.submit.test_checks import request
from tests.unit.submit.test_guard import Environ


@pytest.fixture
def public(tmp_path: Any) -> Iterator[tuple[int, list[Environ]]]:
    """A real web server with the middleware; its port, and the environs that the application saw."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(dict(environ))
        start_response("200 OK", [])
        return [b"reached"]

    class Quiet(WSGIRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    wrapped = GearmanMiddleware(app, "127.0.0.1:1", tasks_only=["/tasks/*"], state_dir=tmp_path)
    with make_server("127.0.0.1", 0, wrapped, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port, seen
        server.shutdown()
        thread.join()


def send(port: int, *lines: bytes, path: bytes = b"/") -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"\r\n".join([b"GET " + path + b" HTTP/1.0", *lines, b"", b""]))
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "name",
    [b"X-Gearman-Task", b"x-gearman-task", b"X_Gearman_Task", b"X-Gearman_Task", b"X-GEARMAN-ATTEMPT",
     b"X-Gearman-Signature", b"X-Gearman-Queue", b"X-Gearman-", b"X-Gearmanjob", b"x_gearman"],
)  # fmt: skip
def test_a_forged_gearman_header_never_reaches_the_application(public: tuple[int, list[Environ]], name: bytes) -> None:
    port, seen = public
    send(port, name + b": forged", b"X-Other: fine")
    (environ,) = seen
    assert not [key for key in environ if key.startswith("HTTP_X_GEARMAN")]
    assert "forged" not in [value for value in environ.values() if isinstance(value, str)]
    assert environ["HTTP_X_OTHER"] == "fine"


@pytest.mark.parametrize(
    "name", [b"gearwsgi.job", b"Gearwsgi.Job", b"gearwsgi-job", b"gearwsgi_job", b"HTTP_gearwsgi.job"]
)
def test_no_header_makes_a_request_a_job(public: tuple[int, list[Environ]], name: bytes) -> None:
    port, seen = public
    send(port, name + b": 1")
    assert "gearwsgi.job" not in seen[0]
    assert b"404" in send(port, name + b": 1", path=b"/tasks/run").partition(b"\r\n")[0]


def test_one_request_queues_no_more_than_max_tasks_per_request(tmp_path: Any) -> None:
    def handler(gearman: Any) -> None:
        for _ in range(5):
            gearman.task("/x")
        with pytest.raises(InvalidTask, match="max_tasks_per_request=5"):
            gearman.task("/x")
        with pytest.raises(InvalidTask, match="max_tasks_per_request=5"):
            gearman.task("/x", after_response=True)

    wrapped = request(tmp_path, handler, max_tasks_per_request=5)
    assert len(Outbox(wrapped.settings).spool.names()) == 5


def test_a_user_whose_name_no_header_can_hold_costs_no_task(tmp_path: Any) -> None:
    def handler(gearman: Any) -> None:
        gearman._environ["REMOTE_USER"] = "张三\r\n\ud800"
        gearman.task("/x")

    wrapped = request(tmp_path, handler, inherit=["remote_user"])
    outbox = Outbox(wrapped.settings)
    user = read(outbox.get(outbox.spool.names()[0]).payload).remote_user
    assert user is not None and user.encode("latin-1").decode() == "张三?"


def test_a_host_that_a_client_made_up_is_not_in_the_message(tmp_path: Any) -> None:
    wrapped = request(tmp_path, lambda gearman: gearman.task("/x"))
    outbox = Outbox(wrapped.settings)
    assert b"a:b:c" not in outbox.get(outbox.spool.names()[0]).payload


def test_the_web_server_of_these_tests_answers_at_all(public: tuple[int, list[Environ]]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", public[0], timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"reached"
    connection.close()

"""The request in hand: what a server hands over is queued and arrives as it is, or is refused at the call."""

import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.message.reading import read
from gearwsgi.testing import capture

Environ = dict[str, Any]


def environ(**given: Any) -> Environ:
    return {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/p", "QUERY_STRING": "", "SERVER_NAME": "h",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(b"x"),
        "CONTENT_LENGTH": "1", **given,
    }  # fmt: skip


def replayed(request: Environ, **settings: Any) -> Environ:
    """The environ of a request's replay, with its body as `body`."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "gearwsgi.job" in environ:
            seen.append({**environ, "body": environ["wsgi.input"].read()})
        else:
            environ["gearman"].replay()
        start_response("200 OK", [])
        return [b""]

    application = GearmanMiddleware(app, "127.0.0.1:1", **settings)
    with capture(application) as tasks:
        list(application(request, lambda status, headers, exc_info=None: None))
        tasks.run()
    return seen[0]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"CONTENT_TYPE": "a/b\r\nX-Gearman-Remote-User: root"}, "Content-Type"),
        ({"CONTENT_TYPE": "multipart/form-data; boundary=W\x07"}, "Content-Type"),
        ({"CONTENT_TYPE": "a/b; name=☃"}, "Content-Type"),
        ({"HTTP_X_A": "a\nb"}, "X-A"),
        ({"HTTP_X A": "a"}, "X A"),
        ({"CONTENT_LENGTH": "three"}, "Content-Length"),
        ({"CONTENT_LENGTH": -1}, "Content-Length"),
        ({"CONTENT_LENGTH": "²"}, "Content-Length"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, "ends"),
        ({"REQUEST_METHOD": "PO ST"}, "method"),
        ({"REQUEST_METHOD": "POST\r\nX: y"}, "method"),
        ({"PATH_INFO": "/☃"}, "latin-1"),
        ({"SCRIPT_NAME": "/☃"}, "latin-1"),
        ({"QUERY_STRING": "☃"}, "latin-1"),
        ({"PATH_INFO": "*"}, "no path"),
        ({"REMOTE_USER": "roo\0t"}, "REMOTE_USER"),
        ({"REMOTE_USER": " root"}, "REMOTE_USER"),
    ],
    ids=str,
)
def test_a_request_that_no_message_can_hold_is_refused_where_it_is_replayed(given: Environ, why: str) -> None:
    with pytest.raises(InvalidTask, match=why):
        replayed(environ(**given), inherit=["remote_user"])


@pytest.mark.parametrize("length", [1, "1", " 1 "])
def test_a_length_is_read_as_servers_and_test_clients_hand_it_over(length: Any) -> None:
    assert replayed(environ(CONTENT_LENGTH=length))["body"] == b"x"


def test_a_request_without_an_input_has_no_body() -> None:
    request = environ(CONTENT_LENGTH="")
    del request["wsgi.input"]
    assert replayed(request)["body"] == b""
    request = environ(CONTENT_LENGTH="1")
    del request["wsgi.input"]
    with pytest.raises(InvalidTask):
        replayed(request)


def test_a_body_in_chunks_is_queued_whole_whatever_length_is_said_beside_them() -> None:
    body = io.BytesIO(b"thirteen byte")
    chunked = environ(CONTENT_LENGTH="3", HTTP_TRANSFER_ENCODING="chunked")
    found = replayed({**chunked, "wsgi.input": body, "wsgi.input_terminated": True})
    assert (found["body"], found["CONTENT_LENGTH"]) == (b"thirteen byte", "13")


@pytest.mark.parametrize("user", ["", "ada", "\xc3\xa9"])
def test_a_user_arrives_as_the_server_names_it_even_where_that_is_nothing(user: str) -> None:
    assert replayed(environ(REMOTE_USER=user), inherit=["remote_user"])["REMOTE_USER"] == user
    assert "REMOTE_USER" not in replayed(environ(), inherit=["remote_user"])


@pytest.mark.parametrize(("mount", "path", "query"), [("/m", "", ""), ("/m", "", "a=b"), ("/m", "/", ""), ("", "", "")])
def test_an_empty_path_arrives_as_one(mount: str, path: str, query: str) -> None:
    found = replayed(environ(SCRIPT_NAME=mount, PATH_INFO=path, QUERY_STRING=query))
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == (mount, path, query)


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/2.0"])
def test_the_protocol_of_a_replay_is_the_requests(protocol: str) -> None:
    assert replayed(environ(SERVER_PROTOCOL=protocol))["SERVER_PROTOCOL"] == protocol


def test_a_protocol_that_is_none_is_taken_for_http_1_1() -> None:
    assert replayed(environ(SERVER_PROTOCOL="INCLUDED"))["SERVER_PROTOCOL"] == "HTTP/1.1"


def test_a_replayed_request_has_the_backoff_that_it_was_given() -> None:
    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["gearman"].replay(backoff_max=60)
        start_response("202 Accepted", [])
        return [b""]

    application = GearmanMiddleware(app, "127.0.0.1:1", backoff_min=20)
    with capture(application) as tasks:
        list(application(environ(), lambda status, headers, exc_info=None: None))
        assert read(tasks[0].payload).backoff == (20, 60)


@pytest.mark.parametrize("path", ["/tasks", "//tasks", "/x/../tasks", "/tasks/", "/admin/run"])
def test_a_private_folder_is_private_without_its_slash_too(path: str) -> None:
    answers: list[str] = []
    application = GearmanMiddleware(
        lambda environ, start_response: [], "127.0.0.1:1", tasks_only=["/tasks/*", "/admin/*/"]
    )
    list(application(environ(PATH_INFO=path), lambda status, headers, exc_info=None: answers.append(status)))
    assert answers == ["404 Not Found"]


def test_a_pattern_can_leave_the_folder_itself_to_the_public() -> None:
    answers: list[str] = []

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b""]

    application = GearmanMiddleware(app, "127.0.0.1:1", tasks_only=["/tasks/?*"])
    for path in ("/tasks", "/tasks/x"):
        list(application(environ(PATH_INFO=path), lambda status, headers, exc_info=None: answers.append(status)))
    assert answers == ["200 OK", "404 Not Found"]

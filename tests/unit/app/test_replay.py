"""A replay is one true WSGI call: PEP 3333 to the letter, and what each breach of it comes to."""

import contextvars
import gc
import io
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from wsgiref.validate import validator

import pytest
import webtest
from webob import Response
from webob.dec import wsgify

from gearwsgi import GearmanMiddleware, Retry
from gearwsgi.app import replay
from gearwsgi.app.job import Job
from gearwsgi.app.replay import KEPT_BODY, Result, make_environ
from gearwsgi.log import LogStream
from gearwsgi.message.model import Message
from gearwsgi.testing import capture

App = Callable[..., Iterable[bytes]]
PLAIN = [("Content-Type", "text/plain")]


def make_job(task: Message, *, id: str = "f" * 32, service: str = "default.index", **values: Any) -> Job:
    known = replace(task, id=id, service=service, attempt=values.pop("attempt", 1))
    return Job.of(known, **{"queue": "job", "handle": "H:x:1", "max_attempts": 5, **values})


def run(app: App, task: Message | None = None, **job: Any) -> Result:
    task = task if task is not None else Message("POST", path="/default/index")
    return replay.run(app, task, make_job(task, **job), io.StringIO())


def environ_of(task: Message, **job: Any) -> dict[str, Any]:
    return make_environ(task, make_job(task, **job), io.StringIO())


def reason(app: App) -> str:
    """Why this attempt failed, which it must have."""
    outcome = run(app).outcome
    assert outcome.kind == "exception", outcome
    return outcome.reason


class Body:
    """A response's body that knows what was done with it."""

    def __init__(self, *chunks: Any, fails: BaseException | None = None, close_fails: bool = False) -> None:
        self.chunks = list(chunks)
        self.fails = fails
        self.close_fails = close_fails
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        yield from self.chunks
        if self.fails is not None:
            raise self.fails

    def close(self) -> None:
        self.closed += 1
        if self.close_fails:
            raise RuntimeError("close failed")


MESSAGES = {
    "a plain POST": Message("POST", path="/default/index"),
    "a body": Message("POST", path="/", headers=(("Content-Type", "application/json"),), body=b"{}"),
    "an empty body that was sent": Message("PUT", path="/x", has_length=True),
    "a mount": Message("GET", script_name="/app", path="/x?a=1&a=2"),
    "the root of a mount": Message("GET", script_name="/app", path=""),
    "no path at all": Message("GET", path="?q=1"),
    "https, a port": Message("GET", scheme="https", host="example.org:8443", path="/"),
    "IPv6": Message("GET", host="[::1]:8080", path="/"),
    "IPv6 without a port": Message("GET", host="[::1]", path="/"),
    "unicode": Message("GET", path="/caf%C3%A9/%F0%9F%98%80", service="café"),
    "repeated headers": Message(
        "GET", path="/", headers=(("A", "1"), ("a", "2"), ("Cookie", "x=1"), ("Cookie", "y=2"))
    ),
    "an unknown client": Message("GET", path="/", remote_addr="", remote_user="alice"),
}


@pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
@pytest.mark.parametrize("name", MESSAGES)
def test_the_environ_passes_the_validator(name: str) -> None:
    @validator
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.errors"].write("a line\n")
        start_response("200 OK", PLAIN)
        return [b"fine"]

    result = replay.run(app, MESSAGES[name], make_job(MESSAGES[name]), LogStream())
    assert result.outcome.status == 200, result.outcome.reason
    assert result.data == b"fine"


@pytest.mark.parametrize("short_key", [False, True])
def test_a_handler_that_queues_passes_webtests_lint_where_the_short_key_is_left_out(short_key: bool) -> None:
    @webtest.lint.middleware
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        task = environ["gearwsgi.gearman"].task("default.index", {"name": "Ada"})
        start_response("200 OK", PLAIN)
        return [task.id.encode()]

    application = GearmanMiddleware(app, servers="127.0.0.1:1", short_key=short_key)
    with capture(application) as tasks:
        client = webtest.TestApp(application)  # watches the outer side, too
        if short_key:
            with pytest.raises(AssertionError, match="gearman"):
                client.get("/")
        else:
            assert client.get("/").text == tasks[0].id


@pytest.mark.parametrize("method", ["PROPFIND", "M-SEARCH", "!#$%&'*+.^_`|~", "get"])
def test_any_token_is_a_method_and_keeps_its_case(method: str) -> None:
    assert environ_of(Message(method, path="/"))["REQUEST_METHOD"] == method


def test_the_middleware_is_valid_on_both_of_its_sides_where_the_short_key_is_left_out() -> None:
    """Everything between server and framework: each validator watches both that call it and that it calls."""

    @validator
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert "gearman" not in environ
        assert environ["gearwsgi.gearman"] is not None
        start_response("200 OK", PLAIN)
        return iter([b"fi", b"ne"])

    inner: Any = GearmanMiddleware(app, servers="127.0.0.1:1", short_key=False)
    result = run(validator(inner), Message("GET", path="/x"))
    assert (result.outcome.reason, result.data) == ("200 OK", b"fine")


def test_every_text_in_the_environ_is_a_native_string_of_bytes() -> None:
    environ = environ_of(
        Message("GET", path="/caf%C3%A9", headers=(("X-Latin", "gr\xfc\xdf"),)),
        id="número",
        service="café",
        queue="büro",
    )
    texts = [value for value in environ.values() if isinstance(value, str)]
    assert all(text.encode("latin-1") for text in texts if text)
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/café"
    assert environ["HTTP_X_GEARMAN_QUEUE"].encode("latin-1").decode() == "büro"
    assert environ["HTTP_X_GEARMAN_SERVICE"].encode("latin-1").decode() == "café"
    assert environ["HTTP_IDEMPOTENCY_KEY"].encode("latin-1").decode() == "número"
    assert environ["HTTP_X_LATIN"] == "gr\xfc\xdf"


def test_the_environ_says_what_kind_of_server_this_is() -> None:
    environ = environ_of(Message("GET", scheme="https", host="example.org", path="/x"))
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "https"
    assert (environ["wsgi.multiprocess"], environ["wsgi.multithread"], environ["wsgi.run_once"]) == (True, False, False)
    assert environ["wsgi.input_terminated"] is True
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["SERVER_PROTOCOL"]) == (
        "example.org",
        "443",
        "HTTP/1.1",
    )
    assert type(environ) is dict


def test_nothing_of_the_environ_is_left_from_one_replay_to_the_next() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert "spoiled" not in environ
        environ["spoiled"] = True
        seen.append(environ)
        start_response("200 OK", PLAIN)
        return []

    for _ in range(2):
        assert run(app).outcome.status == 200
    assert seen[0] is not seen[1]
    assert set(seen[0]) == set(seen[1])


def test_the_input_can_be_read_in_every_way_that_the_standard_names_and_then_ends() -> None:
    def reads(read: Callable[[Any], Any]) -> Any:
        return read(environ_of(Message("POST", body=b"one\ntwo\nthree"))["wsgi.input"])

    assert reads(lambda stream: stream.read()) == b"one\ntwo\nthree"
    assert reads(lambda stream: (stream.read(5), stream.read(100), stream.read(1))) == (b"one\nt", b"wo\nthree", b"")
    assert reads(lambda stream: [stream.readline(), stream.readline(2)]) == [b"one\n", b"tw"]
    assert reads(lambda stream: stream.readlines()) == reads(list) == [b"one\n", b"two\n", b"three"]


# -- start_response and the body ---------------------------------------------------------------------------------------


def test_start_response_may_come_as_late_as_the_first_part_of_the_body() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"late"

    assert run(app).data == b"late"


def test_empty_parts_do_not_send_the_headers() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        try:
            raise ValueError("not yet too late")
        except ValueError:
            start_response("503 Service Unavailable", PLAIN, sys.exc_info())
        yield b"sorry"

    result = run(app)
    assert result.outcome.reason == "503 Service Unavailable"
    assert b"sorry" in result.outcome.response


def test_write_and_the_body_come_out_in_their_order() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"one ")
        write(b"two ")
        return [b"three"]

    assert run(app).data == b"one two three"


def test_exc_info_replaces_status_and_headers_while_nothing_was_sent() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Location", "/here")])
        try:
            raise KeyError("x")
        except KeyError:
            start_response("302 Found", [("Location", "/there")], sys.exc_info())
        return [b""]

    outcome = run(app).outcome
    assert (outcome.status, outcome.location) == (302, "/there")


def test_exc_info_after_the_first_bytes_raises_it_again() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"sent"
        try:
            raise ZeroDivisionError("too late")
        except ZeroDivisionError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"never"

    assert reason(app) == "ZeroDivisionError: too late"


def test_exc_info_may_be_the_first_call() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            raise KeyError("x")
        except KeyError:
            start_response("200 OK", PLAIN, sys.exc_info())
        return [b"fine"]

    assert run(app).data == b"fine"


def test_a_second_start_response_without_exc_info_fails() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return []

    assert "start_response called a second time" in reason(app)


def test_an_application_that_never_calls_start_response_fails_for_that_reason() -> None:
    assert "never called start_response" in reason(lambda environ, start_response: [])
    assert "before it called start_response" in reason(lambda environ, start_response: [b"body"])
    assert "never called start_response" in reason(lambda environ, start_response: [b""])


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (None, "None"),
        ("text", "str"),
        (b"bytes", "int"),
        (["text"], "str"),
        ([bytearray(b"x")], "bytearray"),
        ([None], "NoneType"),
        (7, "int"),
    ],
)
def test_a_body_that_is_no_iterable_of_bytes_fails(answer: Any, what: str) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return answer

    assert what in reason(app)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, PLAIN),
        (b"200 OK", PLAIN),
        ("", PLAIN),
        ("20", PLAIN),
        ("2000 Too many", PLAIN),
        ("abc def", PLAIN),
        ("²00 OK", PLAIN),
        ("200OK", PLAIN),
        ("200 OK\r\nX-Split: 1", PLAIN),
        ("200 OK", [("X-Split", "1\r\nX-Other: 2")]),
        ("200 OK", [("X\nSplit", "1")]),
        ("200 OK", [("X-Bytes", b"1")]),
        ("200 OK", [(b"X-Bytes", "1")]),
        ("200 OK", [("X-Number", 1)]),
        ("302 Found", [("Location", None)]),
        ("404 Not Found", [("X-Alone",)]),
        ("200 OK", [("X-Three", "1", "2")]),
        ("200 OK", None),
    ],
)
@pytest.mark.parametrize("wants_reply", [False, True], ids=["task", "call"])
def test_what_a_server_would_refuse_in_status_or_headers_is_a_failed_attempt(
    status: Any, headers: Any, wants_reply: bool
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"body"]

    result = run(app, Message("POST", path="/", wants_reply=wants_reply))
    if wants_reply:
        assert result.data.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert b"X-Other" not in result.data
    else:
        assert result.outcome.kind == "exception", result.outcome


def test_a_status_without_a_phrase_is_one() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("204", [])
        return []

    assert run(app).outcome.status == 204


# -- close() -----------------------------------------------------------------------------------------------------------


def answering(body: Any, status: str = "200 OK") -> App:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, PLAIN)
        return body

    return app


@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in the middleware"])
@pytest.mark.parametrize(
    ("body", "fails"),
    [
        (Body(b"a", b"b"), ""),
        (Body(), ""),
        (Body(b"a", fails=ValueError("midway")), "ValueError: midway"),
        (Body(b"a", fails=SystemExit(3)), "SystemExit: 3"),
        (Body(b"a", fails=KeyboardInterrupt()), "KeyboardInterrupt"),
        (Body("text"), "str"),
        (Body(b"a", close_fails=True), "RuntimeError: close failed"),
        (Body(b"a", fails=ValueError("midway"), close_fails=True), "RuntimeError: close failed"),
    ],
    ids=["whole", "empty", "raises", "exits", "interrupted", "not bytes", "close raises", "both raise"],
)
def test_close_is_called_once_on_every_path(body: Body, fails: str, wrapped: bool) -> None:
    body.closed = 0
    app: Any = answering(body)
    result = run(GearmanMiddleware(app, servers="127.0.0.1:1") if wrapped else app)
    assert body.closed == 1
    if fails:
        assert result.outcome.kind == "exception"
        assert fails in result.outcome.reason
        assert result.data == b""
    else:
        assert result.outcome.kind == "response"


def test_a_generator_is_run_to_its_end_and_finalised() -> None:
    steps: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        try:
            yield b"x"
            steps.append("after the last part")
        finally:
            steps.append("finally")

    assert run(app).data == b"x"
    assert steps == ["after the last part", "finally"]


def test_an_error_after_the_last_part_is_still_a_failed_attempt() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"all of it"
        raise OSError("disk full")

    assert reason(app) == "OSError: disk full"


def test_an_error_after_the_status_beats_the_status() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        raise LookupError("after all")

    assert reason(app) == "LookupError: after all"


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit("bye"), KeyboardInterrupt(), GeneratorExit()])
def test_not_even_these_end_the_worker(raised: BaseException) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise raised

    assert type(raised).__name__ in reason(app)


def test_a_long_response_is_read_to_its_end_and_not_kept() -> None:
    sent = 0

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        nonlocal sent
        start_response("200 OK", PLAIN)
        for _ in range(64):
            sent += KEPT_BODY // 8
            yield b"x" * (KEPT_BODY // 8)

    result = run(app)
    assert (result.outcome.status, result.data, sent) == (200, b"", 8 * KEPT_BODY)


def test_a_response_of_just_the_kept_size_is_kept_and_one_byte_more_is_not() -> None:
    assert len(run(answering([b"x" * KEPT_BODY])).data) == KEPT_BODY
    assert run(answering([b"x" * KEPT_BODY, b"y"])).data == b""


def test_a_call_gets_the_whole_of_a_long_response() -> None:
    result = run(answering([b"x" * KEPT_BODY, b"y"]), Message("GET", path="/", wants_reply=True))
    assert result.data.endswith(b"xy")
    assert len(result.data) > KEPT_BODY


# -- surroundings of the call ------------------------------------------------------------------------------------------


def test_each_replay_has_a_context_of_its_own() -> None:
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="fresh")
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        seen.append(marker.get())
        marker.set("spoiled")
        start_response("200 OK", PLAIN)
        yield b"x"
        seen.append(marker.get())

    marker.set("the worker's")
    for _ in range(2):
        assert run(app).outcome.status == 200
    assert seen == ["fresh", "spoiled", "fresh", "spoiled"]
    assert marker.get() == "the worker's"


def test_a_replay_sees_the_context_it_is_given_and_leaves_it_as_it_was() -> None:
    marker: contextvars.ContextVar[str] = contextvars.ContextVar("marker", default="nothing")
    context = contextvars.Context()
    context.run(marker.set, "of the process")
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(marker.get())
        marker.set("spoiled")
        start_response("200 OK", PLAIN)
        return []

    task = Message("POST", path="/default/index")
    for _ in range(2):
        replay.run(app, task, make_job(task), io.StringIO(), context)
    assert seen == ["of the process", "of the process"]


def test_an_exception_that_cant_be_shown_is_a_failed_attempt_like_any_other() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise self

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise Unreadable

    assert reason(app) == "Unreadable: <exception str() failed>"


def test_the_worker_calls_in_one_thread() -> None:
    threads = set()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        threads.add(threading.get_ident())
        start_response("200 OK", PLAIN)
        return []

    for _ in range(3):
        run(app)
    assert threads == {threading.get_ident()}


def test_a_retry_that_a_framework_turned_into_500_is_known_all_the_same() -> None:
    @wsgify
    def app(request: Any) -> Any:
        try:
            raise Retry(delay=7, reason="the other side is busy")
        except Exception:
            return Response("oops", status=500)

    outcome = run(app).outcome
    assert outcome.retry_in == 7
    assert "the other side is busy" in outcome.reason


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        ("example.org", "example.org", "80"),
        ("example.org:8080", "example.org", "8080"),
        ("example.org:", "example.org", "80"),
        ("[::1]", "::1", "80"),
        ("[::1]:81", "::1", "81"),
    ],
)
def test_server_name_and_port_are_the_hosts(host: str, name: str, port: str) -> None:
    environ = environ_of(Message("GET", host=host, path="/"))
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"], environ["HTTP_HOST"]) == (name, port, host)


def test_a_header_with_an_underscore_is_left_out_as_servers_do() -> None:
    """In the environ it could not be told from the one with a dash: what checks one would be fooled by the other."""
    headers = (("X_Forwarded_For", "6.6.6.6"), ("Content_Type", "x/y"), ("Idempotency_Key", "mine"), ("X-Fine", "1"))
    environ = environ_of(Message("GET", path="/", headers=headers))
    assert "HTTP_X_FORWARDED_FOR" not in environ
    assert "CONTENT_TYPE" not in environ
    assert environ["HTTP_IDEMPOTENCY_KEY"] == "f" * 32
    assert environ["HTTP_X_FINE"] == "1"


def test_a_file_wrapper_is_offered_and_its_file_is_read_and_closed() -> None:
    file = io.BytesIO(b"a file's content")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", PLAIN)
        return environ["wsgi.file_wrapper"](file, 4)

    assert run(app).data == b"a file's content"
    assert file.closed


class Witness:
    """Something that a weak reference can watch."""


@pytest.mark.parametrize(
    ("body", "replayed"), [(iter, False), (list, True), (iter, True)], ids=["request", "replay of a list", "replay"]
)
def test_a_request_is_gone_when_it_is_over_and_not_at_the_next_garbage_collection(
    body: Callable[[list[bytes]], Iterable[bytes]], replayed: bool
) -> None:
    seen: list[weakref.ref[Witness]] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["witness"] = witness = Witness()
        seen.append(weakref.ref(witness))
        start_response("200 OK", PLAIN)
        return body([b"done"])

    wrapped = GearmanMiddleware(app, servers="127.0.0.1:1")
    gc.disable()
    try:
        if replayed:
            run(wrapped)
        else:
            answer = wrapped({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http"}, lambda *given: None)
            assert b"".join(answer) == b"done"
            if hasattr(answer, "close"):
                answer.close()
            del answer
        assert seen[0]() is None
    finally:
        gc.enable()

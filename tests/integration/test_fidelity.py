"""A request that went through queue and worker reaches the application as one that came through waitress.

About a hundred requests, each in three ways: directly; as `call()`, whose environ and response are compared key by
key; and by `replay()`, the request in hand queued as it is. What differs on purpose is one list, docs/fidelity.md,
whose tables are read here: they hold neither less nor more than what is found.
"""

import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import InvalidTask
from gearwsgi.submit.tasks import Gearman
from tests.conftest import kinds, require
from tests.serving import Answer, WebServer
from tests.support import APPS, ROOT, Bench, Worker, bench, until

SETTINGS = {"inherit": ["cookie", "authorization"]}
MOUNT = "/mount"
CLIENTS_SAY_ZERO = ("POST", "PUT", "PATCH")

PAGE = (ROOT / "docs" / "fidelity.md").read_text()


def keys_below(beginning: str) -> set[str]:
    """The environ's keys in the first column of the table that follows on the page."""
    table = re.search(r"^\|.*?(?=\n\n)", PAGE.partition(beginning)[2], re.M | re.S)
    assert table is not None, f"the page has no table after {beginning!r}"
    return {key for row in table[0].splitlines() for key in re.findall(r"`([\w.]+)`", row.split("|")[1])}


ADDED = keys_below("**A replay has besides:**")
"""What only a replay has."""
LEFT_OUT = keys_below("**A replay has not,**")
"""What only a connection or its server has."""
OTHER = keys_below("**A replay has its own:**")
"""What both have, and each its own."""
CHANGED = keys_below("**Where waitress changes a request,**")
"""What differs with some requests alone, which say so in `Request.other`."""
KEEP_ALL = ("--no-clear-untrusted-proxy-headers",)
"""waitress drops X-Forwarded-* unless it is told which proxy to trust."""
OF_THE_CONNECTION = {"date", "server", "via", "connection", "transfer-encoding"}
"""Headers of a response that the server adds."""


@dataclass
class Request:
    """One request: as it goes over the wire, and what of it `call()` is given.

    Attributes:
        target: as on the wire.
        service: what `call()` is given instead of the target.
        mounted: through the server whose application is mounted.
        direct: headers that are sent only over the wire, where `call()` says them otherwise.
        callable: whether `call()` can make it at all.
        other: keys of the environ that differ with this request alone, on purpose.
        arguments: more of `call()`'s, instead of headers and body.
    """

    method: str = "GET"
    target: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    service: str = ""
    mounted: bool = False
    direct: tuple[tuple[str, str], ...] = ()
    callable: bool = True
    other: frozenset[str] = frozenset()
    arguments: Any = None
    answer: Any = None

    def __str__(self) -> str:
        return f"{self.method} {self.target[:60]} {self.headers!r:.200} {self.body!r:.60} {self.answer}"


def text(content: str) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", content),)


def requests() -> list[Request]:
    methods = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND M-SEARCH PURGE !#$%&'*+-.^_`|~0AZ"
    paths = (
        "/ /a /a/ /a//b /a/// /a/./b /a/../b /.. /a%2Fb /a%2fb /a%5Cb /%25 /%252F /caf%C3%A9 /caf%c3%a9 /%E9 "
        "/%FF%FE /%00 /a%0D%0Ab /a%20b /a+b /a;b=c/d;e /a:b /a@b /~u /(x) /a,b /a=b /a&b /' /\" /a%3Fb /a%23b /% "
        "/%zz /%4 /a|b /{x} /[x] /a\\b /^`<> /index.php/x /%F0%9F%98%80 /a/http://b/c /*"
    )
    queries = (
        "? ?a ?a= ?a=1&a=2&b=3&a=4 ?a=1;b=2 ?q=%20+%2B ?q=%C3%A9 ?q=%E9 ?a[]=1&a[]=2 ?=x ?&& ?a=b=c ?x=/../y ?q=% "
        "?? ?url=http://x/y?z ?q=%00 ?q='\"<>\\^`{|}"
    )
    # A client says that there is nothing with these three (RFC 9110, section 8.6), and so do tasks.
    found = [Request(method, "/method", body=b"" if method in CLIENTS_SAY_ZERO else None) for method in methods.split()]
    found += [Request(target=path) for path in paths.split()]
    # waitress makes one of the slashes at a path's beginning. In a task a target is kept as it is.
    found += [
        Request(target="/%2F", other=frozenset({"PATH_INFO", "REQUEST_URI"})),
        Request(target="//a//b", other=frozenset({"PATH_INFO", "REQUEST_URI"})),
    ]
    found += [Request(target="/query" + query) for query in queries.split()]
    found += [
        Request(target="/" + "x" * 3000 + "?" + "y" * 3000),
        # `call()` takes text; a client sends what it stands for.
        Request(target="/caf%C3%A9?q=%C3%A9", service="GET /café?q=é"),
        Request(target="/a?x=1&y=2&y=3", service="GET /a?x=1", arguments={"params": {"y": ["2", "3"]}}),
        Request(target="/a?q=%C3%A9+%26&n=7&e=", service="GET /a", arguments={"data": {"q": "é &", "n": 7, "e": None}}),
    ]
    found += [
        Request(target=MOUNT + rest, mounted=True)
        for rest in ("/", "/x", "/x/", "/a%2Fb", "/x//y", "/x/../y", "/caf%C3%A9", "/?q=1", MOUNT + "/x")
    ]
    # The very root of a mount has no path below it, which `call()` can't say: a target begins with a slash.
    found += [Request(target=MOUNT + rest, mounted=True, callable=False) for rest in ("", "?q=1")]
    found += with_headers() + with_bodies() + with_answers()
    return found


def with_headers() -> list[Request]:
    cases: list[tuple[tuple[str, str], ...]] = [
        (("X-Two", "1"), ("X-Two", "2")),
        (("X-Three", "1"), ("x-three", "2"), ("X-THREE", "3")),
        (("Accept", "text/html"), ("Accept", "*/*;q=0.1")),
        (("X-Latin", "gr\xfc\xdf dich"),),
        (("X-Utf8", "é".encode().decode("latin-1")),),
        (("X-Empty", ""),),
        (("X-Commas", 'a, "b, c", d'),),
        (("X-Blanks", "  in  between\tand around  "),),
        (("X-Long", "x" * 7000),),
        (("X-!#$%&'*+.^`|~", "token"),),
        (("X_Under", "1"), ("X-Under_Score", "2")),
        (("X-Request-ID", "r-1"), ("Accept-Language", "de, en;q=0.5")),
        (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=1")),
        (("Cookie", "a=1; b=2"),),
        (("Authorization", "Basic eDp5"),),
        (("Content-Type", "text/plain"),),  # without a body
        (("User-Agent", "Mozilla/5.0"), ("Referer", "http://example.org/")),
        (("Accept-Encoding", "gzip"), ("If-None-Match", '"x"'), ("Range", "bytes=0-1"), ("DNT", "1")),
        (("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=1.2.3.4")),
        (("Via", "1.1 x"), ("Upgrade-Insecure-Requests", "1"), ("Content-Encoding", "identity")),
    ]
    of_a_connection = (
        *(("Keep-Alive", "timeout=5"), ("TE", "trailers"), ("Upgrade", "h2c"), ("Expect", "nothing")),
        ("Proxy-Authorization", "Basic eDp5"),
    )
    found = [Request(target="/headers", headers=headers) for headers in cases]
    found.append(Request(target="/hop", headers=of_a_connection, callable=False))
    # The port of a Host without one is the scheme's.
    hosts = [("example.org", True), ("example.org:8080", True), ("EXAMPLE.org", True), ("[::1]:81", True)]
    found += [Request(target="/host", headers=(("Host", host),), other=frozenset({"SERVER_PORT"})) for host, _ in hosts]
    return found


def with_bodies() -> list[Request]:
    form = b"a=1&a=2&b=%C3%A9+%26"
    multipart = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n\x00\xff\r\n--b--\r\n'
    cases = [
        ("application/json", b'{"name": "x"}'),
        ("application/json; charset=utf-8", '{"name": "é"}'.encode()),
        ("application/x-www-form-urlencoded", form),
        ("multipart/form-data; boundary=b", multipart),
        ("application/octet-stream", bytes(range(256))),
        ("text/plain", b""),
        ("text/plain", b"{not a plain call}"),
        ("text/plain", b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
        ("text/plain", b"\r\n\r\n"),
        ("text/plain", b"x" * 100_000),
        ("x", b"x"),
    ]
    found = [
        Request("POST", "/body", direct=text(kind), body=body, arguments={"body": body, "content_type": kind})
        for kind, body in cases
    ]
    found += [
        Request(
            method,
            "/body",
            direct=text("text/plain"),
            body=b"b",
            arguments={"body": b"b", "content_type": "text/plain"},
        )
        for method in ("GET", "DELETE", "PUT", "OPTIONS")
    ]
    data = {"name": "x", "é": [1, 2.5, None, True]}
    written = json.dumps(data, separators=(",", ":")).encode()
    found += [
        Request("POST", "/none", callable=False),
        Request("POST", "/body-and-no-type", body=b"abc", callable=False),
        Request("GET", "/length", body=b"", callable=False),
        Request("POST", "/data", direct=text("application/json"), body=written, arguments={"data": data}),
        Request(
            "POST",
            "/form",
            direct=text("application/x-www-form-urlencoded"),
            body=form,
            arguments={"form": [("a", "1"), ("a", 2), ("b", "é &")]},
        ),
        Request(
            "POST",
            "/five-megabytes",
            direct=text("application/octet-stream"),
            body=b"0123456789" * 500_000,
            arguments={"body": b"0123456789" * 500_000},
        ),
    ]
    return found


def with_answers() -> list[Request]:
    answers: list[dict[str, Any]] = [
        {"status": "200 OK", "headers": []},
        {"status": "201 Created", "headers": [["Location", "/relative/1"], ["Content-Type", "text/plain"]]},
        {"status": "204 No Content", "headers": [], "body": ""},
        {"status": "206 Partial Content", "headers": [["Content-Range", "bytes 0-7/100"]]},
        {"status": "299 Quite Good Enough"},
        {"status": "301 Moved Permanently", "headers": [["Location", "../elsewhere?x=1"]]},
        {"status": "304 Not Modified", "headers": [["ETag", '"x"']], "body": ""},
        {"status": "400 Bad Request"},
        {"status": "401 Unauthorized", "headers": [["WWW-Authenticate", "Basic"], ["WWW-Authenticate", "Bearer"]]},
        {"status": "404 Not Found", "body": ""},
        {"status": "500 Oh Dear", "body": "it broke"},
        {"status": "503 Service Unavailable", "headers": [["Retry-After", "7"]]},
        {"headers": [["Set-Cookie", "a=1; Path=/"], ["Set-Cookie", "b=2; HttpOnly"], ["x-lower", "Kept"]]},
        {"headers": [["X-Latin", "gr\xfc\xdf"], ["Content-Type", "text/html; charset=latin-1"]]},
        {"headers": [["Content-Length", "8"], ["Content-Type", "text/plain"]]},
        {"how": "late", "body": "in small parts"},
        {"how": "late", "body": ""},
        {"how": "write"},
        {"how": "tuple"},
    ]
    return [Request("POST", "/answer", body=b"", answer=answer) for answer in answers]


ALL = requests()


# -- making them -------------------------------------------------------------------------------------------------------


class Stand(NamedTuple):
    """A job server, a worker, and the mirror behind two waitresses: at the root and mounted."""

    bench: Bench
    worker: Worker
    root: WebServer
    mounted: WebServer
    app: GearmanMiddleware
    seen: Path

    def web(self, request: Request) -> WebServer:
        return self.mounted if request.mounted else self.root

    def read(self, number: str) -> dict[str, Any] | None:
        path = self.seen / f"{number}.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module", params=kinds("fidelity"))
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    require(request.param)
    with bench(request.param) as made:
        shutil.copy(APPS / "mirror.py", made.folder / "mirror.py")
        seen = made.folder / "seen"
        seen.mkdir()
        env = {"SEEN": str(seen), "SETTINGS": json.dumps(SETTINGS)}
        root = WebServer(made.folder, "mirror:application", {**made.env, **env}, arguments=KEEP_ALL)
        mounted = WebServer(made.folder, "mirror:application", {**made.env, **env}, prefix=MOUNT, arguments=KEEP_ALL)
        try:
            worker = made.worker("--workers", "1", app="mirror:application", env=env)
            yield Stand(made, worker, root.ready(), mounted.ready(), made.app(**SETTINGS), seen)
        finally:
            root.stop()
            mounted.stop()


def on_the_wire(request: Request, *more: tuple[str, str]) -> tuple[str, str, list[tuple[str, str]], bytes | None]:
    headers = [*request.headers, *request.direct, *more]
    if request.answer is not None:
        headers.append(("X-Answer", json.dumps(request.answer)))
    return request.method, request.target, headers, request.body


def gearman_of(stand: Stand, request: Request) -> Gearman:
    """What a handler of a page on the same host has at hand."""
    host = stand.web(request).host
    caught: list[Gearman] = []

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        caught.append(environ["gearman"])
        return []

    application = GearmanMiddleware(page, servers=stand.bench.server.address, **SETTINGS)
    application.client = stand.app.client
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": host, "REQUEST_METHOD": "GET", "REMOTE_ADDR": "127.0.0.1"}
    application({**environ, "SCRIPT_NAME": MOUNT if request.mounted else "", "PATH_INFO": "/"}, None)  # type: ignore[arg-type]
    return caught[0]


def called(stand: Stand, request: Request, number: str) -> Any:
    service = (
        request.service
        or f"{request.method} {request.target.removeprefix(MOUNT) if request.mounted else request.target}"
    )
    _, _, headers, _ = on_the_wire(request, ("X-Number", number))
    headers = [pair for pair in headers if pair not in request.direct]
    return gearman_of(stand, request).call(service, headers=headers, timeout=60, **(request.arguments or {}))


# -- comparing them ----------------------------------------------------------------------------------------------------


def differences(direct: dict[str, Any], queued: dict[str, Any], request: Request) -> dict[str, str]:
    """Of each key that differs: which of the page's tables it is in, or, where it is in none, how it differs."""
    found = {}
    own_agent = "user-agent" in {name.lower() for name, _ in request.headers}
    for key in sorted(direct.keys() | queued.keys() | ADDED):
        if key in ADDED and not (key == "HTTP_USER_AGENT" and own_agent):
            kind = "added" if key in queued and key not in direct else ""
        elif key in LEFT_OUT:
            kind = "left out" if key in direct and key not in queued else ""
        elif key in direct and direct[key] == queued.get(key, ...):
            continue
        elif key in direct and key in queued:
            in_table = key in OTHER if key != "SERVER_PORT" else key in OTHER & request.other
            kind = "changed" if key in CHANGED & request.other else "other" if in_table else ""
        else:
            kind = ""
        found[key] = kind or f"{direct.get(key, 'absent')!r} directly, {queued.get(key, 'absent')!r} queued"
    return found


KINDS_OF_DIFFERENCE = {"added": ADDED, "left out": LEFT_OUT, "other": OTHER, "changed": CHANGED}


def not_on_the_page(found: dict[str, str]) -> list[str]:
    return [f"{key}: {what}" for key, what in found.items() if what not in KINDS_OF_DIFFERENCE]


def response_differences(direct: Answer, queued: Any, request: Request) -> list[str]:
    wrong = []
    if (direct.status, direct.reason) != (queued.status_code, queued.status.partition(" ")[2]):
        wrong.append(f"status {direct.status} {direct.reason} directly, {queued.status} queued")
    headers = [pair for pair in direct.headers if pair[0].lower() not in OF_THE_CONNECTION]
    names = {name.lower() for name, _ in queued.headerlist}
    if "content-length" not in names:
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]  # the server has counted
    # waitress capitalises the names
    if sorted((name.lower(), value) for name, value in headers) != sorted(
        (name.lower(), value) for name, value in queued.headerlist
    ):
        wrong.append(f"headers {headers} directly, {queued.headerlist} queued")
    if request.method != "HEAD" and direct.body != queued.body:
        wrong.append(f"body {direct.body!r:.200} directly, {queued.body!r:.200} queued")
    return wrong


def test_a_hundred_requests_reach_the_application_through_the_queue_as_they_do_through_waitress(stand: Stand) -> None:
    assert len(ALL) >= 100
    wrong: list[str] = []
    answers: list[tuple[Answer, Any]] = []
    for number, request in enumerate(ALL):
        direct = stand.web(request).send(*on_the_wire(request, ("X-Number", f"d{number}")))
        answers.append((direct, called(stand, request, f"c{number}") if request.callable else None))
        deferred = stand.web(request).send(*on_the_wire(request, ("X-Number", f"r{number}"), ("X-Defer", "replay")))
        if deferred.status != 202:
            wrong.append(
                f"{request}\n    replay() answered {deferred.status} {deferred.text}\n{stand.root.log[-2000:]}"
            )
    assert not wrong, "\n".join(wrong)
    seen = {("REQUEST_METHOD", "changed"), ("HTTP_COOKIE", "changed")}  # waitress spoils these: tested below
    for number, request in enumerate(ALL):
        direct_environ = stand.read(f"d{number}")
        assert direct_environ is not None, request
        found = []
        response, answer = answers[number]
        if answer is not None:
            environ = stand.read(f"c{number}")
            assert environ is not None, (request, answer)
            differing = differences(direct_environ, environ, request)
            found += [f"call: {line}" for line in not_on_the_page(differing)]
            seen.update(differing.items())
            found += [f"call: {line}" for line in response_differences(response, answer, request)]
        environ = until(lambda number=number: stand.read(f"r{number}"), f"replay of {request}")  # type: ignore[misc]
        differing = differences(direct_environ, environ, request)
        found += [f"replay: {line}" for line in not_on_the_page(differing)]
        seen.update(differing.items())
        if found:
            wrong.append("\n    ".join([str(request), *found]))
    assert not wrong, f"{len(wrong)} of {len(ALL)}:\n" + "\n".join(wrong)
    assert seen == {(key, kind) for kind, keys in KINDS_OF_DIFFERENCE.items() for key in keys}
    print(f"{len(ALL)} requests, {sum(r.callable for r in ALL)} of them by call() too; all compared key by key")


def test_a_slash_too_many_and_the_case_of_a_method_are_kept(stand: Stand) -> None:
    for number, service in (("k1", "GET //a//b"), ("k2", "Get /x")):
        stand.app.gearman.call(service, headers={"X-Number": number})
    first, second = stand.read("k1"), stand.read("k2")
    assert first is not None
    assert second is not None
    assert (first["PATH_INFO"], second["REQUEST_METHOD"]) == ("//a//b", "Get")


# -- the original request's surroundings -------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FROM_OUTSIDE = [
    ("Host", "shop.example.org:8443"),
    ("Accept-Language", "de"),
    ("X-Request-ID", "r-7"),
    ("traceparent", TRACE),
    ("tracestate", "a=1"),
    ("X-Forwarded-For", "1.2.3.4"),
    ("X-Forwarded-Proto", "https"),
    ("Cookie", "session=secret"),
    ("Authorization", "Bearer secret"),
    ("X-Private", "stays"),
    ("X-Gearman-Attempt", "9"),
]


@pytest.mark.parametrize(
    "inherit", [[], ["Cookie", "AUTHORIZATION", "remote_user"]], ids=["nothing", "who the user is"]
)
def test_a_task_brings_its_requests_surroundings_and_who_the_user_is_only_where_asked(
    embedded_site: Bench, inherit: list[str]
) -> None:
    folder = embedded_site.folder
    shutil.copy(APPS / "mirror.py", folder / "mirror.py")
    (folder / "signed_in.py").write_text(
        "from mirror import application as inner\n"
        "def application(environ, start_response):\n"
        "    if 'gearwsgi.job' not in environ:\n"
        "        environ['REMOTE_USER'] = 'alice'\n"
        "    return inner(environ, start_response)\n"
    )
    env = {"SEEN": str(folder), "SETTINGS": json.dumps({"inherit": inherit})}
    web = WebServer(
        folder,
        "signed_in:application",
        {**embedded_site.env, **env},
        prefix=MOUNT,
        arguments=[*KEEP_ALL, "--url-scheme=https"],
    )
    try:
        embedded_site.worker("--workers", "1", app="signed_in:application", env=env)
        web.ready()
        headers = [("X-Number", "direct"), *FROM_OUTSIDE]
        assert web.send("POST", MOUNT + "/queue", [("X-Number", "task"), *FROM_OUTSIDE], b"").status == 202
        assert web.send("POST", MOUNT + "/x?a=1", headers, b"abc").status == 200
        replayed = [("X-Number", "replay"), ("X-Defer", "replay"), *FROM_OUTSIDE]
        assert web.send("POST", MOUNT + "/x?a=1", replayed, b"abc").status == 202
        seen = {
            name: json.loads(until((folder / f"{name}.json").exists, name) and (folder / f"{name}.json").read_text())
            for name in ("direct", "task", "replay")
        }
    finally:
        web.stop()
    same = (
        "wsgi.url_scheme HTTP_HOST SCRIPT_NAME REMOTE_ADDR HTTP_ACCEPT_LANGUAGE HTTP_X_REQUEST_ID HTTP_TRACEPARENT "
        "HTTP_TRACESTATE HTTP_X_FORWARDED_FOR HTTP_X_FORWARDED_PROTO"
    )
    for key in same.split():
        assert seen["direct"][key] == seen["task"][key] == seen["replay"][key], key
    assert (seen["task"]["PATH_INFO"], seen["task"]["QUERY_STRING"]) == ("/landed", "x=1")
    assert seen["replay"]["HTTP_X_PRIVATE"] == "stays"
    assert "HTTP_X_PRIVATE" not in seen["task"]
    for name in ("task", "replay"):
        assert seen[name]["SERVER_NAME"] == "shop.example.org"
        assert seen[name]["SERVER_PORT"] == "8443"
        assert seen[name]["HTTP_X_GEARMAN_ATTEMPT"] == "1"
        who = {key: seen[name].get(key) for key in ("HTTP_COOKIE", "HTTP_AUTHORIZATION", "REMOTE_USER")}
        if inherit:
            assert set(who.values()) == {"session=secret", "Bearer secret", "alice"}
        else:
            assert set(who.values()) == {None}


# -- the request in hand -----------------------------------------------------------------------------------------------


class Stream:
    """A request's body as gunicorn gives it: it can't go back, and gives a little at a time."""

    def __init__(self, content: bytes) -> None:
        self.left = content

    def read(self, size: int) -> bytes:
        part, self.left = self.left[: min(size, 7)], self.left[min(size, 7) :]
        return part


def replayed(site: Bench, environ: dict[str, Any], number: str, handler: Any = None, **settings: Any) -> dict[str, Any]:
    """Send `environ` into a handler that replays it; the environ that the worker's application saw."""
    problems: list[BaseException] = []

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            (handler or (lambda environ: environ["gearman"].replay()))(environ)
        except BaseException as error:
            problems.append(error)
        return []

    application = GearmanMiddleware(page, servers=site.server.address, state_dir=site.state_dir, **settings)
    base: dict[str, Any] = {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "example.org",
        "REQUEST_METHOD": "POST",
        "HTTP_X_NUMBER": number,
    }
    base["wsgi.input"] = io.BytesIO()
    try:
        application({**base, "SCRIPT_NAME": "", "PATH_INFO": "/x", **environ}, lambda *_: None)
    finally:
        application.client.close()
    if problems:
        raise problems[0]
    path = site.folder / f"{number}.json"
    until(path.exists, number)
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module", params=[pytest.param("embedded", marks=pytest.mark.xdist_group("fidelity-landing"))])
def landing(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A job server and a worker with the mirror."""
    with bench(request.param) as made:
        shutil.copy(APPS / "mirror.py", made.folder / "mirror.py")
        made.worker("--workers", "1", app="mirror:application", env={"SEEN": str(made.folder)})
        yield made


def digest(body: bytes) -> str:
    return f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"


def body_environ(body: bytes, stream: Any = None) -> dict[str, Any]:
    return {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "x/y", "wsgi.input": stream or io.BytesIO(body)}


def test_a_replay_is_not_sent_elsewhere_by_an_alias_of_the_same_name(landing: Bench) -> None:
    tasks = {"/x": "/elsewhere", "POST /x": "/elsewhere"}
    assert replayed(landing, {}, "alias", tasks=tasks)["PATH_INFO"] == "/x"


def test_a_replay_goes_where_the_request_entered_whatever_an_inner_mount_made_of_the_path(landing: Bench) -> None:
    def mounted_inside(environ: dict[str, Any]) -> None:
        environ.update(SCRIPT_NAME="/outer/inner", PATH_INFO="/page", QUERY_STRING="", REQUEST_METHOD="GET")
        environ["gearman"].replay()

    environ = {"SCRIPT_NAME": "/outer", "PATH_INFO": "/inner/page", "QUERY_STRING": "a=1"}
    seen = replayed(landing, environ, "inner", mounted_inside)
    assert [seen[key] for key in ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")] == [
        "POST",
        "/outer",
        "/inner/page",
        "a=1",
    ]


def test_a_replay_keeps_the_clients_percent_encoding_where_the_server_tells_it(landing: Bench) -> None:
    environ = {"SCRIPT_NAME": "/m", "PATH_INFO": "/a/b c", "QUERY_STRING": "q=%20"}
    for number, key, uri in (
        ("raw1", "REQUEST_URI", "/m/a%2fb%20c?q=%20"),
        ("raw2", "RAW_URI", "http://example.org/m/a%2fb%20c?q=%20"),
    ):
        seen = replayed(landing, {**environ, key: uri}, number)
        assert (seen["PATH_INFO"], seen["REQUEST_URI"]) == ("/a/b c", "/m/a%2fb%20c?q=%20")
    # One that does not fit what the server made of it is not believed.
    for number, uri in (("raw3", "/m/other?q=%20"), ("raw4", "/a%2fb%20c?q=%20"), ("raw5", "\x00"), ("raw6", "*")):
        seen = replayed(landing, {**environ, "REQUEST_URI": uri}, number)
        assert (seen["PATH_INFO"], seen["REQUEST_URI"]) == ("/a/b c", "/m/a/b%20c?q=%20")


def test_a_replay_carries_a_query_that_is_not_ascii_as_its_bytes(landing: Bench) -> None:
    seen = replayed(landing, {"QUERY_STRING": "q=\xc3\xa9#x"}, "query")
    assert seen["QUERY_STRING"] == "q=%C3%A9%23x"


def test_a_replay_leaves_the_body_to_who_reads_it_next(landing: Bench) -> None:
    left = []

    def handler(environ: dict[str, Any]) -> None:
        environ["gearman"].replay()
        left.append(environ["wsgi.input"].read())

    seen = replayed(landing, body_environ(b"twenty bytes of body", Stream(b"twenty bytes of body")), "left", handler)
    assert left == [b"twenty bytes of body"]
    assert seen["body"] == digest(b"twenty bytes of body")


def test_a_body_that_was_read_before_is_read_again_where_the_server_can_go_back(landing: Bench) -> None:
    stream = io.BytesIO(b"once read")

    def handler(environ: dict[str, Any]) -> None:
        environ["wsgi.input"].read()
        environ["gearman"].replay()

    assert replayed(landing, body_environ(b"once read", stream), "again", handler)["body"] == digest(b"once read")
    assert stream.read() == b"once read"  # a framework may hold this very stream


def test_a_body_that_was_read_before_and_is_gone_is_an_error_unless_it_is_given(landing: Bench) -> None:
    """Never a task whose body is silently empty."""

    def reads(environ: dict[str, Any]) -> None:
        environ["wsgi.input"].read(5)
        environ["gearman"].replay()

    with pytest.raises(InvalidTask, match="only 4 of them are left"):
        replayed(landing, body_environ(b"once read", Stream(b"once read")), "gone", reads)

    def gives(environ: dict[str, Any]) -> None:
        environ["wsgi.input"].read(5)
        environ["gearman"].replay(body=b"once read")

    environ = body_environ(b"once read", Stream(b"once read"))
    assert replayed(landing, environ, "given", gives)["body"] == digest(b"once read")


def test_a_chunked_body_travels_where_the_server_says_where_it_ends(landing: Bench) -> None:
    environ = {
        "wsgi.input": io.BytesIO(b"dechunked"),
        "HTTP_TRANSFER_ENCODING": "chunked",
        "wsgi.input_terminated": True,
    }
    seen = replayed(landing, environ, "chunked")
    assert seen["body"] == digest(b"dechunked")
    assert seen["CONTENT_LENGTH"] == "9"
    assert "HTTP_TRANSFER_ENCODING" not in seen
    with pytest.raises(InvalidTask, match="body ends"):
        replayed(landing, {**environ, "wsgi.input_terminated": False}, "endless")


def test_what_can_not_be_replayed_is_an_error(landing: Bench) -> None:
    gearman = landing.app().gearman
    with pytest.raises(InvalidTask, match="needs a request"):
        gearman.replay()
    with pytest.raises(InvalidTask, match="no path"):
        replayed(landing, {"PATH_INFO": "*", "REQUEST_METHOD": "OPTIONS"}, "star")
    with pytest.raises(InvalidTask, match="replay already"):
        replayed(landing, {"gearwsgi.job": object()}, "twice")
    with pytest.raises(InvalidTask, match="max_body"):
        replayed(landing, body_environ(b"too long"), "long", max_body=3)
    with pytest.raises(InvalidTask, match="max_body"):
        replayed(landing, {}, "long", lambda environ: environ["gearman"].replay(body=b"too long"), max_body=3)


def test_a_replay_takes_the_options_of_a_task(landing: Bench) -> None:
    def handler(environ: dict[str, Any]) -> None:
        environ["gearman"].replay(priority="high", max_attempts=2, timeout=9, unique="only-once")

    assert replayed(landing, {}, "options", handler)["HTTP_X_GEARMAN_MAX_ATTEMPTS"] == "2"
    for bad in ({"priority": "urgent"}, {"delay": -1}, {"max_attempts": 0}, {"queue": "a b"}, {"unique": "-"}):
        with pytest.raises(InvalidTask):
            replayed(landing, {}, "bad", lambda environ, bad=bad: environ["gearman"].replay(**bad))


# -- other things that must arrive as they were given ------------------------------------------------------------------


def test_an_empty_body_that_was_given_has_a_length_and_one_that_was_not_has_none(landing: Bench) -> None:
    gearman = landing.app().gearman
    cases: list[tuple[str, dict[str, Any]]] = [
        ("DELETE /x", {}),
        ("POST /x", {}),
        ("OPTIONS /x", {"body": b""}),
        ("/x", {"form": {}}),
        ("/x", {"data": {}}),
    ]
    seen = []
    for number, (service, arguments) in enumerate(cases):
        gearman.call(service, headers={"X-Number": f"e{number}"}, **arguments)
        seen.append(json.loads((landing.folder / f"e{number}.json").read_text()))
    assert [each.get("CONTENT_LENGTH") for each in seen] == [None, "0", "0", "0", "2"]
    assert [each.get("CONTENT_TYPE") for each in seen] == [
        None,
        None,
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "application/json",
    ]


def test_an_idempotency_key_of_the_callers_own_travels_alone(landing: Bench) -> None:
    landing.app().gearman.call("/x", headers={"X-Number": "key", "idempotency-key": "mine"})
    assert json.loads((landing.folder / "key.json").read_text())["HTTP_IDEMPOTENCY_KEY"] == "mine"


def test_two_cookie_headers_become_one_that_cookies_can_be_read_from(landing: Bench) -> None:
    landing.app().gearman.call("/x", headers=[("X-Number", "cookies"), ("Cookie", "a=1"), ("Cookie", "b=2")])
    assert json.loads((landing.folder / "cookies.json").read_text())["HTTP_COOKIE"] == "a=1; b=2"


def test_a_task_waits_for_whoever_is_asked_to_submit_it_later(landing: Bench) -> None:
    gearman = landing.app().gearman
    later: list[Any] = []
    task = gearman.task("/x", headers={"X-Number": "later"}, after=later.append)
    assert (str(task), len(later)) == ("", 1)
    with pytest.raises(InvalidTask):  # what can't be a request is said at the call
        gearman.task("no such service", after=later.append)
    with pytest.raises(InvalidTask, match="give one"):
        gearman.task("/x", after=later.append, after_response=True)
    assert len(later) == 1
    assert landing.server.queued() == 0
    later[0]()
    assert str(task)
    until((landing.folder / "later.json").exists, "the task")


# -- another server ----------------------------------------------------------------------------------------------------


def test_under_gunicorn_the_request_in_hand_is_replayed_as_it_was_sent(landing: Bench) -> None:
    """Its body can't be rewound, may come in chunks without a length, and the target as sent is in RAW_URI."""
    log = landing.folder / "gunicorn.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "--workers=1", "mirror:application"],
            cwd=landing.folder,
            env={**os.environ, **landing.env, "SEEN": str(landing.folder)},
            stdout=file,
            stderr=file,
        )
    try:
        listening = until(lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text()), "gunicorn")
        head = "Host: example.org\r\nX-Defer: replay\r\nConnection: close\r\n"
        sent = {
            "g1": f"PUT /a%2Fb?q=%20 HTTP/1.1\r\n{head}X-Number: g1\r\nContent-Length: 3\r\n\r\nabc",
            "g2": f"PUT /a%2Fb?q=%20 HTTP/1.1\r\n{head}X-Number: g2\r\nTransfer-Encoding: chunked\r\n\r\n"
            "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        }
        for number, request in sent.items():
            with socket.create_connection(("127.0.0.1", int(listening[1])), 60) as connection:
                connection.sendall(request.encode())
                assert b" 202 " in connection.makefile("rb").readline(), log.read_text()
            path = landing.folder / f"{number}.json"
            until(path.exists, number)
            seen = json.loads(path.read_text())
            assert (seen["REQUEST_METHOD"], seen["PATH_INFO"], seen["REQUEST_URI"]) == ("PUT", "/a/b", "/a%2Fb?q=%20")
            assert (seen["body"], seen["CONTENT_LENGTH"]) == (digest(b"abc"), "3")
    finally:
        server.terminate()
        server.wait(60)

"""`after_response`: submitted when the response went out whole, with a status under 400; else never."""

import json
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import kinds, require
from tests.serving import Site
from tests.support import bench, until

APP = """
import io, json, os
from gearwsgi import GearmanMiddleware

BIG = 64 * 1024

class Body:
    def __init__(self, chunks, fails=False):
        self.chunks, self.fails = chunks, fails
    def __iter__(self):
        return iter(self.chunks)
    def close(self):
        if self.fails:
            raise RuntimeError("close failed on purpose")

def note(**what):
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (json.dumps(what) + "\\n").encode())
    os.close(fd)

def app(environ, start_response):
    gearman = environ["gearman"]
    name = environ["PATH_INFO"].strip("/")
    if "gearwsgi.job" in environ:
        note(n=environ["gearwsgi.job"].data["n"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]
    def later(n=name):
        return gearman.task("/work", {"n": n}, after_response=True)
    if name.isdigit():
        task = later()
        start_response(name + " Whatever", [("Content-Type", "text/plain"), ("X-Handle", str(task))])
        return [] if name in ("204", "304") else [b"body"]
    if name == "generator":
        return generator(start_response, later)
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if name == "raises":
        later()
        raise LookupError("on purpose")
    if name == "raises midway":
        later()
        return midway()
    if name == "close fails":
        later()
        return Body([b"body"], fails=True)
    if name == "write":
        later()
        write(b"written")
        return []
    if name == "file":
        later()
        return environ["wsgi.file_wrapper"](io.BytesIO(b"a file"))
    if name == "tuple":
        later()
        return (b"a ", b"tuple")
    if name == "object":
        later()
        return Body([b"an object"])
    if name == "several":
        for n in range(30):
            later(n)
        return [b"several"]
    if name == "endless":
        later()
        return endless()
    if name == "thread":
        import threading
        thread = threading.Thread(target=later)
        thread.start()
        thread.join()
        return [b"thread"]
    return [b"nothing"]

def generator(start_response, later):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one "
    later()
    yield b"two"

def midway():
    yield b"some"
    raise LookupError("on purpose")

def endless():
    try:
        while True:
            yield b"x" * BIG
    finally:
        note(n="endless was closed")

application = GearmanMiddleware(app)
"""


@pytest.fixture(scope="module", params=kinds("after-response"))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    require(request.param)
    with bench(request.param) as made:
        (made.folder / "later.py").write_text(APP)
        site = Site(made, "later:application")
        try:
            yield site
        finally:
            site.close()


@pytest.fixture(autouse=True)
def afresh(site: Site) -> None:
    site.forget()


def sent(site: Site) -> list[object]:
    """What has been queued up to now: all of it was, before a last one that is."""
    assert site.web.get("/200").status == 200
    until(lambda: '"200"' in site.bench.record.read_text(), "the last one")
    found = [json.loads(line)["n"] for line in site.bench.lines()]
    assert found.pop() == "200"
    return found


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("generator", "one two"),
        ("write", "written"),
        ("file", "a file"),
        ("tuple", "a tuple"),
        ("object", "an object"),
        ("thread", "thread"),
        ("201", "body"),
        ("204", ""),
        ("302", "body"),
        ("304", ""),
        ("399", "body"),
    ],
)
def test_it_is_queued_once_whatever_the_body_is(site: Site, name: str, body: str) -> None:
    answer = site.web.get("/" + name)
    assert answer.text == body
    assert answer.header("X-Handle") in (None, "")  # there is none yet
    assert sent(site) == [name]


def test_a_head_request_counts_too(site: Site) -> None:
    assert site.web.send("HEAD", "/201").status == 201
    assert sent(site) == ["201"]


@pytest.mark.parametrize("name", ["400", "404", "500", "503", "raises"])
def test_it_is_never_queued_where_the_response_is_an_error(site: Site, name: str) -> None:
    site.web.get("/" + name)
    assert sent(site) == []


@pytest.mark.parametrize(("name", "got"), [("raises%20midway", b"some"), ("close%20fails", b"body")])
def test_it_is_never_queued_where_the_body_breaks_off_or_its_close_raises(site: Site, name: str, got: bytes) -> None:
    with socket.create_connection(("127.0.0.1", site.web.port), 60) as connection:
        connection.sendall(f"GET /{name} HTTP/1.0\r\n\r\n".encode())
        assert connection.makefile("rb").read().endswith(got)
    assert sent(site) == []


def test_it_is_never_queued_where_the_client_goes_away(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.web.port), 60) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536)
    until(lambda: "endless was closed" in site.bench.record.read_text(), "the body's end")
    site.forget()
    assert sent(site) == []


def test_several_keep_their_order(site: Site) -> None:
    assert site.web.get("/several").text == "several"
    assert sent(site) == list(range(30))

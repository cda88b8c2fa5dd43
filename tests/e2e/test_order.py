"""Inside and outside of the middlewares that applications have: both must do their work, in requests and in replays."""

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serving import Site
from tests.support import APPS, Bench, bench, until

NAMES = ("whitenoise", "proxyfix", "beaker", "sentry", "opentelemetry", "all")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def server() -> Iterator[Bench]:
    """One job server for all; each order has a queue, a worker and a web server of its own."""
    with bench("embedded") as made:
        yield made


@pytest.fixture
def make(server: Bench) -> Iterator[Callable[[str], Site]]:
    sites: list[Site] = []

    def make(order: str) -> Site:
        folder = server.folder / order.replace(":", "-")
        (folder / "static").mkdir(parents=True)
        (folder / "static" / "a.txt").write_text("a static file")
        shutil.copy(APPS / "ordered.py", folder / "ordered.py")
        own = Bench.__new__(Bench)  # with the job server of all
        own.__dict__.update(server.__dict__, folder=folder, record=folder / "record.txt", workers=server.workers)
        own.record.touch()
        sites.append(
            Site(own, "ordered:application", {"ORDER": order}, arguments=["--no-clear-untrusted-proxy-headers"])
        )
        return sites[-1]

    yield make
    for site in sites:
        site.close()
        site.worker.kill()


def having(site: Site, key: str, count: int = 1) -> list[dict[str, Any]]:
    """The records that have a key, as soon as there are so many."""

    def found() -> list[dict[str, Any]]:
        records = [json.loads(line) for line in site.bench.lines()]
        return [record for record in records if key in record]

    until(lambda: len(found()) >= count, f"{count} of {key} in {site.bench.lines()}\n{site.worker.log}")
    return found()


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("name", NAMES)
def test_both_do_their_work_in_either_order(make: Callable[[str], Site], name: str, place: str) -> None:
    site = make(f"{name}:{place}")
    web = site.web
    client, url = "127.0.0.1", f"http://{web.host}/work"
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    user = None
    if name in ("proxyfix", "all"):
        headers |= {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example.org"}
        headers |= {"X-Forwarded-Prefix": "/shop"}
        client, url = "9.9.9.9", "https://shop.example.org/shop/work"
    if name in ("beaker", "all"):
        user = "alice"
        cookie = web.get("/login").header("Set-Cookie")
        assert cookie is not None
        headers["Cookie"] = cookie.partition(";")[0]
    for page in ("/queue", "/later"):
        assert web.get(page, **headers).text == "page " + page
    assert having(site, "run", 2) == [
        {"run": "/work", "url": url, "client": client, "user": user, "attempt": 1} for _ in range(2)
    ]
    if name in ("whitenoise", "all"):
        assert web.get("/static/a.txt").text == "a static file"
        gearman = site.bench.app(queue=f"{name}-{place}").gearman
        assert gearman.call("GET /static/a.txt").text == "a static file"
    if name in ("sentry", "all"):
        gearman = site.bench.app(queue=f"{name}-{place}").gearman
        gearman.task("/boom", headers={"Host": "shop.example.org"}, max_attempts=2)
        # Seen by Sentry in each attempt, and by the queue: it was tried again.
        errors = having(site, "sentry", 2)
        assert [error["sentry"] for error in errors] == ["LookupError"] * 2
        assert {error["url"] for error in errors} == {"http://shop.example.org/boom"}
        assert [run["attempt"] for run in having(site, "run") if run["run"] == "/boom"] == [1, 2]
    if name in ("opentelemetry", "all"):
        # The span of a request and of its job are of one trace; so are those of the second pair.
        spans = [span for span in having(site, "span", 4) if span["trace"] == TRACE]
        assert len(spans) == 4
        assert len({span["path"] for span in spans}) == 2  # the web's process and the worker's


def test_a_dispatcher_that_mounts_ours_is_no_application_for_the_worker_and_what_it_mounts_is(server: Bench) -> None:
    """Through the dispatcher a job would be routed by its path below the mount."""
    (server.folder / "mounted.py").write_text(
        "import os\n"
        "from wsgiref.util import request_uri\n"
        "from werkzeug.middleware.dispatcher import DispatcherMiddleware\n"
        "from gearwsgi import GearmanMiddleware\n"
        "def inner(environ, start_response):\n"
        "    if 'gearwsgi.job' in environ:\n"
        "        with open('mounted.txt', 'a') as file:\n"
        "            file.write(request_uri(environ) + '\\n')\n"
        "    else:\n"
        "        environ['gearman'].task('default.index')\n"
        "    start_response('200 OK', [])\n"
        "    return [b'inner']\n"
        "wrapped = GearmanMiddleware(inner, queue='mounted')\n"
        "application = DispatcherMiddleware(inner, {'/app': wrapped})\n"
    )
    worker = server.start_worker("--workers", "1", app="mounted:application")
    assert worker.process.wait(60) != 0
    assert "no GearmanMiddleware around it" in worker.log
    site = Site(server, "mounted:application", worker_app="mounted:wrapped")
    try:
        assert site.web.get("/app/page").text == "inner"
        written = server.folder / "mounted.txt"
        until(lambda: written.exists() and written.read_text(), "the job")
        assert written.read_text() == f"http://{site.web.host}/app/default/index\n"
    finally:
        site.close()


# -- finding ours in theirs --------------------------------------------------------------------------------------------

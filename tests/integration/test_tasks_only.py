"""Paths that only a replay may reach: 404 for the public, whatever the spelling, and a run for the queue."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import kinds, require
from tests.serving import Site, WebServer
from tests.support import bench
from tests.unit.submit.test_guard import guarded

APP = '''
import json, os
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    """Finds its pages as the laxest of frameworks would: slashes collapsed, dot segments resolved."""
    import posixpath
    path = posixpath.normpath("/" + environ["PATH_INFO"].replace("//", "/").strip("/"))
    if "gearwsgi.job" in environ:
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps([environ["SCRIPT_NAME"], environ["PATH_INFO"]]) + "\\n")
    if path == "/queue":
        environ["gearman"].task(bytes.fromhex(environ["QUERY_STRING"]).decode())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [path.encode("latin-1")]

application = GearmanMiddleware(app, tasks_only=["/tasks/*", "/internal", "/caf\\u00e9/*", "/v?/jobs/[ab]*"])
'''

MOUNT = "/mount"

_FORBIDDEN = """
/tasks
/tasks/ /tasks/x /tasks/x/y /tasks/x?y=/open /tasks/../tasks/x /tasks// //tasks/x ///tasks//x /./tasks/x /tasks/./x
/open/../tasks/x /open/./../tasks/x /a/b/../../tasks/x /../tasks/x /../../tasks/x /tasks/x/.. /tasks/x/../y /tasks/.
/tasks/%2e%2e/tasks/x /open/%2e%2e/tasks/x /open/%2E%2E/tasks/x /%2e/tasks/x %2ftasks/x /%2ftasks/x /%2Ftasks%2Fx
/tasks%2fx /tasks%2Fx /%74asks/x /%74%61%73%6b%73%2f%78 /%74%61%73%6B%73/x /tasks/%2e%2e%2ftasks%2fx
/open%2f..%2ftasks%2fx /tasks/%00 /tasks/%0ax /tasks/%C3%A9 /tasks/;a=b /tasks/http://x/ /open/..//tasks/x
//open//..//tasks//x /internal /internal? /internal?x=1 //internal /./internal /x/../internal
/internal/. /%69nternal /internal/x/..
/caf%C3%A9/x /caf%c3%a9/x /x/../caf%c3%a9/x
/v1/jobs/a /v2/jobs/bc /v%31/jobs/%61
"""
FORBIDDEN = _FORBIDDEN.split()

_OPEN = """
/ /open /open/tasks/x /tasksx /task /Tasks/x /tasks%252Fx /tasks%25%32%46x /internal/x /internals /x/internal
/caf/x /v11/jobs/a /v1/jobs/c /tasks/../open
"""
OPEN = _OPEN.split()
"""A percent sign that is encoded twice is one in the name; `/tasks/../open` is /open
for who resolves it, and forbidden for who does not."""


@pytest.fixture(scope="module", params=kinds("tasks-only"))
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Site, WebServer]]:
    """The application at the root, and mounted."""
    require(request.param)
    with bench(request.param) as made:
        (made.folder / "guarded.py").write_text(APP)
        site = Site(made, "guarded:application")
        mounted = WebServer(made.folder, "guarded:application", site.env, prefix=MOUNT)
        try:
            yield site, mounted.ready()
        finally:
            mounted.stop()
            site.close()


def test_the_public_gets_404_whatever_the_spelling_the_method_and_the_mount(site: tuple[Site, WebServer]) -> None:
    root, mounted = site[0].web, site[1]
    wrong = []
    for path in FORBIDDEN:
        targets = [(root, path)] if path.startswith("/") else []
        if not path.startswith("//"):
            targets.append((mounted, MOUNT + ("" if path.startswith("/") else "/") + path))
        for web, target in targets:
            answer = web.get(target)
            if answer.status != 404:
                wrong.append(f"{target} answered {answer.status} {answer.text}")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PURGE"):
        answer = root.send(method, "/tasks/x", [("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/open")])
        if answer.status != 404:
            wrong.append(f"{method} answered {answer.status}")
    assert not wrong, "\n".join(wrong)


def test_all_other_paths_stay_open(site: tuple[Site, WebServer]) -> None:
    resolved_only_by_some = {"/tasks/../open"}
    for path in OPEN:
        expected = 404 if path in resolved_only_by_some else 200
        assert site[0].web.get(path).status == expected, path
        assert site[1].get(MOUNT + path).status == expected, path


def test_no_header_makes_a_request_a_replay(site: tuple[Site, WebServer]) -> None:
    forged = [
        ("X-Gearman-Task", "1"),
        ("X-Gearman-Attempt", "1"),
        ("Idempotency-Key", "1"),
        ("User-Agent", "gearwsgi/9"),
        ("gearwsgi.job", "1"),
        ("Gearwsgi-Job", "1"),
    ]
    assert site[0].web.send("POST", "/tasks/x", forged).status == 404


def test_a_replay_reaches_them_all_and_only_a_replay(site: tuple[Site, WebServer]) -> None:
    root, mounted = site[0].web, site[1]
    site[0].forget()
    paths = [path for path in FORBIDDEN if path.startswith("/") and "?" not in path]
    for path in paths:
        assert root.get("/queue?" + path.encode().hex()).status == 200, path
    assert mounted.get(MOUNT + "/queue?" + b"tasks.clean".hex()).status == 200
    records = site[0].records(len(paths) + 1)
    assert len(records) == len(paths) + 1
    assert [MOUNT, "/tasks/clean"] in records
    assert ["", "/tasks/../tasks/x"] in records
    assert ["", "//tasks/x"] in records


def test_one_star_is_the_whole_application(site: tuple[Site, WebServer]) -> None:
    assert guarded(["/*"], "/") == guarded(["/*"], "") == guarded(["/*"], "/x") == 404


def test_the_404_is_a_plain_response(site: tuple[Site, WebServer]) -> None:
    answer = site[0].web.get("/tasks/x")
    assert (answer.status, answer.reason, answer.text) == (404, "Not Found", "404 Not Found\n")
    head = site[0].web.send("HEAD", "/tasks/x")
    assert (head.status, head.body) == (404, b"")
    assert json.dumps(answer.headers).lower().count("content-length") == 1

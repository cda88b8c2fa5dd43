"""The demo's pages and services, through waitress and a worker."""

import json
import re
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.demo.conftest import Tree, free_port, trees_in, wait_until

pytestmark = pytest.mark.xdist_group("demo app")


class Web:
    """The web application in its process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, body: bytes | None = None) -> tuple[int, str]:
        """GET, or POST when there is a body; status and text of the answer."""
        request = urllib.request.Request(f"{self.url}{path}", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def queue(self, path: str) -> dict[str, str]:
        status, text = self.get(path)
        assert status == 200, text
        answer: dict[str, str] = json.loads(text)
        assert answer["task"]
        return answer


@contextmanager
def served(tree: Tree) -> Iterator[Web]:
    """The web application of a tree."""
    tree.environ["PORT"] = str(free_port())
    with tree.popen("python3", "-m", "demo_app") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{tree.environ['PORT']}/"
            yield Web(url)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """A tree with two workers, for most tests."""
    with trees_in(tmp_path_factory.mktemp("demo")) as make:
        tree = make()
        tree.start(2)
        yield tree


@pytest.fixture(scope="module")
def web(worked: Tree) -> Iterator[Web]:
    with served(worked) as made:
        yield made


def test_every_link_of_the_front_page_queues_a_task_that_runs(worked: Tree, web: Web) -> None:
    status, page = web.get("")
    assert status == 200
    links = re.findall(r'<li><a href="([^"]+)"', page)
    assert len(links) == 4
    for link in links:
        worked.has_line(web.queue(link)["task"])


def test_the_webhook_that_the_front_page_shows_is_taken_as_it_stands_there(worked: Tree, web: Web) -> None:
    if not (shutil.which("curl") and shutil.which("openssl")):
        pytest.skip("curl or openssl is not installed")
    _, page = web.get("")
    command = re.findall(r'<pre id="hook"><code>(.*?)</code>', page, re.DOTALL)[0]
    command = command.replace("http://127.0.0.1:8080/", web.url)
    assert [json.loads(worked.run("sh", "-c", command).stdout)["status"] for _ in range(2)] == ["accepted", "duplicate"]
    worked.has_line('"name": "Ada", "verified": true')


def test_index_queues_its_parameters_for_the_service_and_answers_with_the_tasks_id(worked: Tree, web: Web) -> None:
    answer = web.queue("index/index?name=%E4%B8%AD%E6%96%87&city=Ulm")
    line = worked.has_line(answer["task"], "中文", "Ulm", '"hello": "world"')
    assert "default/index" in line or "default.index" in line


def test_the_alias_of_the_configuration_leads_to_its_service(worked: Tree, web: Web) -> None:
    answer = web.queue("index/test?name=Ada")
    worked.has_line(answer["task"], "Ada", '"test": "done"')
    worked.has_line(answer["task"], "/Test/task")


def test_the_status_page_shows_how_far_a_task_is(worked: Tree, web: Web) -> None:
    answer = web.queue("index/slow?seconds=6")

    def status() -> str:
        assert answer["status"].startswith(web.url)
        code, text = web.get(answer["status"].removeprefix(web.url))
        assert code == 200
        return str(json.loads(text)["status"])

    wait_until(lambda: re.search("running.*[1-5].*6", status()), "a running task with its progress")
    worked.has_line(answer["task"], '"counted": 6')


def test_the_flaky_service_succeeds_at_its_third_attempt(worked: Tree, web: Web) -> None:
    answer = web.queue("index/flaky?name=Ada")
    worked.has_line(answer["task"], "Ada", '"attempt": 3')


def test_the_service_answers_with_what_it_was_given(web: Web) -> None:
    status, text = web.get("default/index", b'{"name": "x", "nested": {"list": [1, 2]}, "odd": "\\ud800"}')
    assert status == 200
    answer = json.loads(text)
    assert answer.pop("timestamp")
    assert answer == {"name": "x", "nested": {"list": [1, 2]}, "odd": "\ud800", "hello": "world"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("default/index", b"{", 400),
        ("default/index", b"[1]", 400),
        ("default/index", b"\xff", 400),
        ("default/index?name=%FF", None, 400),
        ("nothing/here", None, 404),
        ("%FF", None, 404),
        ("slow/count", b"{}", 404),  # only a task may reach these two
        ("flaky/index", None, 404),
    ],
)
def test_a_request_that_makes_no_sense_is_the_callers_mistake(
    web: Web, path: str, body: bytes | None, status: int
) -> None:
    got, text = web.get(path, body)
    assert got == status, text


def test_what_is_queued_before_the_worker_starts_is_kept(tree: Tree) -> None:
    with served(tree) as web:
        status, text = web.get("index/index?name=early")
        assert status == 200, text
        tree.start()
        tree.has_line("early", '"hello": "world"')


@pytest.mark.parametrize("port", ["no number", "99999", None])
def test_a_port_that_can_not_be_had_is_said_in_one_line(tree: Tree, port: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        tree.environ["PORT"] = port or str(taken.getsockname()[1])
        done = tree.run("python3", "-m", "demo_app")
    assert done.returncode == 1
    assert "HOST and PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1

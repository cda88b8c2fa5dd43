"""Deferred uploads behind waitress and gunicorn: many at once, and amid them all that can be killed is."""

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.serving import WebServer
from tests.support import Bench, free_port, until

APP = """
import os, time
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    body = environ["wsgi.input"].read()
    time.sleep(0.005)
    if "gearwsgi.job" in environ:
        fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
        os.write(fd, f"{environ['QUERY_STRING']} {len(body)}\\n".encode())
        os.close(fd)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['QUERY_STRING']} {len(body)}".encode()]

application = GearmanMiddleware(
    app, defer=["POST /uploads"], secret_keys=["k" * 32], backoff_min=0.01, backoff_max=0.01, max_body=50_000,
)
"""
PIECES = [b"x" * 8000] * 5
SIZE = sum(map(len, PIECES))


class Gunicorn:
    """gunicorn with one process of eight threads, as `WebServer`."""

    def __init__(self, site: Bench) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "gunicorn", "--threads", "8", "-b", f"127.0.0.1:{self.port}"]
        with (site.folder / "gunicorn.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "uploads:application"], cwd=site.folder, env={**os.environ, **site.env}, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def ready(self) -> "Gunicorn":
        until(lambda: ask(self.port, "GET", "/")[0] == 200, "gunicorn")
        return self

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def ask(port: int, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of an answer; 0 where the server is gone. A body of several pieces is sent in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Storm:
    """Two web servers, a worker and a job server, with clients that never rest."""

    def __init__(self, site: Bench) -> None:
        (site.folder / "uploads.py").write_text(APP)
        self.site = site
        self.worker = site.worker("--workers", "2", app="uploads:application")
        self.web: list[WebServer | Gunicorn] = [self._serve(0), self._serve(1)]
        self.answers: list[tuple[str, int]] = []
        self.is_over = threading.Event()

    def _serve(self, number: int) -> WebServer | Gunicorn:
        if number:
            return Gunicorn(self.site).ready()
        return WebServer(self.site.folder, "uploads:application", self.site.env).ready()

    def send(self, numbers: Iterator[int]) -> None:
        """Upload until it is over; one in ten is too long."""
        while not self.is_over.is_set():
            number = next(numbers)
            pieces = PIECES * 2 if number % 10 == 0 else PIECES
            status, _ = ask(self.web[number % 2].port, "POST", f"/uploads?{number}", iter(pieces))
            self.answers.append((str(number), status))
            if not status:
                self.is_over.wait(0.02)  # nobody is there

    def taken(self) -> int:
        return sum(status == 202 for _, status in self.answers)

    def go_on(self, count: int = 30) -> None:
        goal = self.taken() + count
        until(lambda: self.taken() >= goal, "further uploads")

    def kill_web(self, number: int) -> None:
        self.web[number].stop()
        self.web[number] = self._serve(number)

    def kill_worker(self) -> None:
        self.worker.kill()
        self.worker = self.site.worker("--workers", "2", app="uploads:application")


def together(count: int, what: Any) -> None:
    threads = [threading.Thread(target=what, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fifty_at_once(storm: Storm) -> None:
    """Each gets its own response, half by waiting, half by asking until it is done."""
    failed: list[Any] = []

    def one(number: int) -> None:
        port = storm.web[number % 2].port
        target, wanted = f"/uploads?c{number}", (200, f"c{number} {SIZE}".encode())
        if number % 4 < 2:
            answer = ask(port, "POST", target, iter(PIECES), Prefer="wait=30")
        else:
            status, body = ask(port, "POST", target, iter(PIECES))
            path = "/" + json.loads(body)["status"].split("/", 3)[3] if status == 202 else "/"
            until(lambda: ask(port, "GET", f"{path}/result")[0] not in (409, 503), path)
            answer = ask(port, "GET", f"{path}/result")
        if answer != wanted:
            failed.append((number, answer))

    together(50, one)
    assert not failed


def test_each_202_runs_and_nothing_that_was_refused_whatever_is_killed(site: Bench) -> None:
    site.server.stop()
    site.server._durable = True
    site.server.start()
    storm = Storm(site)
    try:
        fifty_at_once(storm)
        clients = [threading.Thread(target=storm.send, args=(itertools.count(1 + each, 4),)) for each in range(4)]
        for client in clients:
            client.start()
        for step in (lambda: storm.kill_web(0), lambda: storm.kill_web(1), storm.kill_worker, site.server.restart):
            storm.go_on()
            step()
        storm.go_on()
        storm.is_over.set()
        for client in clients:
            client.join()
        accepted = {number for number, status in storm.answers if status == 202}
        refused = {number for number, status in storm.answers if status not in (0, 202)}
        in_doubt = {number for number, status in storm.answers if status == 0}
        assert {status for _, status in storm.answers} <= {0, 202, 413, 503}
        until(lambda: {line.split()[0] for line in site.lines()} >= accepted, "all that got a 202")
        until(lambda: site.server.queued() == 0 and not list((site.state_dir / "outbox").glob("*.http")), "no more")
    finally:
        storm.is_over.set()
        for web in storm.web:
            web.stop()
    runs = Counter(line.split()[0] for line in site.lines())
    assert not set(runs) & refused
    assert {line.split()[1] for line in site.lines()} == {str(SIZE)}
    again = {number: count for number, count in runs.items() if count > 1}
    print(
        f"{len(accepted)} accepted, {len(refused)} refused, {len(in_doubt)} in doubt, {len(again)} ran twice: {again}"
    )
    assert max(runs.values()) <= 3  # the end of the worker, and that of the job server, may catch the same job
    assert len(again) <= 20

"""The submitting process of one peer: `python -m benchmarks.probe PEER`, commands on stdin (harness.Probe).

One process a peer stays for all rounds, so imports and first connections are outside of every number.
"""

import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.bare import Bare

Send = Callable[[int, float], object]
Answer = dict[str, float]


def celery() -> Send:
    from benchmarks.peers.celery_app import work

    return work.delay


def huey() -> Send:
    from benchmarks.peers.huey_app import work

    return work


def dramatiq() -> Send:
    from benchmarks.peers.dramatiq_app import work

    return work.send


def rq() -> Send:
    from redis import Redis
    from rq import Queue

    from benchmarks.work import work

    queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_REDIS"]))
    return lambda number, wait: queue.enqueue(work, number, wait)


def http_push() -> Send:
    """The same request on a kept connection: what a push queue sends to the web server for each job."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["BENCH_HTTP"]), timeout=30)

    def send(number: int, wait: float) -> None:
        body = json.dumps({"number": number, "wait": wait}).encode()
        try:
            connection.request("POST", "/job", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            connection.close()  # the server of the last round; this one is new
            connection.request("POST", "/job", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
        with answer as response:
            response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}")

    return send


def bare() -> Send:
    link = Bare(os.environ["BENCH_GEARMAN"])
    count = iter(range(10**9))

    def send(number: int, wait: float) -> None:
        link.submit(b"bare", b"u%d" % next(count), json.dumps({"number": number, "wait": wait}).encode())

    return send


class Peer:
    """What a peer other than gearwsgi is asked: to submit some jobs one by one."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.began = 0

    def submit(self, start: int, n: int, wait: float = 0.0) -> None:
        send = self.send
        self.began = time.monotonic_ns()
        for number in range(start, start + n):
            send(number, wait)

    fill = submit


class BarePeer(Peer):
    def body(self, n: int, size: int) -> None:
        link, payload = Bare(os.environ["BENCH_GEARMAN"]), b"x" * size
        for number in range(n):
            link.submit(b"big", b"bare%d" % number, payload)


class Gearwsgi(Peer):
    """As a handler uses it: inside a request of an application that GearmanMiddleware wraps."""

    def __init__(self) -> None:
        from gearwsgi import GearmanMiddleware

        servers, state = os.environ["BENCH_GEARMAN"], os.environ["BENCH_STATE_DIR"]
        self.application = GearmanMiddleware(self._handler, servers=servers, state_dir=state)
        self._todo: Callable[[Any], None] = lambda gearman: None
        self.began = 0

    def _handler(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        gearman = environ["gearman"]
        self.began = time.monotonic_ns()  # what makes a request is not the queue's
        self._todo(gearman)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    def _request(self, todo: Callable[[Any], None]) -> None:
        self._todo = todo
        body = self.application(request_environ(), lambda status, headers, exc_info=None: lambda data: None)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()

    def submit(self, start: int, n: int, wait: float = 0.0) -> None:
        for first in range(start, start + n, 500):  # one request may queue a thousand

            def todo(gearman: Any, first: int = first) -> None:
                task = gearman.task
                for number in range(first, min(first + 500, start + n)):
                    task("/job", {"number": number, "wait": wait})

            self._request(todo)

    def batch(self, start: int, n: int, wait: float = 0.0) -> None:
        """The same, 100 a request, sent together once the response has gone out."""
        for first in range(start, start + n, 100):

            def todo(gearman: Any, first: int = first) -> None:
                for number in range(first, min(first + 100, start + n)):
                    gearman.task("/job", {"number": number, "wait": wait}, after_response=True)

            self._request(todo)

    fill = batch

    def body(self, n: int, size: int) -> None:
        payload = b"x" * size

        def todo(gearman: Any) -> None:
            for _ in range(n):
                gearman.task("/job", queue="big", body=payload, content_type="application/octet-stream")

        self._request(todo)

    def sink(self, start: int, n: int, size: int) -> None:
        """Like `body`, for a handler that reads it."""
        payload = b"x" * size

        def todo(gearman: Any) -> None:
            for number in range(start, start + n):
                gearman.task(f"/sink/{number}", body=payload, content_type="application/octet-stream")

        self._request(todo)

    def threads(self, start: int, n: int, count: int) -> None:
        """n tasks from `count` threads; each thread has a connection of its own."""
        share = n // count
        gearman = self.application.gearman

        def run(first: int) -> None:
            for number in range(first, first + share):
                gearman.task("/job", {"number": number, "wait": 0.0})

        threads = [threading.Thread(target=run, args=(start + index * share,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def request_environ() -> dict[str, Any]:
    """An environ as a web server makes it for an ordinary request of a browser."""
    from wsgiref.util import setup_testing_defaults

    environ: dict[str, Any] = {
        "PATH_INFO": "/index/index",
        "QUERY_STRING": "name=x",
        "HTTP_HOST": "127.0.0.1:8080",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_COOKIE": "session=0123456789abcdef",
        "REMOTE_ADDR": "127.0.0.1",
    }
    setup_testing_defaults(environ)
    return environ


def overhead(n: int) -> Answer:
    """Microseconds that the middleware adds to a request that queues nothing: with minus without."""
    from gearwsgi import GearmanMiddleware

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    servers, state = os.environ["BENCH_GEARMAN"], os.environ["BENCH_STATE_DIR"]
    wrapped = GearmanMiddleware(app, servers=servers, state_dir=state)
    environ = request_environ()

    def block(target: Callable[..., Iterable[bytes]]) -> float:
        began = time.process_time_ns()
        for _ in range(200):
            body = target(environ.copy(), lambda status, headers, exc_info=None: None)
            for _part in body:
                pass
            if hasattr(body, "close"):
                body.close()
        return (time.process_time_ns() - began) / 200 / 1000

    # Short blocks in turn, and the least of each: a pause of the machine then falls out of both.
    plain, queued = [], []
    for _ in range(n // 200):
        plain.append(block(app))
        queued.append(block(wrapped))
    return {"plain": min(plain), "wrapped": min(queued), "cost": min(queued) - min(plain)}


PEERS: dict[str, Callable[[], Peer]] = {
    "gearwsgi": Gearwsgi,
    "bare": lambda: BarePeer(bare()),
    "celery": lambda: Peer(celery()),
    "rq": lambda: Peer(rq()),
    "huey": lambda: Peer(huey()),
    "dramatiq": lambda: Peer(dramatiq()),
    "http": lambda: Peer(http_push()),
}


def count_calls(peer: Peer, n: int) -> Answer:
    """Python functions entered for one task; the request around them is shared out over n."""
    calls = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(seen)
    try:
        peer.submit(0, n)
    finally:
        sys.setprofile(None)
    return {"calls": calls / n}


def main() -> None:
    peer = PEERS[sys.argv[1]]()
    print("ready", flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        name = arguments.pop("command")
        if name == "overhead":
            answer = overhead(**arguments)
        elif name == "calls":
            answer = count_calls(peer, **arguments)
        else:
            method = getattr(peer, name)
            cpu, began = time.process_time(), time.monotonic_ns()
            method(**arguments)
            wall = (time.monotonic_ns() - began) / 1e9
            answer = {"wall": wall, "cpu": time.process_time() - cpu, "began": peer.began}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

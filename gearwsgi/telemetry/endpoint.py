"""Serves a supervisor's metrics and health: `/metrics`, `/livez`, `/readyz`, from threads of its own."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import waitress
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import make_wsgi_app

from ..address import Address
from .collector import Metrics, State

ALIVE = 10.0
"""Seconds in which the supervisor's loop must have made a turn, which takes it a fraction of one."""
_THREADS = 3
_CONNECTIONS = 50
_PATIENCE = 10
"""Seconds after which a connection is closed whose client neither sends nor reads."""


class Endpoint:
    """Listens as soon as it is made, and answers once it is started.

    Args:
        address: where to listen.
        state: what to show.

    Raises:
        OSError: that address can't be listened on.
    """

    def __init__(self, address: Address, state: State) -> None:
        self._state = state
        self._metrics = Metrics(state)
        registry: Any = CollectorRegistry()
        registry.register(self._metrics)
        self._show: Callable[..., Any] = make_wsgi_app(registry)
        self._socket = _listen(address)
        self._server: Any = None

    @property
    def address(self) -> Address:
        """Where it listens, with the port that it got."""
        host, port = self._socket.getsockname()[:2]
        return Address(host, port)

    def start(self) -> None:
        """Begin to answer."""
        # Requests that have to queue are the scraper's trouble: don't log them.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server = waitress.create_server(
            self._answer, sockets=[self._socket], threads=_THREADS, connection_limit=_CONNECTIONS,
            channel_timeout=_PATIENCE, cleanup_interval=_PATIENCE, asyncore_use_poll=True, ident=None,
        )  # fmt: skip
        threading.Thread(target=self._server.run, daemon=True, name="gearwsgi metrics").start()

    def close(self) -> None:
        """Stop listening; answers that are being sent end with this process."""
        self._socket.close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _respond(start_response, "405 Method Not Allowed", "GET is all that can be asked for")
        if path == "/metrics":
            shown: Iterable[bytes] = self._show(environ, start_response)
            return shown
        if path == "/livez":
            return self._respond_unless(start_response, self._why_not_alive())
        if path == "/readyz":
            return self._respond_unless(start_response, self._why_not_ready())
        return _respond(start_response, "404 Not Found", "there are /metrics, /livez and /readyz")

    def _why_not_alive(self) -> str:
        seconds = time.monotonic() - self._state.snapshot.at
        return f"the supervisor has done nothing for {seconds:.0f} s" if seconds > ALIVE else ""

    def _why_not_ready(self) -> str:
        if not self._state.snapshot.is_ready:
            return "the workers are not ready"
        return "" if self._metrics.has_server() else "no job server answers"

    @staticmethod
    def _respond_unless(start_response: Callable[..., Any], why_not: str) -> Iterable[bytes]:
        return _respond(start_response, "503 Service Unavailable" if why_not else "200 OK", why_not or "ok")


def _respond(start_response: Callable[..., Any], status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


def _listen(address: Address) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
        sock.listen(_CONNECTIONS)
    except OSError:
        sock.close()
        raise
    return sock

"""The limit: a socket, the protocol's bytes packed by hand, and nothing else.

`python -m benchmarks.bare` is the bare worker: it grabs one job at a time, calls the same Flask application
in its own process, and answers and grabs again in one write. It survives nothing and retries nothing.
"""

import io
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

HEADER = struct.Struct(">4sII")
REQUEST = b"\0REQ"
CAN_DO, PRE_SLEEP, NOOP, SUBMIT_JOB_BG, JOB_CREATED, WORK_COMPLETE = 1, 4, 6, 18, 8, 13
NO_JOB, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ = 10, 30, 31


def packet(kind: int, *fields: bytes) -> bytes:
    data = b"\0".join(fields)
    return HEADER.pack(REQUEST, kind, len(data)) + data


class Bare:
    """One connection to a job server; whole packets in and out."""

    def __init__(self, servers: str) -> None:
        host, _, port = servers.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def read(self) -> tuple[int, bytes]:
        left = self._left
        while len(left) < 12:
            left += self._some()
        _magic, kind, size = HEADER.unpack_from(left)
        while len(left) < 12 + size:
            left += self._some()
        self._left = left[12 + size :]
        return kind, left[12 : 12 + size]

    def _some(self) -> bytes:
        some = self.sock.recv(65536)
        if not some:
            raise ConnectionError("the job server closed the connection")
        return some

    def submit(self, queue: bytes, unique: bytes, payload: bytes) -> bytes:
        self.sock.sendall(packet(SUBMIT_JOB_BG, queue, unique, payload))
        kind, handle = self.read()
        if kind != JOB_CREATED:
            raise ConnectionError(f"expected JOB_CREATED, got packet {kind}")
        return handle

    def submit_many(self, queue: bytes, payloads: Iterable[bytes]) -> None:
        """Fill a queue quickly: all in flight at once (used to prepare, never to measure)."""
        batch: list[bytes] = []
        for payload in payloads:
            batch.append(packet(SUBMIT_JOB_BG, queue, os.urandom(8).hex().encode(), payload))
            if len(batch) == 200:
                self._flush(batch)
        self._flush(batch)

    def _flush(self, batch: list[bytes]) -> None:
        self.sock.sendall(b"".join(batch))
        for _ in batch:
            self.read()
        batch.clear()


Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def replay(app: Application, payload: bytes) -> bytes:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/job",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(payload)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(payload),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    status: list[str] = []
    body = app(environ, lambda line, headers, exc_info=None: status.append(line))
    try:
        result = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    if not status[0].startswith("2"):
        raise RuntimeError(f"the application answered {status[0]}")
    return result


def main() -> None:
    from benchmarks.peers.flask_app import app

    link = Bare(os.environ["BENCH_GEARMAN"])
    link.sock.settimeout(None)
    grab = packet(GRAB_JOB_UNIQ)
    link.sock.sendall(packet(CAN_DO, os.environ.get("BENCH_QUEUE", "bare").encode()) + grab)
    while True:
        kind, data = link.read()
        if kind == JOB_ASSIGN_UNIQ:
            handle, _queue, _unique, payload = data.split(b"\0", 3)
            link.sock.sendall(packet(WORK_COMPLETE, handle, replay(app, payload)) + grab)
        elif kind == NO_JOB:
            link.sock.sendall(packet(PRE_SLEEP))
        elif kind == NOOP:
            link.sock.sendall(grab)


if __name__ == "__main__":
    main()

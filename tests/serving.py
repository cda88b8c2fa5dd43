"""Applications served by waitress, as processes, and a client that sends just the bytes it is given."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.support import PATIENCE, Bench, until


class Answer(NamedTuple):
    """A response as it came over the wire."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class WebServer:
    """waitress, serving `module:name` from a folder.

    Args:
        folder: its current folder.
        app: `module:name`.
        env: added to the environment.
        prefix: where the application is mounted.
        arguments: further ones.
    """

    def __init__(
        self, folder: Path, app: str, env: Mapping[str, str], *, prefix: str = "", arguments: Any = ()
    ) -> None:
        self.port = 0  # the system's choice: known once it listens
        self._log = folder / f"web-{len(list(folder.glob('web-*.log')))}.log"
        command = [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", "--threads=2"]
        if prefix:
            command.append(f"--url-prefix={prefix}")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments, app],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(folder), **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ready(self) -> "WebServer":
        """Wait until it listens."""

        def listens() -> re.Match[str] | None:
            assert self.process.poll() is None, self.log
            return re.search(r"Serving on http://127\.0\.0\.1:(\d+)", self.log)

        self.port = int(until(listens, "the web server")[1])  # type: ignore[index]
        return self

    def send(
        self, method: str, target: str, headers: Iterable[tuple[str, str]] = (), body: bytes | None = None
    ) -> Answer:
        """Send a request just as it is given; Host, Connection and Content-Length are added where they are not."""
        pairs = list(headers)
        names = {name.lower() for name, _ in pairs}
        if "host" not in names:
            pairs.insert(0, ("Host", self.host))
        if body is not None and "content-length" not in names:
            pairs.append(("Content-Length", str(len(body))))
        pairs.append(("Connection", "close"))
        lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in pairs], "\r\n"]
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall("\r\n".join(lines).encode("latin-1") + (body or b""))
            response = HTTPResponse(connection, method=method)
            response.begin()
            content = response.read()
            # The server hangs up once it is done with the application too, and not before.
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
        return Answer(response.status, response.reason, response.getheaders(), content)

    def get(self, target: str, **headers: str) -> Answer:
        return self.send("GET", target, headers.items())

    def post(self, target: str, form: Mapping[str, str] | None = None, **headers: str) -> Answer:
        pairs = [*headers.items(), ("Content-Type", "application/x-www-form-urlencoded")]
        return self.send("POST", target, pairs, urlencode(form or {}).encode())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Site:
    """A bench with an application of its own, served and worked: what most frameworks' tests want."""

    def __init__(
        self,
        bench: Bench,
        app: str,
        env: Mapping[str, str] = {},
        *,
        prefix: str = "",
        arguments: Any = (),
        worker_app: str = "",
    ) -> None:
        self.bench = bench
        self.env = {**bench.env, **env}
        self.web = WebServer(bench.folder, app, self.env, prefix=prefix, arguments=arguments)
        try:
            self.worker = bench.start_worker("--workers", "1", app=worker_app or app, env=env)
            self.worker.ready()
            self.web.ready()
        except BaseException:
            self.web.stop()
            raise

    def records(self, count: int) -> list[Any]:
        """What handlers wrote down in jobs, one JSON a line, as soon as there is so much."""

        def enough() -> bool:
            assert "dead letter" not in self.worker.log.lower(), self.worker.log
            return len(self.bench.lines()) >= count

        try:
            until(enough, f"{count} records")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.log[-5000:]}\n{self.web.log[-2000:]}") from None
        return [json.loads(line) for line in self.bench.lines()]

    def forget(self) -> None:
        """Start the record anew."""
        self.bench.record.write_text("")

    def close(self) -> None:
        self.web.stop()

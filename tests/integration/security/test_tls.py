"""TLS to the job server: through stunnel before gearmand, and the embedded server's own; nothing goes in plaintext."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from gearwsgi.address import parse_address
from gearwsgi.errors import ServerUnavailable
from gearwsgi.wire import packets
from gearwsgi.wire.connection import Connection, open_socket
from tests.conftest import require
from tests.support import Bench, bench, free_port, until

pytestmark = pytest.mark.xdist_group("security-tls")
STUNNEL = shutil.which("stunnel4", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin")


class Papers:
    """An authority, and the files of those that it vouches for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = self._write("ca", self._authority.cert_pem)
        self.foreign_ca = self._write("foreign", trustme.CA().cert_pem)
        self.server = self._issue("server", self._authority, "localhost")
        self.client = self._issue("client", self._authority, "client@localhost")
        self.stranger = self._issue("stranger", trustme.CA(), "stranger@localhost")

    def _write(self, name: str, *blobs: trustme.Blob) -> str:
        path = self._folder / f"{name}.pem"
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(path)

    def _issue(self, name: str, authority: trustme.CA, identity: str) -> str:
        issued = authority.issue_cert(identity)
        return self._write(name, issued.private_key_pem, *issued.cert_chain_pems)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


class Tunnel:
    """stunnel before a job server."""

    def __init__(self, folder: Path, papers: Papers, port: int, *options: str) -> None:
        self.port = free_port()
        assert STUNNEL is not None
        lines = ["foreground = yes", "pid =", "syslog = no", "[gearman]", f"accept = 127.0.0.1:{self.port}"]
        lines += [f"connect = 127.0.0.1:{port}", f"cert = {papers.server}", f"key = {papers.server}", *options]
        config = folder / f"stunnel-{self.port}.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen([STUNNEL, str(config)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(self._listens, "stunnel")

    def _listens(self) -> bool:
        assert self.process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module", params=["stunnel before gearmand", "embedded"])
def secure(request: pytest.FixtureRequest, papers: Papers) -> Iterator[tuple[Bench, int, int]]:
    """A bench, and two ports of its job server with TLS: one for anybody, one for those with a certificate."""
    if request.param == "embedded":
        with bench("embedded") as made:
            servers = []
            for name, options in (("any", []), ("known", ["--tls-ca", papers.ca])):
                port = free_port()
                command = [sys.executable, "-m", "gearwsgi", "server", "--listen", f"127.0.0.1:{port}"]
                command += ["--state-dir", str(made.folder / name), "--tls-cert", papers.server, *options]
                server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                assert server.stdout is not None
                assert b"listening" in server.stdout.readline()
                servers.append((server, port))
            yield made, servers[0][1], servers[1][1]
            made.close()
            for server, _ in servers:
                server.terminate()
                server.communicate(timeout=30)
        return
    require("gearmand")
    if STUNNEL is None:
        if os.environ.get("CI"):
            pytest.fail("stunnel4 is not installed; CI must test with it")
        pytest.skip("stunnel4 is not installed: TLS is tested with the embedded job server alone")
    with bench("gearmand") as made:
        anyone = Tunnel(made.folder, papers, made.server.port)
        known = Tunnel(made.folder, papers, made.server.port, "verifyChain = yes", f"CAfile = {papers.ca}")
        yield made, anyone.port, known.port
        anyone.close()
        known.close()


def echo(url: str) -> None:
    """ECHO_REQ and its answer."""
    connection = Connection(parse_address(url), 5)
    try:
        connection.send(packets.pack(packets.ECHO_REQ, b"x" * 100_000), 5)
        assert connection.expect(packets.ECHO_RES, 5) == [b"x" * 100_000]
    finally:
        connection.close()


def test_a_task_goes_to_a_worker_and_back_through_tls(secure: tuple[Bench, int, int], papers: Papers) -> None:
    site, port, _ = secure
    url = f"tls://localhost:{port}?ca={papers.ca}"
    worker = site.worker("--workers", "2", env={"GEARMAN_SERVERS": url})
    app = site.app(servers=url)
    body = bytes(range(256)) * 8192
    response = app.gearman.call("/good", {"n": "called"}, timeout=30)
    assert (response.status_int, response.json) == (200, {"n": "called"})
    tasks = [app.gearman.task("/good", body=body, content_type="a/b") for _ in range(20)]
    assert all(task.handle for task in tasks)
    until(lambda: len(site.lines()) == 21, "21 runs")
    assert worker.stop() == 0


def test_a_client_certificate_opens_a_server_that_wants_one(secure: tuple[Bench, int, int], papers: Papers) -> None:
    site, _, port = secure
    url = f"tls://localhost:{port}?ca={papers.ca}&cert={papers.client}"
    echo(url)
    site.worker("--workers", "1", env={"GEARMAN_SERVERS": url})
    site.app(servers=url).gearman.task("/good", {"n": "certified"})
    until(lambda: "good certified 1" in site.lines(), "the run")


@pytest.mark.parametrize("paper", [None, "stranger"], ids=["none", "a stranger's"])
def test_a_client_without_a_certificate_of_the_servers_authority_is_refused(
    secure: tuple[Bench, int, int], papers: Papers, paper: str | None
) -> None:
    _, _, port = secure
    cert = f"&cert={getattr(papers, paper)}" if paper else ""
    with pytest.raises(ServerUnavailable):
        echo(f"tls://localhost:{port}?ca={papers.ca}{cert}")


@pytest.mark.parametrize(
    ("host", "authority"),
    [("localhost", "foreign_ca"), ("localhost", None), ("127.0.0.1", "ca")],
    ids=["another authority's", "the system's authorities do not know it", "another name"],
)
def test_a_server_whose_certificate_does_not_fit_is_refused(
    secure: tuple[Bench, int, int], papers: Papers, host: str, authority: str | None
) -> None:
    _, port, _ = secure
    query = f"?ca={getattr(papers, authority)}" if authority else ""
    with pytest.raises(ServerUnavailable, match=r"no TLS there that can be trusted.*nothing was sent"):
        echo(f"tls://{host}:{port}{query}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_version_of_tls_is_refused(secure: tuple[Bench, int, int], papers: Papers) -> None:
    site, port, _ = secure
    if site.server.kind == "gearmand":
        pytest.skip("which versions stunnel speaks is its own setting")
    context = ssl.create_default_context(cafile=papers.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(("localhost", port), 5) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_plaintext_to_a_server_of_tls_is_refused(secure: tuple[Bench, int, int]) -> None:
    _, port, _ = secure
    with pytest.raises((ServerUnavailable, OSError)):
        echo(f"localhost:{port}")


@pytest.mark.parametrize("kind", ["gearmand", "embedded"])
def test_a_job_server_that_answers_in_plaintext_is_refused(kind: str, papers: Papers) -> None:
    """Debian's gearmand takes --ssl and serves plaintext: tls:// must not."""
    require(kind)
    with bench(kind) as made:
        made.server.answers()
        url = f"tls://localhost:{made.server.port}?ca={papers.ca}"
        with pytest.raises(ServerUnavailable, match="no TLS there that can be trusted"):
            open_socket(parse_address(url), 1.0)
        app = made.app(servers=url, connect_timeout=0.5)
        task = app.gearman.task("/good", {"n": "hush"})
        assert (task.handle, made.server.queued()) == ("", 0)
        worker = made.worker("--workers", "1", env={"GEARMAN_SERVERS": url})
        worker.wait_for("no TLS there that can be trusted")
        assert made.lines() == []


def test_nothing_of_a_task_is_sent_before_the_server_is_known(papers: Papers, tmp_path: Path) -> None:
    """Whoever sits where the job server should be sees the greeting of TLS and no byte of a task or a key."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server, bench("embedded") as made:

        def listen() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionResetError):
                heard.append(connection.recv(65536))
                connection.sendall(b"\0RES\0\0\0\x08\0\0\0\x03H:1")  # JOB_CREATED, in plaintext
                while data := connection.recv(65536):
                    heard.append(data)

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"tls://localhost:{server.getsockname()[1]}?ca={papers.ca}"
        app = made.app(servers=url, connect_timeout=1.0, on_unavailable="raise", secret_keys=["k" * 32])
        with pytest.raises(ServerUnavailable, match="nothing was sent"):
            app.gearman.task("/good", {"n": "hush"})
        thread.join()
    sent = b"".join(heard)
    assert sent[:1] == b"\x16" and b"hush" not in sent and b"REQ" not in sent and b"POST" not in sent

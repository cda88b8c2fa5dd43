"""The server as a process: how it starts, whose directory it takes, how it ends."""

import contextlib
import os
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from gearwsgi.errors import StartError
from gearwsgi.server.embedded import EmbeddedServer
from tests.integration.server.conftest import Embedded
from tests.integration.server.wire import JOB_CREATED, SUBMIT_JOB_BG, Wire, packet, until

Start = Callable[..., Embedded]


def run(*options: str, **more: object) -> "subprocess.CompletedProcess[str]":
    """A server that is not expected to start."""
    command = [sys.executable, "-m", "gearwsgi.server", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **more)  # type: ignore[call-overload,no-any-return]


def refused(*options: str) -> str:
    """The one line on stderr with which it ends."""
    done = run("--listen", "127.0.0.1:0", *options)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_one_line_tells_the_address_the_process_and_the_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gearwsgi.server", "--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
        assert process.stdout.read() == ""
    assert process.returncode == 0
    port = line.split("127.0.0.1:")[1].split(",")[0]
    assert int(port) > 0
    assert line == f"gearwsgi server: listening on 127.0.0.1:{port}, pid {process.pid}, state in {tmp_path}/s\n"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_files_are_their_owners_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        server = EmbeddedServer(state_dir=tmp_path / "deep" / "state").start()
    finally:
        os.umask(before)
    with contextlib.closing(Wire(tuple(server.address.split(":")))) as wire:  # type: ignore[arg-type]
        wire.submit(b"f")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep" / "state").iterdir()}
    server.kill()
    assert set(modes.values()) == {0o600}
    assert {"jobs.sqlite3", "jobs.sqlite3-wal", "server.lock"} <= modes.keys()
    assert stat.S_IMODE((tmp_path / "deep" / "state").stat().st_mode) == 0o700


def test_a_second_server_on_the_directory_is_refused_with_the_firsts_pid_and_address(embedded: Start) -> None:
    server = embedded()
    line = refused("--state-dir", str(server.state_dir))
    assert str(server.state_dir) in line
    assert f"pid {server.pid} on 127.0.0.1:{server.address[1]}" in line
    server.connect().submit(b"f")


def test_a_directory_is_free_again_after_a_crash(embedded: Start) -> None:
    server = embedded()
    server.crash()
    server.connect().nothing_more()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run("--listen", f"127.0.0.1:{port}", "--state-dir", str(tmp_path / "s"))
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("listen", ["4730", "host:", ":4730", "127.0.0.1:99999", "127.0.0.1:x", "::1:4730"])
def test_an_address_that_is_none_is_named(tmp_path: Path, listen: str) -> None:
    assert repr(listen) in refused("--listen", listen, "--state-dir", str(tmp_path / "s"))


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path}/file" in refused("--state-dir", str(tmp_path / "file"))
    assert f"{tmp_path}/file" in refused("--state-dir", str(tmp_path / "file" / "below"))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_directory_that_is_read_only_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir(mode=0o500)
    assert f"{tmp_path}/s" in refused("--state-dir", str(tmp_path / "s"))


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
        db.commit()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"no database, but long enough to be looked at " * 100),
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000),
        lambda path: path.mkdir(),
        foreign,
    ],
    ids=["text", "broken", "directory", "of another program"],
)
def test_a_file_that_can_not_be_read_is_named_and_left_alone(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "jobs.sqlite3"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    assert str(path) in refused("--state-dir", str(tmp_path))
    assert not path.is_file() or path.read_bytes() == before


def test_a_damaged_file_is_named(embedded: Start) -> None:
    server = embedded()
    client = server.connect()
    for n in range(200):
        client.submit(b"f", b"%d" % n, b"x" * 500)
    assert server.server.stop() == 0
    path = server.state_dir / "jobs.sqlite3"
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xa5" * (len(data) - 8192))
    assert str(path) in refused("--state-dir", str(server.state_dir))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_was_read_answered(embedded: Start, number: int) -> None:
    server = embedded()
    wires = [server.connect() for _ in range(20)]
    for wire in wires:
        wire.raw(packet(SUBMIT_JOB_BG, b"f", b"", b"data") * 50)
    for wire in wires:
        wire.expect(JOB_CREATED)
    os.kill(server.pid, number)
    created = 20
    for wire in wires:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                wire.expect(JOB_CREATED)
                created += 1
    assert server.server.wait(20) == 0
    assert not (server.state_dir / "jobs.sqlite3-wal").exists()
    server.start()
    assert (server.connect().status(b"f") or (0,))[0] >= created


def test_the_text_command_shutdown_ends_it(embedded: Start) -> None:
    server = embedded()
    assert server.connect().text(b"shutdown") == b"OK"
    assert server.server.wait(20) == 0


def test_a_graceful_shutdown_waits_for_the_last_connection(embedded: Start) -> None:
    server = embedded()
    worker, admin = server.worker(b"f"), server.connect()
    handle = admin.submit(b"f", b"u")
    assert worker.grab() is not None
    assert admin.text(b"shutdown graceful") == b"OK"
    admin.close()
    with pytest.raises(ConnectionRefusedError):
        until(lambda: server.connect().close())
    worker.complete(handle)
    worker.nothing_more()
    worker.close()
    assert server.server.wait(20) == 0
    server.start()
    assert server.worker(b"f").grab() is None


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom gearwsgi.server.embedded import EmbeddedServer\n"
        f"server = EmbeddedServer(state_dir={str(tmp_path / 's')!r}).start()\n"
        "print(server.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=30)
    lock = tmp_path / "s" / "server.lock"
    assert f"pid {int(done.stdout)} " in lock.read_text()
    server = until(lambda: started(tmp_path / "s"))
    server.kill()


def started(state_dir: Path) -> EmbeddedServer | None:
    with contextlib.suppress(StartError):
        return EmbeddedServer(state_dir=state_dir).start()
    return None


def test_a_server_for_ones_own_tests_cleans_up() -> None:
    with EmbeddedServer() as server:
        state = server.state_dir
        with contextlib.closing(Wire(tuple(server.address.split(":")))) as wire:  # type: ignore[arg-type]
            assert wire.text(b"getpid") == b"OK %d" % server.pid
    assert not state.exists()
    with pytest.raises(StartError, match=r"HOST:PORT"):
        EmbeddedServer("nowhere").start()


def test_it_listens_on_ipv6(embedded: Start) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    server = embedded(listen="[::1]:0")
    assert server.server.address.startswith("[::1]:")
    assert any(b" ::1 - :" in row[0] for row in server.connect().table(b"workers"))


def test_tls_is_served_and_a_client_without_a_certificate_is_kept_out(embedded: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    for name, cert in (("server", authority.issue_cert("127.0.0.1")), ("client", authority.issue_cert("client"))):
        cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = embedded("--tls-cert", f"{tmp_path}/server.pem", "--tls-ca", f"{tmp_path}/ca.pem")
    context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
    stranger = Wire(server.address)
    with pytest.raises((ssl.SSLError, OSError, EOFError)):
        stranger.socket = context.wrap_socket(stranger.socket, server_hostname="127.0.0.1")
        stranger.submit(b"f")
    context.load_cert_chain(tmp_path / "client.pem")
    client = Wire(server.address)
    client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
    client.submit(b"f", b"u", b"x" * 1_000_000)
    client.send(1, b"f")
    assert len((client.grab() or [b""] * 4)[3]) == 1_000_000
    plain = Wire(server.address)
    plain.raw(b"version\r\n")
    assert plain.ended()
    for wire in (stranger, client, plain):
        wire.close()


def test_tls_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    line = refused("--state-dir", str(tmp_path / "s"), "--tls-cert", f"{tmp_path}/cert.pem")
    assert f"{tmp_path}/cert.pem" in line

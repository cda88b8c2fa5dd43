"""The tools of Debian's package gearman-tools, against both servers."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.integration.server.conftest import Server
from tests.integration.server.wire import until

pytestmark = pytest.mark.skipif(
    not (shutil.which("gearman") and shutil.which("gearadmin")) and os.environ.get("CI") != "true",
    reason="gearman-tools is not installed",
)


def tool(server: Server, *words: str, given: bytes | None = None) -> bytes:
    host, port = server.address
    command = [words[0], "-h", host, "-p", str(port), *words[1:]]
    return subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True, timeout=30).stdout


def test_gearman_submits_and_works(server: Server, tmp_path: Path) -> None:
    host, port = server.address
    with subprocess.Popen(
        ["gearman", "-h", host, "-p", str(port), "-w", "-f", "shout", "--", "tr", "a-z", "A-Z"]
    ) as worker:
        try:
            assert tool(server, "gearman", "-f", "shout", given=b"hello") == b"HELLO"
            assert tool(server, "gearman", "-f", "shout", "-I", given=b"high") == b"HIGH"
            assert tool(server, "gearman", "-f", "shout", "-L", given=b"low") == b"LOW"
            large = b"abc" * 10_000  # the tool itself hangs on what no pipe holds
            assert tool(server, "gearman", "-f", "shout", given=large) == large.upper()
        finally:
            worker.kill()
    assert b"hello" not in tool(server, "gearman", "-b", "-f", "shout", "hello")
    watcher = server.connect()
    assert watcher.status(b"shout") == (1, 0, 0)
    out = tmp_path / "out"
    with subprocess.Popen(
        ["gearman", "-h", host, "-p", str(port), "-w", "-c", "1", "-f", "shout", "--", "tee", str(out)],
        stdout=subprocess.DEVNULL,
    ) as worker:
        worker.wait(30)
    until(lambda: watcher.status(b"shout") == (0, 0, 0))
    assert out.read_bytes() == b"hello"


def test_gearman_waits_for_a_worker_of_ours(server: Server) -> None:
    worker = server.worker(b"f")

    def serve() -> None:
        job = until(worker.grab)
        worker.complete(job[0], b"answer to " + job[3])

    thread = threading.Thread(target=serve)
    thread.start()
    assert tool(server, "gearman", "-f", "f", "-u", "unique", "question") == b"answer to question"
    thread.join()


def test_gearadmin_reads_and_changes(server: Server) -> None:
    client = server.connect()
    handle = client.submit(b"f", b"unique")
    assert tool(server, "gearadmin", "--status") == b"f\t1\t0\t0\n.\n"
    assert tool(server, "gearadmin", "--priority-status").startswith(b"f\t0\t1\t0\t0")
    assert handle in tool(server, "gearadmin", "--show-jobs")
    assert b"unique" in tool(server, "gearadmin", "--show-unique-jobs")
    assert b"127.0.0.1" in tool(server, "gearadmin", "--workers")
    assert b"%d" % server.pid in tool(server, "gearadmin", "--getpid")
    assert tool(server, "gearadmin", "--server-version")
    assert tool(server, "gearadmin", "--server-verbose")
    tool(server, "gearadmin", "--create-function", "made")
    assert client.status(b"made") == (0, 0, 0)
    tool(server, "gearadmin", "--drop-function", "made")
    assert client.status(b"made") is None
    tool(server, "gearadmin", "--cancel-job", handle.decode())
    assert server.worker(b"f").grab() is None

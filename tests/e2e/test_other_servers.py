"""Job servers that are neither gearmand nor the embedded one."""

import contextlib
import shutil
import socketserver
import struct
import threading
from pathlib import Path

from tests.support import APPS, Worker

ECHO_REQ, ECHO_RES, ERROR, GRAB_JOB_UNIQ = 16, 17, 19, 30
HEADER = struct.Struct("!4sII")


def answer(kind: int, body: bytes) -> bytes:
    return HEADER.pack(b"\0RES", kind, len(body)) + body


class Foreign(socketserver.StreamRequestHandler):
    """As Perl's Gearman::Server: it knows no GRAB_JOB_UNIQ."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while head := self.rfile.read(HEADER.size):
                _, kind, size = HEADER.unpack(head)
                body = self.rfile.read(size)
                if kind == ECHO_REQ:
                    self.wfile.write(answer(ECHO_RES, body))
                elif kind == GRAB_JOB_UNIQ:
                    self.wfile.write(answer(ERROR, b"unknown_command\0Unknown server command"))


def test_a_job_server_that_knows_no_grab_job_uniq_is_named_in_the_log_once(tmp_path: Path) -> None:
    shutil.copy(APPS / "kitchen.py", tmp_path)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        env = {"GEARMAN_SERVERS": address, "GEARWSGI_STATE_DIR": str(tmp_path / "state"), "RECORD": str(tmp_path / "r")}
        worker = Worker(tmp_path, "kitchen:application", "--workers", "3", env=env).ready()
        try:
            worker.wait_for(f"job server {address} hands out no jobs with GRAB_JOB_UNIQ")
            assert worker.stop() == 0
            assert worker.log.count("GRAB_JOB_UNIQ") == 1 and "unknown_command" in worker.log
        finally:
            worker.kill()
            server.shutdown()

"""A worker survives whatever its job server sends."""

import contextlib
import socket
import struct
import threading
from typing import Any

from gearwsgi.wire import packets
from tests.support import APPS, Worker, until
from tests.unit.wire.test_packets import packet

# -- a job server that is none -----------------------------------------------------------------------------------------

NASTY = {
    "rubbish": b"rubbish" * 10,
    "a request instead of an answer": struct.pack("!4sII", b"\0REQ", 10, 0),
    "a length of four gigabytes": struct.pack("!4sII", b"\0RES", 8, 0xFFFFFFFF),
    "a job of a queue that nobody asked for": packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"\xff", b"u", b"x"),
    "a job without a payload": packet(packets.JOB_ASSIGN_UNIQ, b"H:1", b"job"),
    "a kind that there is not": packet(0xFFFFFFFF, b"x"),
    "a job without a unique, of another kind": packet(packets.JOB_ASSIGN, b"H:1", b"job", b"x"),
    "an end": b"",
}
HARMLESS = [
    packet(packets.ERROR),
    packet(packets.ERROR, b"\xff", b"\x1b[2J"),
    packet(packets.JOB_CREATED, b"H:9"),
    packet(packets.NOOP),
    packet(packets.ECHO_RES, b"x"),
]


def test_a_worker_survives_whatever_its_job_server_says_and_connects_again(tmp_path: Any) -> None:
    served = 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def serve() -> None:
            nonlocal served
            for nasty in NASTY.values():
                connection, _ = server.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.settimeout(60)
                    while b"\0REQ\0\0\0\x1e" not in connection.recv(65536):  # GRAB_JOB_UNIQ
                        pass
                    connection.sendall(b"".join(HARMLESS) + nasty)
                    if nasty:
                        while connection.recv(65536):
                            pass
                served += 1
            server.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "kitchen.py").write_bytes((APPS / "kitchen.py").read_bytes())
        env = {"GEARMAN_SERVERS": address, "GEARWSGI_STATE_DIR": "state", "RECORD": "record"}
        worker = Worker(tmp_path, "kitchen:application", "--workers", "1", env=env)
        try:
            until(lambda: served == len(NASTY) or worker.process.poll() is not None, "all of it")
            assert worker.process.poll() is None, worker.log
            assert worker.stop() == 0
            assert "Traceback" not in worker.log and "\x1b" not in worker.log
        finally:
            worker.kill()
            thread.join()


# -- the supervisor holds a message that nobody verified ---------------------------------------------------------------

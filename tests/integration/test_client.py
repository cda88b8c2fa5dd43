"""What a web process does when job servers are slow, forgotten, full, or say no."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.address import parse_address
from gearwsgi.errors import ProtocolError, ServerError, ServerUnavailable
from gearwsgi.state.outbox import Outbox
from gearwsgi.wire import packets
from gearwsgi.wire.connection import Connection, open_socket
from gearwsgi.wire.payload import Submission
from tests.support import Bench, until

HEADER = struct.Struct("!4sII")
CREATED = (packets.JOB_CREATED, b"H:fake:1")


_opened: list[Callable[[], None]] = []


@pytest.fixture(autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop()()


class ScriptedServer:
    """A job server whose answers a test writes.

    Args:
        answer: called with the number of the connection, the packet's type and its parameters; the answering packet's
            type and parameters, or bytes as they are, or None: no answer.
    """

    def __init__(self, answer: Callable[[int, int, list[bytes]], bytes | tuple[Any, ...] | None]) -> None:
        self._answer = answer
        self.seen: Counter[int] = Counter()
        """Packets by their type."""
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()
        _opened.append(self.stop)

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer, self.connections), daemon=True).start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        with peer, peer.makefile("rb") as stream:
            while len(head := stream.read(12)) == 12:
                _, kind, size = HEADER.unpack(head)
                parameters = stream.read(size).split(b"\0")
                self.seen[kind] += 1
                answer = self._answer(number, kind, parameters)
                if isinstance(answer, bytes):
                    peer.sendall(answer)
                elif answer:
                    body = b"\0".join(answer[1:])
                    peer.sendall(HEADER.pack(b"\0RES", answer[0], len(body)) + body)

    def stop(self) -> None:
        self._listener.close()


def submits(kind: int) -> bool:
    return kind in packets.SUBMIT_BACKGROUND.values()


def middleware(folder: Path, *servers: str, **settings: Any) -> GearmanMiddleware:
    settings.setdefault("connect_timeout", 10)
    app = GearmanMiddleware(lambda environ, start: [], servers, state_dir=folder / "state", **settings)
    _opened.append(app.client.close)
    return app


def test_the_answer_to_a_large_task_may_take_longer_and_the_longer_the_more_often_it_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[float] = []
    expect = Connection.expect

    def noting(self: Connection, kind: int, timeout: float) -> list[bytes]:
        allowed.append(timeout)
        return expect(self, kind, timeout)

    monkeypatch.setattr(Connection, "expect", noting)
    server = ScriptedServer(lambda number, kind, parameters: CREATED)
    app = middleware(tmp_path, server.address)
    assert app.gearman.task("/x").handle and app.gearman.task("/x", body=bytes(8_000_000), content_type="a/b").handle
    app.client.submit_now(Submission("job", "u", bytes(8_000_000), tries=3))
    app.client.submit_now(Submission("job", "u", bytes(8_000_000), tries=10**6))
    small, large, again, often = allowed
    assert small < 16 and round(large - small) == 8 and round(again - small) == 64 and often - small < 300


def test_what_was_sent_and_not_answered_is_asked_about_before_it_is_sent_again(tmp_path: Path) -> None:
    def answer(number: int, kind: int, parameters: list[bytes]) -> tuple[Any, ...] | None:
        if kind == packets.GET_STATUS_UNIQUE:
            return packets.STATUS_RES_UNIQUE, parameters[0], b"1", b"0", b"0", b"0", b"1"
        return None

    server = ScriptedServer(answer)
    app = middleware(tmp_path, server.address, connect_timeout=0.5)
    assert app.gearman.task("/x").handle == ""
    until(lambda: not app.client.outbox.spool.names(), "the task is known to be queued")
    assert server.seen[packets.GET_STATUS_UNIQUE] >= 1
    assert sum(count for kind, count in server.seen.items() if submits(kind)) == 1


def test_a_job_server_that_never_comes_back_keeps_no_task_for_ever(tmp_path: Path) -> None:
    server = ScriptedServer(lambda number, kind, parameters: CREATED)
    app = middleware(tmp_path, server.address, "127.0.0.1:1")
    submission = Submission("job", "u", b"POST / HTTP/1.1\r\n\r\n", sent_to="127.0.0.1:1")
    with pytest.raises(ServerUnavailable) as raised:
        app.client.submit_now(submission)
    assert raised.value.sent_to == "127.0.0.1:1", "it is passed over for now"
    assert app.client.submit_now(replace(submission, tries=3)) == "H:fake:1"


def test_a_refused_task_goes_to_the_next_job_server(tmp_path: Path) -> None:
    full = ScriptedServer(lambda number, kind, parameters: (packets.ERROR, b"QUEUE_ERROR", b"disk full"))
    fine = ScriptedServer(lambda number, kind, parameters: CREATED)
    app = middleware(tmp_path, full.address, fine.address)
    for _ in range(10):
        assert app.gearman.task("/x").server == fine.address
    assert sum(full.seen.values()) > 0


def test_a_task_that_every_job_server_refuses_goes_to_the_outbox(site: Bench) -> None:
    app = site.app()
    assert app.gearman.task("/x").handle
    site.server.admin("maxqueue job 1")
    assert app.gearman.task("/x").handle == ""
    assert app.client.outbox.spool.count() == 1
    with pytest.raises(ServerError, match="QUEUE_ERROR"):
        site.app(on_unavailable="raise").gearman.task("/x")


def test_what_is_too_large_for_a_job_server_is_an_error(tmp_path: Path) -> None:
    server = ScriptedServer(lambda number, kind, parameters: (packets.ERROR, b"ARGUMENT_TOO_LARGE", b"x"))
    app = middleware(tmp_path, server.address)
    with pytest.raises(ServerError, match="ARGUMENT_TOO_LARGE"):
        app.gearman.task("/x")
    assert app.client.outbox.spool.count() == 0


def test_an_answer_that_is_larger_than_a_response_may_be_is_not_waited_for(tmp_path: Path) -> None:
    server = ScriptedServer(lambda number, kind, given: HEADER.pack(b"\0RES", packets.WORK_COMPLETE, 1 << 29))
    with pytest.raises(ProtocolError, match=r"packet 13 of 536870912 bytes, where 174728 are the limit"):
        middleware(tmp_path, server.address, max_body=101_000).gearman.call("/x", timeout=10)


def test_a_task_whose_job_server_talks_nonsense_goes_to_the_next_one_or_to_the_outbox(tmp_path: Path) -> None:
    web = ScriptedServer(lambda number, kind, given: b"HTTP/1.1 400 Bad Request\r\n\r\n")
    task = middleware(tmp_path, web.address).gearman.task("/x")
    assert task.handle == "" and len(list((tmp_path / "state" / "outbox").glob("*.http"))) == 1
    good = ScriptedServer(lambda number, kind, given: CREATED)
    assert middleware(tmp_path / "two", web.address, good.address).gearman.task("/x").handle == "H:fake:1"


def test_an_unusable_state_directory_is_no_reason_to_refuse_what_a_job_server_takes(tmp_path: Path) -> None:
    server = ScriptedServer(lambda number, kind, parameters: CREATED)
    (tmp_path / "state").write_text("a file")
    app = middleware(tmp_path, server.address)
    assert app.gearman.task("/x").handle == "H:fake:1"


def test_connections_that_a_firewall_forgot_cost_one_task_its_time(tmp_path: Path) -> None:
    forgotten = threading.Event()

    def answer(number: int, kind: int, parameters: list[bytes]) -> tuple[Any, ...] | None:
        return None if forgotten.is_set() and number <= 4 else CREATED

    server = ScriptedServer(answer)
    app = middleware(tmp_path, server.address, connect_timeout=1)
    app.client.servers._all[0].idle.extend(Connection(parse_address(server.address), 1) for _ in range(4))
    until(lambda: server.connections == 4)
    forgotten.set()
    handles = [app.gearman.task("/x").handle for _ in range(10)]
    assert handles.count("") == 1 and handles[0] == "", handles


def test_the_system_is_told_to_notice_a_host_that_vanished(tmp_path: Path) -> None:
    server = ScriptedServer(lambda number, kind, parameters: None)
    with open_socket(parse_address(server.address), 1) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        asked = {
            name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            if hasattr(socket, name)
        }
    first = asked.get("TCP_KEEPIDLE", asked.get("TCP_KEEPALIVE", 0))
    assert 0 < first + asked["TCP_KEEPINTVL"] * asked["TCP_KEEPCNT"] <= 60
    assert asked.get("TCP_USER_TIMEOUT", 1) <= 60_000


def test_a_text_answer_has_to_come_to_its_end_in_time() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        peer, _ = listener.accept()
        with peer:
            while not over.wait(0.02):
                try:
                    peer.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    connection = Connection(parse_address(f"127.0.0.1:{listener.getsockname()[1]}"), 1)
    with pytest.raises(ServerUnavailable, match=r"no end of its answer|no answer"):
        connection.admin("status", 0.3)
    over.set()
    thread.join()
    listener.close()


def test_where_a_task_was_sent_is_kept_with_it(tmp_path: Path) -> None:
    app = middleware(tmp_path, "127.0.0.1:1")
    outbox = Outbox(app.settings)
    name = outbox.put(Submission("job", "u", b"POST / HTTP/1.1\r\n\r\n", sent_to="a:1"))
    assert outbox.get(name).sent_to == "a:1"

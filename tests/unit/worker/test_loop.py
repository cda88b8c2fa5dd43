"""The supervisor's loop: a turn for everybody, and what the system refuses ends nothing but what it was for."""

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from gearwsgi.address import parse_address
from gearwsgi.settings import read_settings
from gearwsgi.worker import loop as loops
from gearwsgi.worker.link import Connector
from gearwsgi.worker.loop import Loop, Stream
from gearwsgi.worker.site import Site


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def test_who_sends_without_end_gets_its_turns_as_others_do(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "READ_SIZE", 1024)
    flood, quiet = socket.socketpair(), socket.socketpair()
    came: list[tuple[str, int]] = []
    for name, pair in (("flood", flood), ("quiet", quiet)):
        Stream(pair[0], loop, lambda data, name=name: came.append((name, len(data))), print)  # type: ignore[misc]
    flood[1].sendall(bytes(100 * 1024))
    quiet[1].sendall(b"x")
    loop.turn(0.0)
    assert ("quiet", 1) in came
    assert sum(size for name, size in came if name == "flood") == loops.MOST_READS * 1024
    for _ in range(100):
        loop.turn(0.0)
    assert sum(size for name, size in came if name == "flood") == 100 * 1024
    for each in (*flood, *quiet):
        each.close()


def test_a_stream_that_the_system_can_watch_no_more_is_closed_with_the_reason(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair()
    reasons: list[str] = []
    stream = Stream(ours, loop, lambda data: None, reasons.append)

    def refuse(*given: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop._selector, "modify", refuse)
    stream.send(bytes(1 << 22))  # more than goes out at once
    loop.turn(0.0)
    assert stream.closed and reasons == ["[Errno 28] No space left on device"]
    theirs.close()


def test_where_no_thread_is_to_be_had_a_connection_fails_with_the_reason(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    connector = Connector(loop, 1.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    answers: list[tuple[Any, str]] = []
    connector.connect(parse_address("localhost"), lambda sock, reason: answers.append((sock, reason)))
    loop.turn(0.0)
    assert answers == [(None, "no thread to connect in: can't start new thread")]
    connector.close()


def test_a_site_goes_on_without_a_status_file_or_a_relay_and_says_each_once(
    loop: Loop,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    state = tmp_path / "state"
    monkeypatch.setattr(threading.Thread, "start", refuse)
    site = Site(read_settings({"state_dir": state, "servers": "localhost"}, {}), loop, "x")
    (state / "run").rmdir()
    for now in range(3):
        site.tend(float(now))
        site.write({})
    said = capfd.readouterr().err
    assert caplog.text.count("outbox: what is in it waits: can't start new thread") == 1
    assert said.count("can't be written, trying again: [Errno 2]") == 1
    monkeypatch.setattr(threading.Thread, "start", start)
    (state / "run").mkdir()
    site.tend(3.0)
    site.write({})
    assert capfd.readouterr().err.count("can't be written: that is over") == 1
    assert site._relay._thread is not None
    site.close()
    site.connector.close()

"""The job server as a process of ours: started without waiting, and leaving nothing behind."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearwsgi.address import parse_address
from gearwsgi.errors import StartError
from gearwsgi.wire.launch import EmbeddedProcess, is_gearman
from tests.support import free_port, until


@pytest.fixture
def process(tmp_path: Path) -> Iterator[EmbeddedProcess]:
    made = EmbeddedProcess(parse_address(f"127.0.0.1:{free_port()}"), tmp_path)
    yield made
    made.kill()


def test_it_is_started_without_waiting_and_says_when_it_is_ready(process: EmbeddedProcess) -> None:
    assert process.exit_code() is None and not process.is_ready()
    process.start()
    assert not process.is_ready()
    until(process.is_ready)
    assert is_gearman(parse_address(process.address))
    assert process.exit_code() is None
    assert process.stop() == 0
    assert not process.is_ready() and process.pid == 0


def test_one_that_can_not_listen_ends_with_a_code_and_is_never_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = EmbeddedProcess(f"127.0.0.1:{taken.getsockname()[1]}", tmp_path)
        process.start()
        until(lambda: process.exit_code() is not None)
        assert not process.is_ready() and process.exit_code() == 1
        process.start()
        with pytest.raises(StartError, match="exit code 1"):
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_job_server_that_is_started_again_and_again_costs_no_descriptors(process: EmbeddedProcess) -> None:
    process.start()
    process.wait()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: process.exit_code() is not None)
        process.start()
        process.wait()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_no_process_can_be_had_that_is_an_error_to_try_again_after(
    process: EmbeddedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(StartError, match="can't be started"):
            process.start()
    process.start()
    process.wait()

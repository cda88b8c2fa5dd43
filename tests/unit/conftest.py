"""Unit tests start no process and open no connection: what needs one is in `integration` or `e2e`."""

import os
import socket
import subprocess
from typing import Any, NoReturn

import pytest

from gearwsgi import log


@pytest.fixture(autouse=True)
def _neither_process_nor_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> NoReturn:
        pytest.fail("a unit test starts a process or opens a connection: move it to tests/integration or tests/e2e")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(os, "fork", refuse)


@pytest.fixture(autouse=True)
def _log_to_what_is_standard_error_now() -> None:
    log.redirect(2)  # the first line chose how to write, and that may have been while pytest had not captured

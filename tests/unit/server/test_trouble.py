"""What the server says of a connection that failed, also where there is no memory to say it with."""

import asyncio
from typing import NoReturn

import pytest

from gearwsgi.server.main import on_trouble


def no_memory(what: str) -> NoReturn:
    raise MemoryError


def test_without_memory_a_connection_that_fails_is_a_line_at_most_and_never_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.new_event_loop()
    said: list[str] = []
    context = {"message": "Fatal read error on socket transport", "exception": MemoryError()}
    on_trouble(said.append, loop, context)
    on_trouble(no_memory, loop, context)
    assert said == ["no memory for what a connection sends: closed"] and not caplog.text
    on_trouble(said.append, loop, {"message": "something else", "exception": ValueError("x")})
    assert "something else" in caplog.text and len(said) == 1
    loop.close()

"""While the queue is loaded the server takes connections: who asks waits, and is not refused."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearwsgi.server import engine
from gearwsgi.server.engine import Server
from gearwsgi.server.jobs import Row
from gearwsgi.server.queues import Queue
from gearwsgi.server.store import Store
from gearwsgi.state.spool import Spool
from tests.integration.server.wire import ECHO_REQ, ECHO_RES, HEADER, JOB_CREATED, SUBMIT_JOB_BG, packet


class Slow(Store):
    """Its first row takes until `go` is set."""

    go = False

    def rows(self) -> Iterator[Row | int]:
        for row in super().rows():
            while not self.go:
                yield 0  # no job's id
            yield row


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    _, kind, size = HEADER.unpack(await reader.readexactly(12))
    return kind, await reader.readexactly(size)


async def story(folder: Path) -> None:
    store = Store(folder / "jobs.sqlite3")
    queue = Queue(store.first_id, prefix=store.prefix)
    queue.submit(b"f", b"same", b"first", now=0)
    store.write(queue.changes.insert, [], [])
    handle = queue.handle(queue.changes.insert[0])
    store.close()

    slow = Slow(folder / "jobs.sqlite3")
    server = Server(slow, Spool(folder / "dead", "dead letter"))
    port = await server.listen("127.0.0.1", 0)
    loading = asyncio.ensure_future(server.load())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    typist_reads, typist = await asyncio.open_connection("127.0.0.1", port)
    writer.write(packet(ECHO_REQ, b"x") + packet(SUBMIT_JOB_BG, b"f", b"same", b"second") + packet(ECHO_REQ, b"y"))
    typist.write(b"status\n")
    assert await read(reader) == (ECHO_RES, b"x")
    assert not loading.done()
    slow.go = True
    assert await read(reader) == (JOB_CREATED, handle)
    assert await read(reader) == (ECHO_RES, b"y")
    assert await typist_reads.readline() == b"f\t1\t0\t0\n"
    await loading
    for each in (writer, typist):
        each.close()
    server.stop()
    await server.close()


def test_who_asks_while_the_queue_is_loaded_waits_and_an_echo_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOAD_STEP", 0)
    asyncio.run(story(tmp_path))


def test_a_stop_ends_the_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        store = Store(tmp_path / "jobs.sqlite3")
        queue = Queue(store.first_id)
        queue.submit(b"f", b"u", b"d", now=0)
        store.write(queue.changes.insert, [], [])
        store.close()
        server = Server(Slow(tmp_path / "jobs.sqlite3"), Spool(tmp_path / "dead", "dead letter"))
        await server.listen("127.0.0.1", 0)
        loading = asyncio.ensure_future(server.load())
        await asyncio.sleep(0)
        server.stop()
        await loading
        await server.close()

    monkeypatch.setattr(engine, "LOAD_STEP", 0)
    asyncio.run(play())
    store = Store(tmp_path / "jobs.sqlite3")
    assert len(list(store.rows())) == 1
    store.close()

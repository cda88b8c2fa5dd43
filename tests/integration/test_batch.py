"""Batches on real job servers, and one that dies amid a batch."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gearwsgi.errors import ServerUnavailable
from gearwsgi.wire import packets
from gearwsgi.wire.connection import Connection
from tests.conftest import KINDS, require
from tests.support import Bench, bench, until


@pytest.fixture(params=KINDS)
def durable_site(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench whose job server keeps its queue on disk."""
    require(request.param)
    with bench(request.param, durable=True) as made:
        yield made


def test_a_batch_is_on_the_job_server_after_its_block_and_not_before(site: Bench) -> None:
    gearman = site.app().gearman
    with gearman.batch() as tasks:
        for n in range(600):  # more than go in one write
            gearman.task("/good", {"n": n}, priority=("low", "normal", "high")[n % 3])
        assert site.server.queued() == 0
    assert site.server.queued() == 600
    assert len({str(task) for task in tasks}) == 600
    assert str(gearman.status(tasks[7])) == "queued"


def test_a_job_server_that_dies_amid_a_batch_costs_none_of_it_and_runs_none_twice(
    durable_site: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = durable_site
    application = site.app()
    expect = Connection.expect
    answers: list[object] = []

    def die_amid_them(connection: Connection, kind: int, *arguments: Any) -> object:
        answer = expect(connection, kind, *arguments)
        if kind == packets.JOB_CREATED:
            answers.append(answer)
            if len(answers) == 100:
                site.server.kill()
        return answer

    monkeypatch.setattr(Connection, "expect", die_amid_them)
    count = 600  # more than go in one write, which it may have read whole
    with application.gearman.batch() as queued:
        for n in range(count):
            application.gearman.task("/good", {"n": n, "filling": "x" * 2000})
    assert len(queued) == count
    waiting = len(application.client.outbox.spool.names())
    assert waiting == sum(not str(task) for task in queued) > 0
    site.server.start()
    until(lambda: not application.client.outbox.spool.names(), "the outbox to be empty")
    assert site.server.queued() == count
    site.worker("--workers", "2")
    until(lambda: len(site.lines()) >= count, "all of it")
    until(lambda: not site.server.queued(), "an empty queue")
    assert site.runs() == {f"good {n} 1": 1 for n in range(count)}


def test_a_batch_that_nobody_takes_says_so_where_there_is_no_outbox(embedded_site: Bench) -> None:
    gearman = embedded_site.app(on_unavailable="raise").gearman
    embedded_site.server.kill()
    began = time.monotonic()
    with pytest.raises(ServerUnavailable), gearman.batch() as tasks:
        for n in range(20):
            gearman.task("/good", {"n": n})
    assert time.monotonic() - began < 60 and [str(task) for task in tasks] == [""] * 20

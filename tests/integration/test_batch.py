"""Batches on real job servers, and one that dies amid a batch."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from gearwsgi.errors import ServerUnavailable
from gearwsgi.submit.task import Task
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


def test_a_job_server_that_dies_amid_a_batch_costs_none_of_it_and_runs_none_twice(durable_site: Bench) -> None:
    site = durable_site
    application = site.app()
    queued: list[Task] = []
    count = 200 if site.server.kind == "gearmand" else 3000  # so many that it dies before it has them all

    def work() -> None:
        with application.gearman.batch() as tasks:
            for n in range(count):
                application.gearman.task("/good", {"n": n, "filling": "x" * 2000})
        queued.extend(tasks)

    def kept() -> int:
        """Bytes of the queue on disk: a job server that is at work may not answer for seconds."""
        found = 0
        for path in site.server.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a journal is there for a moment
                found += path.stat().st_size
        return found

    thread = threading.Thread(target=work)
    before = kept()
    thread.start()
    until(lambda: kept() > before + 100_000, "the beginning of the batch")
    site.server.kill()
    thread.join(60)
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

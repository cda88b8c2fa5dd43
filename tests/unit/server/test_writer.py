"""No answer leaves before what it says is on disk, whatever a commit raises."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pytest

from gearwsgi.server.jobs import Job
from gearwsgi.server.log import Log
from gearwsgi.server.queues import Queue
from gearwsgi.server.store import Store
from gearwsgi.server.writer import NOT_STORED, Writer


class Failing(Store):
    """Fails where it is told to."""

    problem: BaseException | None = None

    def write(self, insert: Iterable[Job], update: Iterable[Job], delete: Collection[int]) -> None:
        if self.problem is not None:
            raise self.problem
        super().write(insert, update, delete)


class Answers:
    """A client's answers, in order; `sent` is what it was sent so far."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.sent: list[bytes] = []

    def replace(self, place: int, packet: bytes) -> None:
        self.waiting[place] = packet

    def flush(self) -> None:
        self.sent += self.waiting
        self.waiting.clear()


class Stand:
    """A queue, its file, its writer and one client."""

    def __init__(self, folder: Path) -> None:
        self.store = Failing(folder / "jobs.sqlite3")
        self.queue = Queue(self.store.first_id)
        self.answers = Answers()
        self.writer = Writer(self.queue, self.store, Log(), self.answers.flush)

    def submit(self, unique: bytes) -> Job:
        job = self.queue.submit(b"f", unique, b"d", now=0)
        assert job is not None
        if not job.stored:
            self.writer.created(self.answers, len(self.answers.waiting), job)
        self.answers.waiting.append(b"created " + unique)
        self.writer.look()
        return job

    def on_disk(self) -> list[bytes]:
        """The uniques of the jobs that a start would find."""
        again = Store(self.store.path)
        try:
            return [row[2] for row in again.rows() if not isinstance(row, int)]
        finally:
            again.close()


def run(folder: Path, story: Callable[[Stand], object]) -> Stand:
    async def play() -> Stand:
        stand = Stand(folder)
        story(stand)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return stand

    return asyncio.run(play())


@pytest.mark.parametrize("problem", [MemoryError(), sqlite3.OperationalError("full"), OSError(5, "EIO"), ValueError()])
def test_a_job_that_was_not_written_is_an_error_whatever_was_raised(tmp_path: Path, problem: Exception) -> None:
    def story(stand: Stand) -> None:
        stand.store.problem = problem
        stand.submit(b"a")
        stand.submit(b"a")
        stand.writer.look()  # anything that another connection does
        assert stand.answers.sent == []

    stand = run(tmp_path, story)
    assert stand.answers.sent == [NOT_STORED, NOT_STORED]
    assert not stand.queue.jobs
    stand.store.close()
    assert stand.on_disk() == []


def test_a_job_that_was_taken_for_durable_but_never_handed_to_disk_is_no_job_created(tmp_path: Path) -> None:
    def story(stand: Stand) -> None:
        stand.submit(b"kept")
        stand.submit(b"lost")
        del stand.queue.changes.insert[1]  # as if the memory had run out between two lines

    stand = run(tmp_path, story)
    assert stand.answers.sent == [b"created kept", NOT_STORED]
    stand.store.close()
    assert stand.on_disk() == [b"kept"]


def test_a_commit_that_ended_the_process_half_way_leaves_no_answer(tmp_path: Path) -> None:
    def story(stand: Stand) -> None:
        stand.store.problem = KeyboardInterrupt()
        stand.submit(b"a")
        with contextlib.suppress(KeyboardInterrupt):
            stand.writer._end_turn()
        assert stand.answers.sent == []
        stand.store.problem = None

    stand = run(tmp_path, story)
    assert stand.answers.sent == [b"created a"]
    stand.store.close()
    assert stand.on_disk() == [b"a"]


def test_what_is_done_while_its_row_can_not_be_deleted_does_not_run_again(tmp_path: Path) -> None:
    def story(stand: Stand) -> None:
        jobs = [stand.submit(unique) for unique in (b"a", b"b", b"c")]
        stand.writer._end_turn()
        stand.store.problem = sqlite3.OperationalError("database or disk is full")
        for job in jobs[:2]:
            stand.queue.remove(job)
        stand.writer._write_behind()

    stand = run(tmp_path, story)
    assert len(stand.queue.jobs) == 1
    stand.store._db.close()  # no more than that is left of it after a kill
    again = Store(stand.store.path)
    rows = list(again.rows())
    assert [row[2] for row in rows if not isinstance(row, int)] == [b"c"]
    again.write([], [], [row for row in rows if isinstance(row, int)])
    again.close()
    last = Store(stand.store.path)
    assert len(list(last.rows())) == 1 and last.missing == 0
    last.close()


def test_rows_come_in_the_order_of_their_places_also_those_queued_again(tmp_path: Path) -> None:
    def story(stand: Stand) -> None:
        jobs = [stand.submit(unique) for unique in (b"a", b"b", b"c", b"d")]
        stand.writer._end_turn()
        for job, place in ((jobs[0], 5), (jobs[1], 4)):
            job.position = jobs[3].id + place
            stand.queue.changes.update[job.id] = job
        stand.writer._end_turn()
        stand.submit(b"e")

    stand = run(tmp_path, story)
    stand.store.close()
    assert stand.on_disk() == [b"c", b"d", b"e", b"b", b"a"]

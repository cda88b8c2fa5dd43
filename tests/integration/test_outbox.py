"""The outbox against a model: puts, relays, refusals, and a crash at every step that touches the disk."""

import errno
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gearwsgi.errors import ServerError, ServerUnavailable
from gearwsgi.settings import read_settings
from gearwsgi.state.outbox import Outbox, Relay
from gearwsgi.wire.payload import Submission
from tests.support import until


class Crash(BaseException):
    """The process ends here."""


class Disk:
    """Counts the calls that change the disk, and crashes at one of them."""

    def __init__(self, at: int | None) -> None:
        self._left = at
        self._patches = [
            mock.patch.object(owner, name, self._counted(getattr(owner, name)))
            for owner, name in (
                (os, "open"),
                (os, "fsync"),
                (os, "mkdir"),
                (Path, "replace"),
                (Path, "unlink"),
                (os, "fchmod"),
            )
        ]

    def _counted(self, function: Any) -> Any:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            if self._left is not None:
                if self._left <= 0:
                    raise Crash
                self._left -= 1
            return function(*arguments, **keywords)

        return counted

    def __enter__(self) -> None:
        for patch in self._patches:
            patch.start()

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()


class OutboxMachine(RuleBasedStateMachine):
    """What put() has answered for is in the outbox or on the job server, in order, whatever crashed when."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.settings = read_settings({"state_dir": self.folder / "state"}, {})
        self.outbox = Outbox(self.settings)
        self.kept: list[str] = []
        self.server: list[str] = []
        self.count = 0

    @rule(crash=st.none() | st.integers(0, 12))
    def put(self, crash: int | None) -> None:
        self.count += 1
        name = f"{self.count:032x}"
        try:
            with Disk(crash):
                self.outbox.put(Submission("job", name, b"GET / HTTP/1.1\r\n\r\n", id=name))
        except Crash:
            self.outbox = Outbox(self.settings)
            return  # it may be there or not: nobody was told that it is
        self.kept.append(name)

    @rule(crash=st.none() | st.integers(0, 12), down_after=st.none() | st.integers(0, 3))
    def relay(self, crash: int | None, down_after: int | None) -> None:
        taken = 0

        def submit(submission: Submission) -> str:
            nonlocal taken
            if down_after is not None and taken >= down_after:
                raise ServerUnavailable("down")
            taken += 1
            self.server.append(submission.unique)
            return "H:1"

        try:
            with Disk(crash):
                self.outbox.relay(submit)
        except Crash:
            self.outbox = Outbox(self.settings)
        except ServerUnavailable:
            assert down_after is not None

    @invariant()
    def nothing_is_lost(self) -> None:
        waiting = {self.outbox.get(name).unique for name in self.outbox.spool.names()}
        assert set(self.kept) <= waiting | set(self.server)

    @invariant()
    def the_first_of_each_came_in_order(self) -> None:
        firsts = list(dict.fromkeys(self.server))
        assert firsts == sorted(firsts)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(read_settings({"state_dir": tmp_path / "state"}, {}))


def _put(outbox: Outbox, name: str, at: float = 0.0) -> None:
    outbox.put(Submission("job", name, b"GET / HTTP/1.1\r\n\r\n", at=at, id=name * 32))


def test_only_one_relay_works_at_a_time(outbox: Outbox) -> None:
    _put(outbox, "a")
    with outbox.spool.lock() as ours:
        assert ours
        assert outbox.relay(lambda submission: "H:1") == 0
    assert outbox.relay(lambda submission: "H:1") == 1


def test_what_a_job_server_refuses_stays_and_blocks_nobody(outbox: Outbox) -> None:
    for name in "abc":
        _put(outbox, name)
    taken = []

    def submit(submission: Submission) -> str:
        if submission.unique == "b":
            raise ServerError("QUEUE_ERROR", "full")
        taken.append(submission.unique)
        return "H:1"

    assert outbox.relay(submit) == 2 and taken == ["a", "c"]
    assert outbox.holds("b" * 32) and not outbox.holds("a" * 32)


def test_a_job_server_without_delays_gets_the_task_when_it_is_due(outbox: Outbox) -> None:
    _put(outbox, "a", at=time.time() + 1)
    seen = []

    def submit(submission: Submission) -> str:
        seen.append(submission.epoch(time.time()))
        if seen[-1] is not None:
            raise ServerError("INVALID_COMMAND", "no delays here")
        return "H:1"

    relay = Relay(outbox, submit, forever=False)
    relay.start()
    until(lambda: not outbox.spool.names())
    relay.stop()
    assert seen[0] is not None and seen[-1] is None


def test_the_relay_ends_with_the_last_letter_and_starts_again_with_the_next(outbox: Outbox) -> None:
    relay = Relay(outbox, lambda submission: "H:1", forever=False)
    for name in "ab":
        _put(outbox, name)
        relay.start()
        until(lambda: not outbox.spool.names())
    relay.stop()


def test_a_task_that_was_not_answered_in_time_blocks_no_other(outbox: Outbox) -> None:
    for name in "abc":
        _put(outbox, name)
    taken: list[Submission] = []

    def submit(submission: Submission) -> str:
        if submission.unique == "a":
            error = ServerUnavailable("no answer")
            error.sent_to = "there:1"
            raise error
        taken.append(submission)
        return "H:1"

    assert outbox.relay(submit) == 2 and [each.unique for each in taken] == ["b", "c"]
    assert outbox.relay(submit) == 0, "its pause is not over"
    outbox._passed_over[outbox.spool.names()[0]].until = 0
    seen: list[Submission] = []
    assert outbox.relay(lambda submission: seen.append(submission) or "") == 1  # type: ignore[func-returns-value]
    assert (seen[0].sent_to, seen[0].tries) == ("there:1", 1)
    assert not outbox.spool.names()


def test_the_pauses_of_a_task_that_can_not_be_submitted_grow_up_to_a_minute(outbox: Outbox) -> None:
    _put(outbox, "a")

    def submit(submission: Submission) -> str:
        raise ServerError("QUEUE_ERROR", "full")

    pauses = []
    for _ in range(6):
        began = time.time()
        outbox.relay(submit)
        (passed,) = outbox._passed_over.values()
        pauses.append(round((passed.until - began) / 5))
        passed.until = 0
    assert pauses == [1, 2, 4, 8, 12, 12]


def test_a_file_that_can_not_be_read_for_a_moment_is_not_set_aside(outbox: Outbox) -> None:
    for name in "ab":
        _put(outbox, name)
    first = outbox.spool.names()[0]
    opened = os.open

    def out_of_descriptors(path: Any, *given: Any, **named: Any) -> int:
        if str(path).endswith(f"{first}.http"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *given, **named)

    with mock.patch.object(os, "open", out_of_descriptors):
        assert outbox.relay(lambda submission: "H:1") == 1
    assert outbox.spool.names() == [first]
    outbox._passed_over.clear()
    assert outbox.relay(lambda submission: "H:1") == 1


TROUBLES = [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES]


@pytest.mark.parametrize("number", TROUBLES, ids=[errno.errorcode[number] for number in TROUBLES])
@pytest.mark.parametrize("call", ["open", "scandir", "stat", "fsync"])
def test_a_moment_without_disk_or_descriptors_ends_no_relay(outbox: Outbox, call: str, number: int) -> None:
    _put(outbox, "a")
    failed = threading.Event()
    true_call = getattr(os, call)

    def failing(path: Any, *given: Any, **named: Any) -> Any:
        if threading.current_thread().name == "gearwsgi relay" and not failed.is_set():
            failed.set()
            raise OSError(number, os.strerror(number))
        return true_call(path, *given, **named)

    relay = Relay(outbox, lambda submission: "H:1", forever=True)
    relay.INTERVAL = 0.01
    with mock.patch.object(os, call, failing):
        relay.start()
        until(failed.is_set)
        until(lambda: not outbox.spool.names())
    relay.stop()


def test_a_folder_that_is_unusable_for_a_moment_ends_no_relay(outbox: Outbox) -> None:
    _put(outbox, "a")
    outbox.spool.folder.chmod(0o707)
    tried = threading.Event()

    def submit(submission: Submission) -> str:
        tried.set()
        return "H:1"

    relay = Relay(outbox, submit, forever=True)
    relay.start()
    until(lambda: relay.has_passed)
    assert not tried.is_set()
    outbox.spool.folder.chmod(0o700)
    until(lambda: not outbox.spool.names())
    relay.stop()


def test_what_is_no_plain_file_is_set_aside_and_waited_for_by_nobody(outbox: Outbox, tmp_path: Path) -> None:
    _put(outbox, "a")
    folder = outbox.spool.folder
    os.mkfifo(folder / "0-fifo.http")
    (folder / "0-folder.http").mkdir()
    (folder / "0-link.http").symlink_to(tmp_path / "elsewhere")
    assert outbox.relay(lambda submission: "H:1") == 1
    assert {path.name for path in (folder / "bad").glob("*.http")} == {"0-fifo.http", "0-folder.http", "0-link.http"}

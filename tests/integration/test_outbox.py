"""The outbox against a model: puts, relays, refusals, and a crash at every step that touches the disk."""

import os
import shutil
import tempfile
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
    import time

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

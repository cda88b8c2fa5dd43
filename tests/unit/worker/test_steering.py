"""A slot whose queues are paused and whose tasks are cancelled, without a supervisor."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gearwsgi.state.records.steering import CANCEL, PAUSE, PAUSE_ENTRY, Request
from gearwsgi.wire import packets
from gearwsgi.worker import channel
from gearwsgi.worker.recorder import Recorder
from gearwsgi.worker.steering import Steering

from .rig import Rig


class Asked(Recorder):
    """What a test asks the supervisor to do."""

    asked: Sequence[Request] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.obeyed: list[Request] = []

    def requests(self) -> Sequence[Request] | None:
        return self.asked

    def withdraw(self, request: Request) -> None:
        self.obeyed.append(request)


def request(kind: str, name: str, ends: float | None = None) -> Request:
    return Request(kind, name, 0.0, None, "ann", ends)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def rig(tmp_path: Path, asked: Asked) -> Iterator[Rig]:
    made = Rig(tmp_path / "state", recorder=asked)
    yield made
    made.close()


def steer(rig: Rig, asked: Asked, *requests: Request) -> None:
    asked.asked = requests
    rig.steering.look(time.monotonic())
    rig.slot.steer()
    rig.turn()


def test_no_job_is_taken_before_it_is_known_what_is_paused(rig: Rig, asked: Asked) -> None:
    rig.slot.start()
    rig.ready()
    rig.tick()
    assert rig.peer is None and not rig.slot.is_idle
    steer(rig, asked, request(PAUSE, "job"))
    assert packets.CAN_DO not in rig.kinds()


def test_a_job_server_that_must_not_hand_out_is_told_when_nothing_is_held(rig: Rig, asked: Asked) -> None:
    asked.asked = ()
    rig.steering.look(time.monotonic())
    rig.slot.start()
    rig.ready()
    rig.assign(1)
    rig.heard()
    steer(rig, asked, request(PAUSE, "job"))
    rig.tick(2.0)
    assert packets.CANT_DO not in rig.kinds(), "gearmand would queue the running job again"
    ((sequence, _),) = rig.worker.jobs()
    rig.worker.say(channel.frame(channel.DONE, sequence, b""))
    rig.turn()
    heard = rig.kinds()
    assert heard[:2] == [packets.WORK_COMPLETE, packets.CANT_DO] and packets.CAN_DO not in heard
    rig.serve(packets.NO_JOB)
    steer(rig, asked)
    rig.tick()
    assert rig.kinds()[-2:] == [packets.CAN_DO, packets.GRAB_JOB_UNIQ]


def test_what_comes_after_a_pause_goes_back_and_what_is_cancelled_is_answered(rig: Rig, asked: Asked) -> None:
    asked.asked = ()
    rig.steering.look(time.monotonic())
    rig.slot.start()
    rig.ready()
    steer(rig, asked, request(PAUSE, "job"), request(CANCEL, f"{2:032x}"))
    rig.heard()
    rig.assign(1)
    assert packets.SUBMIT_JOB_BG in rig.kinds()
    rig.serve(packets.JOB_CREATED, b"H:9")
    rig.slot.links[0].session.grab(1)  # type: ignore[union-attr]
    rig.heard()
    rig.assign(2)
    assert packets.WORK_FAIL in rig.kinds() and not rig.worker.jobs()
    assert [each.name for each in asked.obeyed] == [f"{2:032x}"]


def test_what_was_read_last_holds_and_a_timed_pause_ends_all_the_same() -> None:
    asked = Asked()
    steering = Steering(asked)
    now = time.monotonic()
    assert not steering.knows
    asked.asked = (request(PAUSE, "job", ends=now + 10), request(PAUSE, "mail"), request(PAUSE_ENTRY, "daily"))
    assert steering.look(now) and steering.paused == {b"job", b"mail"}
    assert not steering.look(now + 9) and steering.look(now + 10) and steering.paused == {b"mail"}


def test_records_that_do_not_answer_hold_up_a_start_for_seconds_only() -> None:
    steering = Steering(Asked())
    now = time.monotonic()
    assert not steering.look(now) and steering.look(now + 3) and steering.knows and not steering.paused

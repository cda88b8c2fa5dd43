"""A slot, its process and its link, each state of theirs: no supervisor, no fork, no job server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearwsgi.policy import Outcome
from gearwsgi.wire import packets
from gearwsgi.worker import channel
from gearwsgi.worker.link import LinkState
from gearwsgi.worker.process import State
from gearwsgi.worker.slot import SlotState
from tests.unit.worker.rig import Rig, message

RETRIES = {packets.SUBMIT_JOB_EPOCH, packets.SUBMIT_BACKGROUND["normal"]}
"""How a next attempt is queued: the backoff's jitter decides."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    made.slot.start()
    yield made
    made.close()


def held_ahead(rig: Rig, count: int) -> None:
    """Jobs 1 to `count` lie in the process's pipe."""
    for _ in range(20):
        rig.slot.pace.count(0.00001)
    rig.slot.pace.advance()
    rig.slot.pace.advance()
    rig.slot.pace.advance()
    rig.ready()
    for number in range(1, count + 1):
        rig.assign(number)


def test_nothing_is_grabbed_before_a_process_is_ready(rig: Rig) -> None:
    assert rig.kinds() == [packets.SET_CLIENT_ID, packets.CAN_DO]
    assert rig.process.state is State.STARTING
    rig.ready()
    assert rig.process.state is State.READY
    assert rig.kinds() == [packets.GRAB_JOB_UNIQ]


def test_a_process_gets_no_job_before_its_fork_server_has_said_its_pid(rig: Rig) -> None:
    rig.worker.say(channel.frame(channel.READY, 0))
    rig.turn()
    assert rig.process.state is State.STARTING and packets.GRAB_JOB_UNIQ not in rig.kinds()
    rig.process.on_forked(17)
    assert rig.kinds() == [packets.GRAB_JOB_UNIQ]
    rig.assign(1)
    assert rig.process.running is not None and rig.process.running.pid == 17


def test_a_job_goes_to_the_process_and_its_answer_to_the_job_server(rig: Rig) -> None:
    rig.ready()
    rig.heard()
    rig.assign(1)
    [(sequence, payload)] = rig.worker.jobs()
    assert payload == message(1)
    rig.worker.say(channel.frame(channel.DONE, sequence, b"result"))
    assert rig.heard() == [(packets.WORK_COMPLETE, b"H:1\0result"), (packets.GRAB_JOB_UNIQ, b"")]
    assert rig.slot.jobs_done == 1


def test_an_empty_queue_puts_the_link_to_sleep_until_it_is_woken(rig: Rig) -> None:
    rig.ready()
    rig.heard()
    rig.serve(packets.NO_JOB)
    assert rig.kinds() == [packets.PRE_SLEEP]
    rig.serve(packets.NOOP)
    assert rig.kinds() == [packets.GRAB_JOB_UNIQ]


def test_of_a_process_that_dies_only_what_it_had_started_is_a_failed_attempt(rig: Rig) -> None:
    held_ahead(rig, 3)
    (first, _), *_ = rig.worker.jobs()
    rig.heard()
    rig.worker.claim.start(first)
    rig.process.on_exit(-9)
    [(kind, submitted)] = rig.heard()
    assert kind in RETRIES and b"X-Gearman-Attempt: 2" in submitted
    rig.ready()
    assert [payload for _, payload in rig.worker.jobs()] == [message(2), message(3)]


def test_a_process_that_dies_before_it_started_anything_costs_no_attempt(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    rig.heard()
    rig.process.on_exit(1)
    assert rig.kinds() == []
    rig.ready()
    assert [payload for _, payload in rig.worker.jobs()] == [message(1)]


def test_what_a_process_answered_before_its_death_counts(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.heard()
    rig.worker.claim.start(sequence)
    rig.worker.say(channel.frame(channel.DONE, sequence, b"done"))
    rig.process.on_exit(-9)
    assert (packets.WORK_COMPLETE, b"H:1\0done") in rig.heard()


def test_a_process_that_does_not_come_up_is_started_again_after_a_pause(rig: Rig) -> None:
    rig.process.on_exit(9)
    assert rig.slot.process is None
    rig.tick()
    assert rig.slot.process is None
    rig.tick(later=60)
    assert rig.process.state is State.STARTING and len(rig.workers) == 2


def test_where_there_is_no_fork_server_it_is_asked_again(rig: Rig) -> None:
    rig.ready()
    rig.has_fork_server = False
    rig.process.on_exit(0)
    assert rig.slot.process is None
    rig.has_fork_server = True
    rig.tick(later=60)
    assert rig.process.state is State.STARTING


def test_the_answer_for_a_lost_connection_is_not_given_on_the_next_one(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    assert rig.peer is not None
    rig.peer.close()
    rig.turn()
    assert rig.slot.links[0].session is None
    rig.tick(later=60)
    rig.heard()
    rig.worker.say(channel.frame(channel.DONE, sequence, b"late"))
    assert packets.WORK_COMPLETE not in rig.kinds()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (packets.JOB_ASSIGN_UNIQ, (b"H:9", b"job", b"u", message(9))),
        (packets.NO_JOB, ()),
        (packets.JOB_CREATED, (b"H:9",)),
    ],
    ids=["a job", "no job", "a submit that was taken"],
)
def test_a_job_server_that_answers_what_nobody_asked_is_left(
    rig: Rig, kind: int, parameters: tuple[bytes, ...]
) -> None:
    rig.ready()
    rig.assign(1)
    rig.worker.jobs()
    rig.serve(kind, *parameters)
    link = rig.slot.links[0]
    assert link._state is LinkState.WAITING and link.session is None
    assert rig.worker.jobs() == []


def test_a_thousand_wakings_that_come_at_once_cost_one_look(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.ready()
    looks: list[int] = []
    rig.serve(packets.NO_JOB)
    monkeypatch.setattr(rig.slot, "pump", lambda: looks.append(1))
    assert rig.peer is not None
    rig.peer.sendall((b"\0RES" + packets.NOOP.to_bytes(4, "big") + bytes(4)) * 1000)
    rig.turn()
    assert len(looks) == 1


def test_a_job_server_that_is_left_again_and_again_is_asked_after_growing_pauses(rig: Rig) -> None:
    rig.ready()
    link = rig.slot.links[0]
    for failures in range(1, 6):
        rig.serve(packets.JOB_CREATED, b"H:1")
        assert link.session is None and link.backoff.failures == failures
        assert rig.peer is not None
        rig.peer.close()
        rig.tick(later=60)
        assert link.session is not None
    link._up_since -= 60  # it stood for so long
    rig.serve(packets.JOB_CREATED, b"H:1")
    assert link.backoff.failures == 1


def test_a_drain_does_not_wait_for_a_job_server_that_never_answers(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.ready()
    assert packets.GRAB_JOB_UNIQ in rig.kinds()
    rig.slot.drain()
    rig.serve(packets.NOOP)
    rig.tick()
    assert rig.slot.state is SlotState.DRAINING  # it may be about to send a job
    rig.slot._end_at = time.monotonic()
    rig.tick()
    assert rig.slot.state is SlotState.CLOSED
    assert "localhost:4730 has not answered for 5 s, and is left" in capfd.readouterr().err


def test_a_job_server_that_refuses_grabs_is_asked_for_nothing_more(rig: Rig) -> None:
    rig.ready()
    assert packets.GRAB_JOB_UNIQ in rig.kinds()
    rig.serve(packets.ERROR, b"unknown_command", b"Unknown server command")
    rig.serve(packets.ECHO_RES, b"")  # what it says besides changes nothing
    rig.tick(later=5)
    assert not {packets.GRAB_JOB_UNIQ, packets.PRE_SLEEP} & set(rig.kinds())


def test_a_link_that_is_refused_waits_and_tries_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.refused = "job server localhost: refused"
    rig.slot.start()
    link = rig.slot.links[0]
    assert link._state is LinkState.WAITING and link.session is None
    rig.refused = ""
    rig.tick()
    assert link._state is LinkState.WAITING
    rig.tick(later=60)
    assert link._state is LinkState.UP
    rig.close()
    assert link._state is LinkState.CLOSED


def test_a_process_that_has_done_its_jobs_retires_and_another_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_jobs=1)
    rig.slot.start()
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    old = rig.process
    rig.worker.say(channel.frame(channel.DONE, sequence, b""))
    rig.turn()
    assert old.state is State.ENDING
    assert rig.worker.pipe.recv(1) == b""
    old.on_exit(0)
    assert old.state is State.ENDED and rig.process.state is State.STARTING
    rig.close()


def test_a_time_limit_is_an_alarm_first_and_then_the_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path, job_timeout=0.5)
    rig.slot.start()
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.worker.claim.start(sequence)
    rig.heard()
    rig.tick()
    rig.tick(later=1)
    assert rig.signals == [(101, 14)]
    rig.tick(later=7)
    assert rig.signals[-1] == (101, 9)
    rig.process.on_exit(-9)
    [(_, submitted)] = rig.heard()
    assert b"killed by SIGKILL: it did not end at its time limit" in submitted
    rig.close()


def test_what_waits_behind_a_long_job_is_handed_back_and_skipped(rig: Rig) -> None:
    held_ahead(rig, 2)
    [(first, _), (second, _)] = rig.worker.jobs()
    rig.worker.claim.start(first)
    rig.heard()
    rig.tick(later=1)
    assert not rig.worker.claim.start(second)
    rig.worker.claim.start(first)
    rig.tick(later=2)
    [(kind, submitted)] = rig.heard()
    assert kind == packets.SUBMIT_BACKGROUND["normal"] and submitted.endswith(message(2))
    rig.serve(packets.JOB_CREATED, b"H:9")
    assert rig.heard() == [(packets.WORK_FAIL, b"H:2")]
    rig.worker.say(channel.frame(channel.DONE, first, b""), channel.frame(channel.SKIPPED, second))
    assert (packets.WORK_COMPLETE, b"H:1\0") in rig.heard()
    assert not rig.process.backlog.fenced_at and rig.worker.jobs() == []


def test_a_job_that_writes_to_its_pipe_is_lost_and_its_process_ends(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.worker.claim.start(sequence)
    rig.heard()
    rig.worker.say(b"printed", channel.frame(channel.DONE, sequence, b""))
    [(kind, submitted)] = rig.heard()
    assert kind in RETRIES
    assert b"the application has written to file descriptors that are not its own" in submitted
    assert rig.process.state is State.ENDING


def test_a_report_of_progress_of_a_wrong_length_is_foreign_bytes_and_ends_no_supervisor(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.worker.claim.start(sequence)
    rig.heard()
    rig.worker.say(channel.frame(channel.PROGRESS, sequence, b"short"))
    rig.tick()
    assert rig.heard() == []
    rig.worker.say(channel.frame(channel.DONE, sequence, b""))
    [(kind, submitted)] = rig.heard()
    assert kind in RETRIES
    assert b"the application has written to file descriptors that are not its own" in submitted


def test_a_failure_is_queued_again_before_the_job_is_answered(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.heard()
    rig.worker.say(channel.failed_frame(sequence, Outcome("response", "503 Busy", status=503)))
    assert packets.WORK_FAIL not in rig.kinds()
    rig.serve(packets.JOB_CREATED, b"H:2")
    assert rig.heard() == [(packets.WORK_FAIL, b"H:1")]


def test_a_drain_waits_for_what_runs_and_then_closes(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.slot.drain()
    rig.tick()
    assert rig.slot.state is SlotState.DRAINING
    rig.worker.say(channel.frame(channel.DONE, sequence, b""))
    rig.turn()
    rig.tick()
    assert rig.slot.closed and rig.slot.process is None


def test_a_drain_waits_for_the_word_on_a_process_that_is_dying(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.worker.claim.start(sequence)
    dying = rig.process
    rig.worker.pipe.shutdown(2)
    rig.turn()
    assert dying.state is State.ENDING
    rig.heard()
    rig.slot.drain()
    rig.tick()
    assert not rig.slot.closed
    dying.on_exit(-11)
    [(kind, submitted)] = rig.heard()
    assert kind in RETRIES and b"killed by SIGSEGV" in submitted
    rig.serve(packets.JOB_CREATED, b"H:2")
    rig.tick()
    assert rig.slot.closed
    assert not list(rig.outbox.glob("*"))


def test_where_the_fork_server_is_gone_nobody_waits_for_its_word(rig: Rig) -> None:
    rig.ready()
    dying = rig.process
    rig.worker.pipe.shutdown(2)
    rig.turn()
    rig.tick()
    assert dying.state is State.ENDING
    rig.gone = True
    rig.tick()
    assert dying.state is State.ENDED and rig.process is not dying


def test_where_the_fork_server_is_gone_an_open_pipe_keeps_no_job(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(first, _)] = rig.worker.jobs()
    rig.worker.claim.start(first)
    dying = rig.process
    rig.gone = True
    rig.tick()
    assert dying.state is State.ENDING and (101, 9) in rig.signals
    rig.worker.say(channel.frame(channel.PROGRESS, first, bytes(16)), channel.frame(channel.DONE, first, b"x"))
    rig.turn()
    assert (packets.WORK_COMPLETE, b"H:1\0x") in rig.heard()  # it counts: it was answered before the end
    rig.tick()
    assert dying.state is State.ENDED and rig.process is not dying


def test_what_was_handed_back_on_a_connection_that_is_lost_is_queued_no_second_time(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    rig.slot.drain()
    rig.serve(packets.NOOP)
    rig.slot._around.settler.hand_back(rig.process.backlog.jobs[0], "it waited")
    assert packets.SUBMIT_BACKGROUND["normal"] in rig.kinds()
    assert rig.peer is not None
    rig.peer.close()
    rig.turn()
    assert not list(rig.outbox.glob("*"))


def test_a_slot_that_is_stopped_by_force_says_nothing_of_its_jobs(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.worker.claim.start(sequence)
    rig.heard()
    stopped = rig.process
    rig.slot.stop()
    stopped.on_exit(-9)
    assert rig.slot.closed and not list(rig.outbox.glob("*")) and not list(rig.dead.glob("*"))


def test_a_job_server_is_judged_only_after_it_was_asked(rig: Rig) -> None:
    rig.ready()
    rig.heard()
    rig.tick(later=60)
    assert packets.ECHO_REQ in rig.kinds() and rig.slot.links[0].session is not None
    rig.tick(later=70)
    assert rig.slot.links[0].session is not None
    rig.tick(later=76)
    assert rig.slot.links[0].session is None


def test_after_a_pause_a_job_server_is_asked_once_more(rig: Rig) -> None:
    rig.ready()
    rig.tick(later=11)
    rig.heard()
    session = rig.slot.links[0].session
    rig.slot.on_pause(30.0)
    assert rig.kinds() == [packets.ECHO_REQ]
    rig.serve(packets.ECHO_RES, b"gearwsgi")
    rig.tick(later=9)
    assert rig.slot.links[0].session is session is not None


def test_a_process_is_told_that_its_time_is_over_before_it_is_killed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, job_timeout=0.5)
    rig.slot.start()
    rig.ready()
    rig.assign(1)
    rig.tick()
    rig.tick(later=6)  # nobody looked in time
    assert rig.signals == [(101, 14)]
    rig.slot.on_pause(1.0)
    rig.tick(later=11.5)
    assert (101, 9) not in rig.signals
    rig.tick(later=13)
    assert rig.signals[-1] == (101, 9)
    rig.close()


def test_of_many_reports_of_progress_the_first_and_the_last_are_passed_on(rig: Rig) -> None:
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    rig.heard()
    rig.worker.say(channel.progress_frame(sequence, 1, 3000))
    rig.turn()
    rig.worker.say(*(channel.progress_frame(sequence, number, 3000) for number in range(2, 3000)))
    rig.turn()
    rig.worker.say(channel.progress_frame(sequence, 3000, 3000), channel.frame(channel.DONE, sequence, b""))
    heard = [body for kind, body in rig.heard() if kind == packets.WORK_STATUS]
    assert heard[0] == b"H:1\x001\x003000" and heard[-1] == b"H:1\x003000\x003000"
    assert len(heard) < 100


def test_what_waits_ahead_at_a_drain_is_not_said_to_wait_behind_a_long_job(
    rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    held_ahead(rig, 2)
    (first, _), *_ = rig.worker.jobs()
    rig.worker.claim.start(first)
    rig.slot.drain()
    rig.tick(later=0.1)
    rig.serve(packets.JOB_CREATED, b"H:9")
    said = capfd.readouterr().err
    assert "H:2 handed back: this worker ends" in said and "long job" not in said


def test_a_process_that_has_grown_is_said_to_be_replaced_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(tmp_path, max_rss=100.0)
    rig.slot.start()
    rig.ready()
    rig.assign(1)
    [(sequence, _)] = rig.worker.jobs()
    grown = channel.frame(channel.RETIRING, sequence)
    rig.worker.say(grown, grown, channel.frame(channel.DONE, sequence, b""))
    rig.turn()
    assert capfd.readouterr().err.count("over --max-rss 100, and is replaced") == 1
    assert rig.process.state is State.ENDING
    rig.close()

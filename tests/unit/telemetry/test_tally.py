"""What is counted of an attempt: its outcome, its times, and a name of its service that is one of few."""

import time
from typing import Any

import pytest

from gearwsgi.message.glance import glance
from gearwsgi.message.model import Message
from gearwsgi.settings import read_settings
from gearwsgi.telemetry.tally import BUCKETS, MAX_SERVICES, OTHER, Services, Tallies, cumulated

NOW = 1_800_000_000.0


def message(service: str = "mail.welcome", **fields: Any) -> bytes:
    task = Message("POST", path="/mail/welcome", headers=[("Idempotency-Key", "a" * 32)], body=b"X-Gearman-Due: 1.0")
    task.id, task.service, task.max_attempts, task.queued = "a" * 32, service, 5, NOW
    for name, value in fields.items():
        setattr(task, name, value)
    return task.to_bytes()


def tallies(**settings: Any) -> Tallies:
    made = Tallies()
    made.use(read_settings(settings, {}))
    return made


@pytest.mark.parametrize(
    ("payload", "seen"),
    [
        (message(), (b"mail.welcome", NOW)),
        (message(due=NOW + 7.5), (b"mail.welcome", NOW + 7.5)),
        (message(remote_addr="192.0.2.7", due=NOW + 7.5, priority="high"), (b"mail.welcome", NOW + 7.5)),
        (message(remote_addr="192.0.2.7", script_name="/shop"), (b"mail.welcome", NOW)),
        (message(queued=0.0), None),
        (b'{"service":"mail.welcome"}', None),
    ],
)
def test_a_glance_at_a_message_sees_its_service_and_since_when_it_waits(payload: bytes, seen: object) -> None:
    assert glance(payload) == seen


def test_an_attempt_is_one_outcome_one_duration_and_one_wait_from_when_it_was_due() -> None:
    counted = tallies()
    counted.count(b"job", message(due=NOW + 10), "retried", 0.003, NOW + 10.2)
    counted.count(b"job", message(), "done", 2.0, NOW + 400)
    ((key, tally),) = counted.items()
    assert key == ("job", "mail.welcome")
    assert tally.outcomes == {"done": 1, "retried": 1, "dead": 0, "cancelled": 0}
    ends = dict(cumulated(tally.ran))
    assert (ends["0.0025"], ends["0.005"], ends["1.0"], ends["2.5"], ends["+Inf"]) == (0, 1, 1, 2, 2)
    ends = dict(cumulated(tally.waited))
    assert (ends["0.1"], ends["0.25"], ends["300.0"], ends["600.0"], ends["+Inf"]) == (0, 1, 1, 2, 2)
    assert (round(tally.ran_for, 3), round(tally.waited_for, 3)) == (2.003, 400.2)


def test_what_another_program_has_written_is_counted_by_its_service_too() -> None:
    counted = tallies(tasks={"café": "/cafe"})
    written = message("café", queued=0.0)
    counted.count(b"job", written, "done", 0.1, time.time())
    counted.count(b"job", b"no message", "dead", None, 0.0)
    assert [key for key, _ in counted.items()] == [("job", "café"), ("job", OTHER)]
    assert [sum(tally.ran) for _, tally in counted.items()] == [1, 0]


def test_the_clock_of_another_machine_makes_no_wait_negative() -> None:
    counted = tallies()
    counted.count(b"job", message(), "done", 0.1, NOW - 60)
    ((_, tally),) = counted.items()
    assert (tally.waited[0], tally.waited_for) == (1, 0.0)


def test_a_raw_path_is_named_by_its_pattern_or_not_at_all() -> None:
    services = Services()
    services.use(read_settings({"tasks": {"GET /x": "/x", "hello": "/y"}, "tasks_only": ["/tasks/*"]}, {}))
    named = {
        name: services.label(name) for name in ("hello", "a.b", "GET /x", "/tasks/7?x=/", "PUT /tasks/8", "/z/9", "")
    }
    assert named == {
        "hello": "hello", "a.b": "a.b", "GET /x": "GET /x", "/tasks/7?x=/": "/tasks/*", "PUT /tasks/8": "/tasks/*",
        "/z/9": OTHER, "": OTHER,
    }  # fmt: skip


def test_a_path_without_a_pattern_in_the_settings_has_the_application_s() -> None:
    counted = tallies(tasks_only=["/tasks/*"])
    counted.count(b"job", message("/orders/7"), "done", 0.1, NOW, b"/orders/<int:id>")
    counted.count(b"job", message("/orders/8"), "done", 0.1, NOW, b"/orders/<int:id>")
    counted.count(b"job", message("/tasks/8"), "done", 0.1, NOW, b"/tasks/<name>")
    counted.count(b"job", message("a.b"), "done", 0.1, NOW, b"/a/b")
    assert [key[1] for key, _ in counted.items()] == ["/orders/<int:id>", "/tasks/*", "a.b"]


def test_the_two_hundred_and_first_service_and_all_after_it_are_other() -> None:
    counted = tallies()
    for number in range(MAX_SERVICES + 50):
        for _ in range(2):
            counted.count(b"job", message(f"service.n{number}"), "done", 0.1, NOW)
    found = dict(counted.items())
    assert len(found) == MAX_SERVICES + 1
    assert found["job", "service.n199"].outcomes["done"] == 2
    assert found["job", OTHER].outcomes["done"] == 100


def test_buckets_go_from_a_millisecond_to_an_hour() -> None:
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 3600.0)
    assert sorted(BUCKETS) == list(BUCKETS)

"""Wherever a task is described, each option of `task()` is taken, or stands here with the reason why not."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from gearwsgi import Gearman
from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.message.followups import FollowUp
from gearwsgi.message.targets import read_tasks
from gearwsgi.rules import OPTIONS, Given, Options, read_rule
from gearwsgi.schedule.entries import read_schedule
from gearwsgi.settings import read_settings
from gearwsgi.submit.followups import compose_follow_up

# A value for each, that it can have. What is new in `task()` is to be added here, and then to the places.
VALUES: dict[str, Any] = {
    "service": "/report", "data": {"year": 2026}, "queue": "reports", "form": {"a": "b"}, "files": {"a": b"b"},
    "body": b"x", "content_type": "text/plain", "params": {"a": "b"}, "headers": {"X-A": "b"}, "method": "PUT",
    "priority": "low", "unique": "one", "delay": 60.0, "at": datetime(2030, 1, 1, tzinfo=UTC), "max_attempts": 3,
    "backoff_min": 1.0, "backoff_max": 2.0, "timeout": 5.0, "keep_result": 60.0, "succeeds": (302,), "then": "/then",
    "on_dead": "/dead", "identity": "user", "limit": "stripe:42", "json": str, "target": "/other", "recorded": True,
    "after_response": True, "after": lambda submit: None, "plain": True,
}  # fmt: skip

SETTINGS = read_settings({"limits": {"stripe:*": {"concurrency": 1}}}, {})
REQUEST = ("service", "data", "form", "files", "body", "content_type", "params", "headers", "method", "json", "target")
RESPONSE = ("recorded", "after_response", "after")
NO_PLAIN_CALL = {"plain": "a plain call carries a service and data only"}


def parameters(method: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(method).parameters) - {"self"}


def accepted(read: Callable[[str, Any], Any]) -> set[str]:
    """The options that are known to a place that reads a dict."""
    found = set()
    for name, value in VALUES.items():
        try:
            read(name, value)
        except (ConfigError, InvalidTask) as error:
            assert f"has an unknown key {name!r}" in str(error) or f"has {name!r}" in str(error), error
        else:
            found.add(name)
    return found


def follow_up(name: str, value: Any) -> object:
    return compose_follow_up({"service": "/next", name: value}, "then", SETTINGS)


PLACES: dict[str, tuple[Callable[[], set[str]], dict[str, str]]] = {
    "call": (
        lambda: parameters(Gearman.call),
        {
            **dict.fromkeys(("delay", "at"), "its caller waits"),
            **dict.fromkeys(("max_attempts", "backoff_min", "backoff_max"), "it is tried once"),
            **dict.fromkeys(("keep_result", "succeeds", "then", "on_dead"), "its caller has the response, and decides"),
            **dict.fromkeys(RESPONSE, "it is over when its caller goes on"),
            "identity": "the setting says it",
            "target": "log and records have the service",
            **NO_PLAIN_CALL,
        },
    ),
    "replay": (
        lambda: parameters(Gearman.replay),
        {
            **dict.fromkeys(set(REQUEST) - {"body"}, "the request in hand is what is queued"),
            "succeeds": "a redirect means that it has gone well, but one to a login",
            "recorded": "its supervisor writes the record",
            **NO_PLAIN_CALL,
        },
    ),
    "a rule of defer, and defer()": (
        lambda: accepted(lambda name, value: read_rule("defer[0]", {"route": "POST /x", name: value})),
        {
            **dict.fromkeys(REQUEST, "the request in hand is queued; defer() takes its body beside them"),
            **dict.fromkeys(RESPONSE, "its response is the 202, which says that it is queued"),
            "unique": "each request is a task of its own, whose address the client gets",
            "at": "a rule is for many requests",
            **dict.fromkeys(("then", "on_dead"), "who asked is told by the task's address"),
            **NO_PLAIN_CALL,
        },
    ),
    "a follow-up": (
        lambda: accepted(follow_up),
        {
            **dict.fromkeys(
                ("data", "form", "files", "body", "content_type", "json"), "its data says what became of the task"
            ),
            **dict.fromkeys(RESPONSE, "a supervisor queues it, after any response"),
            "identity": "it runs as nobody",
            "target": "log and records have the service",
            **NO_PLAIN_CALL,
        },
    ),
    "an entry of the schedule": (
        lambda: accepted(lambda name, value: read_schedule("schedule", {"x": {"cron": "* * * * *", name: value}})),
        {
            "files": "what is uploaded comes with a request",
            **dict.fromkeys(("delay", "at", "unique"), "they follow from its cron expression and the tick"),
            **dict.fromkeys(RESPONSE, "a supervisor queues it, without any response"),
            "identity": "there is no user at hand",
            "target": "log and records have its service",
        },
    ),
    "an alias": (
        lambda: accepted(lambda name, value: read_tasks({"x": {"target": "/x", name: value}})),
        {
            **dict.fromkeys(set(REQUEST) - {"target"}, "it stands for a target; the request comes from task()"),
            **dict.fromkeys(("delay", "at", "unique", "then", "on_dead", "identity", "plain", *RESPONSE), "one task's"),
            **dict.fromkeys(("queue", "priority", "keep_result"), "one task's, or the setting"),
        },
    ),
}  # fmt: skip


def test_each_option_of_task_has_a_value_here() -> None:
    assert parameters(Gearman.task) == set(VALUES)


@pytest.mark.parametrize("place", PLACES)
def test_an_option_of_task_is_taken_there_or_it_is_said_why_not(place: str) -> None:
    find, left_out = PLACES[place]
    assert set(VALUES) - find() == set(left_out)


def test_what_a_rule_takes_is_the_same_in_its_type_its_table_and_what_is_made_of_it() -> None:
    assert set(Given.__annotations__) == set(OPTIONS) == {field.name for field in fields(Options)}


def test_what_a_follow_up_takes_is_among_what_travels() -> None:
    travels = {field.name for field in fields(FollowUp)}
    given = set(VALUES) - set(PLACES["a follow-up"][1])
    # Of the request, and of the queue's name; both ends of the backoff are one.
    assert given - travels == {"params", "limit", "backoff_min", "backoff_max"}
    assert travels - given == {"path", "backoff"}

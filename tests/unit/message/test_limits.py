"""Limits by key, as they are written, and the queue of a key's own."""

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.message.limits import Limit, find_limit, split_queue
from gearwsgi.settings import from_json, read_settings, to_json
from gearwsgi.testing import capture

LIMITS = {"stripe:*": {"concurrency": 1, "rate": "100/minute"}, "mail": {"rate": "10/second"}, "*": {"concurrency": 3}}


def test_the_first_pattern_that_matches_counts() -> None:
    limits = read_settings({"limits": LIMITS}).limits
    assert find_limit(limits, "stripe:42") == Limit("stripe:*", 1, "100/minute")
    assert find_limit(limits, "mail") == Limit("mail", 0, "10/second")
    assert find_limit(limits, "mails") == Limit("*", 3, "")
    assert find_limit(limits[:2], "mails") is None


def test_limits_travel_to_the_supervisor() -> None:
    settings = read_settings({"limits": LIMITS, "tasks": {"pay": {"target": "/pay", "limit": "stripe:1"}}})
    again = from_json(to_json(settings))
    assert again.limits == settings.limits and again.tasks["pay"].limit == "stripe:1"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["stripe"], "give a dict such as"),
        ({"a": {}}, "give concurrency, rate or both"),
        ({"a": {"concurrency": -1}}, "whole number from 1"),
        ({"a": {"concurrency": True}}, "whole number from 1"),
        ({"a": {"rate": "often"}}, "100/minute"),
        ({"a": {"rate": "1/second; 9/hour"}}, "100/minute"),
        ({"a": {"rate": "0/second"}}, "100/minute"),
        ({"a": {"speed": 1}}, "unknown key 'speed'"),
        ({"": {"concurrency": 1}}, "give a dict such as"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_at_the_start(limits: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_settings({"limits": limits})


def test_an_alias_or_a_rule_whose_key_has_no_limit_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"tasks\['pay'\].*'x' matches no pattern .*: 'stripe:\*'"):
        read_settings({"limits": {"stripe:*": {"concurrency": 1}}, "tasks": {"pay": {"target": "/pay", "limit": "x"}}})
    with pytest.raises(ConfigError, match=r"defer\[0\].*matches no pattern .*: there is none"):
        read_settings({"defer": [{"route": "POST /pay", "limit": "x"}]})


def test_a_task_with_a_key_waits_in_a_queue_of_its_own_and_is_shown_in_its_base() -> None:
    seen = []

    def app(environ, start_response):  # type: ignore[no-untyped-def]
        seen.append(environ["gearwsgi.job"].queue)
        start_response("500 Oops" if len(seen) == 1 else "204 No Content", [])
        return []

    tasks = {"pay": {"target": "/pay", "limit": "stripe:7"}, "free": "/free"}
    middleware = GearmanMiddleware(app, limits=LIMITS, tasks=tasks, secret_keys="k" * 16, state_dir="/nonexistent")
    with capture(middleware) as queue:
        sent = middleware.gearman.task("/pay", {}, limit="stripe:42")
        middleware.gearman.task("pay", {})
        middleware.gearman.task("free", {}, then={"service": "free", "limit": "mail"})
        assert sent.queue == "job"
        assert [(each.queue, each.limit) for each in queue] == [
            ("job", "stripe:42"),
            ("job", "stripe:7"),
            ("job", None),
        ]
        queue.run(until_empty=True)
        assert seen == ["job"] * 5, "the failed one's retry and the follow-up included"
        assert [run.task.limit for run in queue.runs] == ["stripe:42", "stripe:7", None, "mail", "stripe:42"]


def test_a_key_that_no_pattern_matches_is_an_error_at_the_call() -> None:
    middleware = GearmanMiddleware(lambda environ, start: [], limits={"mail": {"rate": "1/second"}})
    with capture(middleware) as queue:
        for key in ("stripe:42", "", "a b", "é" * 51, 5):
            with pytest.raises(InvalidTask, match="limit"):
                middleware.gearman.task("/pay", {}, limit=key)  # type: ignore[arg-type]
        with pytest.raises(InvalidTask, match="comes before a key"):
            middleware.gearman.task("/pay", {}, queue="job#mail")
        assert not list(queue)


def test_a_queue_is_told_from_its_key() -> None:
    assert split_queue("job") == ("job", "") and split_queue("job#a#b") == ("job", "a#b")

"""Settings: where they come from, what is refused, and that a key is never shown."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.address import TLS, Address, parse_address, parse_servers
from gearwsgi.errors import ConfigError, InvalidTask
from gearwsgi.kinds import check_queue
from gearwsgi.message.model import Message
from gearwsgi.settings import SETTINGS, Keywords, Settings, from_json, read_settings, to_json

KEY = "0123456789abcdef-hush"


def read(environ: dict[str, str] | None = None, **given: Any) -> Settings:
    return read_settings(given, environ or {})


def test_a_keyword_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"GEARMAN_SERVERS": "a:1,b:2", "GEARWSGI_SECRET_KEYS": KEY, "GEARWSGI_STATE_DIR": "/env"}
    assert read(environ).servers == (Address("a", 1), Address("b", 2))
    assert read(environ).secret_keys == (KEY.encode(),)
    assert read(environ).state_dir == Path("/env")
    assert read(environ, servers="c:3").servers == (Address("c", 3),)
    assert read(environ, secret_keys=["x" * 16]).secret_keys == (b"x" * 16,)
    assert (read().servers, read().embedded) == ((Address("127.0.0.1", 4730),), True)


def test_an_empty_variable_is_none_at_all() -> None:
    assert read({"GEARWSGI_SECRET_KEYS": "", "GEARMAN_SERVERS": "", "GEARWSGI_STATE_DIR": ""}) == read()


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'max_attempts'"):
        read(max_retries=3)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a", Address("a", 4730)),
        ("a:1", Address("a", 1)),
        ("[::1]:1", Address("::1", 1)),
        ("[::1]", Address("::1", 4730)),
        ("tls://a:1", Address("a", 1, TLS())),
        ("tls://a:1?ca=/ca.pem&cert=/c.pem&key=/k.pem", Address("a", 1, TLS("/ca.pem", "/c.pem", "/k.pem"))),
    ],
)
def test_an_address_is_read_with_its_port_and_with_tls(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "a:b", "a:b:c", "a:0", "a:65536", "a:999999", "::1", "[::1", "a b", "http://a", "ssl://a", "TLS://a", "tls:a",
     "a/b", "user@a", "tls://a?verify=no", "tls://", "a:-1", "a\n"],
)  # fmt: skip
def test_an_address_that_cant_be_read_is_refused_and_never_taken_for_plaintext(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)


def test_an_address_shows_no_file_of_a_key() -> None:
    assert str(parse_address("tls://a:1?key=/secret/key.pem")) == "tls://a:1"


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.8.9.10", True), ("localhost", True), ("LOCALHOST", True), ("::1", True),
     ("0:0:0:0:0:0:0:1", True), ("127.0.0.1.evil.example", False), ("127.evil.example", False), ("0.0.0.0", False),
     ("10.0.0.1", False), ("localhost.evil.example", False), ("::", False), ("db", False)],
)  # fmt: skip
def test_loopback_is_an_address_and_no_name_that_begins_like_one(host: str, is_loopback: bool) -> None:
    assert Address(host, 1).is_loopback is is_loopback


@pytest.mark.parametrize("servers", ["", ",", [], 5, b"a:1", {"a": 1}, ["a", 5], "embedded,a:1", "a:1,a:1", [None]])
def test_servers_that_cant_work_are_refused(servers: Any) -> None:
    with pytest.raises(ConfigError):
        parse_servers(servers)


@pytest.mark.parametrize(
    "keys", ["short", "x" * 15, ["x" * 16, "short"], [5], [None], 5, KEY + ",", ",", [""], "", b"short", [b"x" * 15]]
)
def test_a_key_that_is_too_short_or_no_key_is_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigError, match="secret_keys") as caught:
        read(secret_keys=keys)
    assert "short" not in str(caught.value) and "xxx" not in str(caught.value) and "hush" not in str(caught.value)


@pytest.mark.parametrize("keys", [KEY, KEY.encode(), [KEY], (KEY.encode(),), f" {KEY} "])
def test_keys_are_taken_as_text_bytes_or_a_list(keys: Any) -> None:
    assert read(secret_keys=keys).secret_keys == (KEY.encode(),)


def test_a_key_is_in_no_text_of_the_settings_or_the_middleware() -> None:
    app = GearmanMiddleware(lambda environ, start: [], "127.0.0.1:1", secret_keys=[KEY])
    for thing in (app.settings, app, app.client, app.gearman, vars(app)):
        assert "hush" not in repr(thing) and "hush" not in str(thing)


@pytest.mark.parametrize(
    "given",
    [{"max_attempts": 0}, {"max_attempts": 2.5}, {"max_attempts": True}, {"max_attempts": "3"}, {"backoff_min": -1},
     {"backoff_min": 10, "backoff_max": 5}, {"job_timeout": 0}, {"job_timeout": float("inf")},
     {"job_timeout": float("nan")}, {"job_timeout": 1e10}, {"connect_timeout": 0}, {"max_age": 0},
     {"max_age": float("nan")}, {"max_body": 0}, {"max_body": 1.5}, {"max_tasks_per_request": 0},
     {"on_unavailable": "drop"}, {"queue": ""}, {"queue": "a b"}, {"queue": "a\n"}, {"queue": "a\0b"},
     {"queue": "x" * 201}, {"queue": "\ud800"}, {"queue": 5}, {"accept_unsigned": "job"}, {"accept_unsigned": [""]},
     {"inherit": "cookie"}, {"inherit": ["a b"]}, {"redact": [5]}, {"tasks_only": ["tasks/*"]}, {"tasks_only": "/x"},
     {"resolver": "x"}, {"short_key": 1}, {"state_dir": 5}, {"tasks": ["a"]}, {"dead_max_age": 0},
     {"dead_max_count": -1}],
    ids=str,
)  # fmt: skip
def test_a_value_that_cant_work_is_refused_where_it_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        read(**given)


@pytest.mark.parametrize("queue", ["", " ", "a b", "a\r\nb", "a\0", "\ud800", "\x85", "x" * 201, "é" * 101, b"a", None])
def test_a_name_that_no_queue_has_is_an_error_of_ours(queue: Any) -> None:
    with pytest.raises(InvalidTask):
        check_queue(queue, InvalidTask)


def test_settings_survive_the_way_to_the_supervisor() -> None:
    settings = read(
        servers="tls://a:1?ca=/ca,b:2",
        secret_keys=[KEY, b"\xff" * 16],
        tasks={"a": {"target": "/x", "timeout": 2}},
        accept_unsigned=["legacy"],
        redact=["X_Token"],
        state_dir="/tmp/x",
    )
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings
    assert settings.redact == ("x-token",)


def test_every_setting_has_a_keyword_of_its_own_in_the_same_order() -> None:
    assert ["servers", "tasks", *Keywords.__annotations__] == list(SETTINGS)


def test_the_signature_and_the_docstring_say_every_setting_with_its_default() -> None:
    app, *shown = inspect.signature(GearmanMiddleware).parameters.values()
    assert app.name == "app"
    assert {each.name: each.default for each in shown} == {name: each.default for name, each in SETTINGS.items()}
    assert [each.name for each in shown if each.kind is each.POSITIONAL_OR_KEYWORD] == ["servers", "tasks"]
    assert all(f"\n    {name}: {each.help}\n" in (GearmanMiddleware.__doc__ or "") for name, each in SETTINGS.items())


def test_every_setting_at_its_default_survives_the_way_to_the_supervisor() -> None:
    settings = read(state_dir="/tmp/x")  # it travels as an absolute one
    assert from_json(json.loads(json.dumps(to_json(settings)))) == settings


def test_code_stays_with_the_application_on_the_way_to_the_supervisor() -> None:
    assert from_json(json.loads(json.dumps(to_json(read(resolver=str.upper))))).resolver is None


def test_none_is_as_if_a_setting_were_not_given() -> None:
    given = dict.fromkeys(SETTINGS)
    del given["records"]  # of which None says something
    assert read(**given) == read()


def test_unsigned_is_fine_without_keys_and_in_the_queues_that_are_named() -> None:
    assert read().may_be_unsigned("job")
    with_keys = read(secret_keys=[KEY], accept_unsigned=["legacy"])
    assert with_keys.may_be_unsigned("legacy") and not with_keys.may_be_unsigned("job")
    assert not with_keys.may_be_unsigned("legacy2") and not with_keys.may_be_unsigned("")


def test_a_tasks_own_limits_win_over_its_services_and_those_over_the_settings() -> None:
    settings = read(tasks={"a": {"target": "/x", "max_attempts": 2, "timeout": 3}}, max_attempts=7, job_timeout=9)
    assert settings.retry_limits(Message("POST")).max_attempts == 7
    assert settings.retry_limits(Message("POST", service="a")).max_attempts == 2
    assert settings.retry_limits(Message("POST", service="a", max_attempts=1)).max_attempts == 1
    assert settings.time_limit(Message("POST")) == 9
    assert settings.time_limit(Message("POST", service="a")) == 3
    assert settings.time_limit(dataclasses.replace(Message("POST", service="a"), timeout=1.5)) == 1.5

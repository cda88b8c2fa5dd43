"""Names to targets: the four rules as tables, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.errors import ConfigError, InvalidTask, UnknownService
from gearwsgi.message.targets import Service, add_query, encode_form, read_tasks, resolve

TASKS = read_tasks({"mail": "mail.send", "put": "PUT /mail/7", "self": "self", "twice": "mail", "x.y": "/aliased"})


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("default.index", "POST /default/index"),
        ("Test.task", "POST /Test/task"),
        ("a.b.c-d_e", "POST /a/b/c-d_e"),
        ("/x", "POST /x"),
        ("/", "POST /"),
        ("/x?a=1&b", "POST /x?a=1&b"),
        ("GET /x", "GET /x"),
        ("get /x", "get /x"),
        ("M-SEARCH /x", "M-SEARCH /x"),
        ("//a//b/./c/../d%2Fe%zz", "POST //a//b/./c/../d%2Fe%zz"),
        ("/café?é=ü", "POST /caf%C3%A9?%C3%A9=%C3%BC"),
        ("/a b", "POST /a%20b"),
        ("GET /a b", "GET /a%20b"),
        ("mail", "POST /mail/send"),
        ("put", "PUT /mail/7"),
        ("x.y", "POST /aliased"),
    ],
)
def test_a_name_is_resolved_by_the_first_rule_that_fits(name: str, target: str) -> None:
    assert str(resolve(name, TASKS, None)) == target


@pytest.mark.parametrize(
    "name", ["twice", "self", "", "x", "http://example.com/x", "HTTP/1.1", "a..b", ".a", "a.", "a b.c", "POST", "*"]
)
def test_anything_else_is_unknown_and_an_alias_is_replaced_once(name: str) -> None:
    with pytest.raises(UnknownService, match=r"aliases: mail, put, self, twice, x\.y"):
        resolve(name, TASKS, None)


def test_an_unknown_service_names_the_nearest_alias() -> None:
    with pytest.raises(UnknownService, match="did you mean 'mail'"):
        resolve("mial", TASKS, None)


@pytest.mark.parametrize(
    "name", ["/x\r\nA: b", "/x\n", "/\0", "/\x7f", "/x#y", "G\rT /x", "(GET) /x", "a\r.b", "/\ud800", "\udfff.a"]
)
def test_what_a_request_line_cant_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidTask):
        resolve(name, TASKS, None)


@pytest.mark.parametrize("name", [None, 5, b"/x", ["/x"]])
def test_a_name_that_is_no_string_is_refused(name: Any) -> None:
    with pytest.raises(UnknownService, match="a service is a string"):
        resolve(name, TASKS, None)


@given(st.text())
def test_any_text_is_a_target_of_printable_ascii_or_an_error_of_ours(name: str) -> None:
    try:
        target = resolve(name, TASKS, None)
    except InvalidTask:
        return
    assert target.path.startswith("/")
    assert all("!" <= char <= "~" and char != "#" for char in target.method + target.path)


@given(st.text(), st.text())
def test_whatever_a_resolver_answers_is_a_target_or_an_error_of_ours(name: str, answer: str) -> None:
    try:
        target = resolve(name, {}, lambda text: answer)
    except InvalidTask:
        return
    assert all("!" <= char <= "~" and char != "#" for char in target.method + target.path)


def test_a_resolver_replaces_the_rule_for_dotted_names() -> None:
    assert str(resolve("Test.task", {}, lambda name: f"GET /?service={name}")) == "GET /?service=Test.task"


def test_a_resolver_that_raises_an_error_of_ours_is_heard() -> None:
    def resolver(name: str) -> str:
        raise InvalidTask("not this one")

    with pytest.raises(InvalidTask, match="not this one"):
        resolve("a.b", {}, resolver)


def test_a_method_replaces_the_services_own() -> None:
    assert str(resolve("put", TASKS, None, "PATCH")) == "PATCH /mail/7"
    with pytest.raises(InvalidTask, match="not an HTTP token"):
        resolve("put", TASKS, None, "PA TCH")


@pytest.mark.parametrize(
    ("given_params", "query"),
    [
        ({"a": 1, "b": [1, "x"]}, "a=1&b=1&b=x"),
        ([("a", 1), ("a", 2)], "a=1&a=2"),
        ({"a": None, "b": True, "c": 1.5, "d": b"\xff"}, "a=&b=true&c=1.5&d=%FF"),
        ({"a b": "ä&="}, "a+b=%C3%A4%26%3D"),
        ({}, ""),
    ],
)
def test_params_are_the_query(given_params: Any, query: str) -> None:
    assert add_query("/x", given_params) == ("/x?" + query if query else "/x")
    assert encode_form(given_params, "form") == query


@pytest.mark.parametrize(
    "wrong", ["a=1", b"a=1", 5, [1], [("a",)], {"a": {}}, {"a": [[1]]}, {"a": {1}}, {"a": "\ud800"}]
)
def test_params_that_no_query_can_hold_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidTask):
        add_query("/x", wrong)


@pytest.mark.parametrize(
    "entry",
    [
        None, 5, [], {}, {"target": 5}, {"target": "/x", "attempts": 3}, {"target": "/x", "max_attempts": 0},
        {"target": "/x", "max_attempts": 2.5}, {"target": "/x", "max_attempts": True},
        {"target": "/x", "timeout": 0}, {"target": "/x", "timeout": float("nan")},
        {"target": "/x", "timeout": float("inf")}, {"target": "/x", "timeout": 1e11},
        {"target": "/x", "backoff_max": -1}, {"target": "/x", "backoff_min": "1"},
    ],
)  # fmt: skip
def test_an_entry_of_tasks_that_cant_work_is_an_error_at_the_start(entry: Any) -> None:
    with pytest.raises(ConfigError, match="tasks\\['mail'\\]"):
        read_tasks({"mail": entry})


def test_an_entry_of_tasks_may_have_settings_of_its_own() -> None:
    entry = {"target": "/x", "max_attempts": 1, "backoff_min": 0, "backoff_max": 5.5, "timeout": 2}
    assert read_tasks({"mail": entry}) == {"mail": Service("/x", 1, 0, 5.5, 2)}

"""What is known of a message, how two rows of a task become one, and which text a database gets."""

import json

import pytest

from gearwsgi.errors import BadMessage, ConfigError
from gearwsgi.log import cut_middle
from gearwsgi.message import reading
from gearwsgi.message.model import Message
from gearwsgi.settings import read_settings
from gearwsgi.state.records import model
from gearwsgi.state.records.facts import _any, read_facts
from gearwsgi.state.records.rows import MAX_NAME, clean, clean_id, whole

_HEADERS = (("User-Agent", "gearwsgi/1"), ("X-Request-ID", "r-1"), ("traceparent", "00-a-b-01"))


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"headers": ()}, {"headers": (("X-Request-Id", "r"), ("Traceparent", "t"))}, {"attempt": 3},
        {"priority": "high"}, {"due": 17.5}, {"queued": 0.0}, {"script_name": "/mount"}, {"timeout": 3.0},
        {"keep_result": 60.0}, {"failures": ("attempt 1 at x: y",)}, {"service": "münchen"}, {"max_attempts": None},
        {"body": b"X-Gearman-Task: forged\r\n\r\n\xff", "has_length": True}, {"path": "/x?y=%20"}, {"id": ""},
        {"remote_addr": "127.0.0.1", "remote_user": "ada"}, {"wants_reply": True},
    ],
)  # fmt: skip
def test_what_is_read_in_a_hurry_is_what_the_reader_reads(changes: dict[str, object]) -> None:
    values = {
        "path": "/mail",
        "headers": _HEADERS,
        "id": "a" * 32,
        "service": "mail",
        "max_attempts": 5,
        "queued": 9.125,
    }
    payload = Message("POST", **{**values, **changes}).to_bytes()  # type: ignore[arg-type]
    task, facts = reading.read(payload), read_facts(payload, lambda: "own")
    assert facts == _any(payload, lambda: "own")
    assert (facts.service, facts.method, facts.path, facts.attempt) == (task.service, "POST", task.path, task.attempt)
    assert (facts.id, facts.queued, facts.due) == (task.id or "own", task.queued, task.due)


def test_what_is_no_message_has_no_facts() -> None:
    for payload in (b"", b"{}", b"\xff" * 100, b"GET http://a/ HTTP/1.1\r\n"):
        with pytest.raises(BadMessage):
            read_facts(payload, lambda: "id")


def test_text_is_what_any_database_takes() -> None:
    assert clean("plain") == "plain" and clean("ä€😀") == "ä€😀"
    assert clean("a\0b") == "a\\x00b" and clean("\udcff") == "\\udcff"
    assert len(clean("x" * 10_000)) == MAX_NAME
    assert clean_id("x" * 300) != clean_id("x" * 301) and len(clean_id("x" * 300)) == 200
    assert whole(1 << 70) == (1 << 63) - 1


def test_a_long_traceback_is_cut_in_its_middle() -> None:
    text = "first\n" + "x" * 100_000 + "\nlast"
    cut = cut_middle(text, 16 * 1024)
    assert len(cut) <= 16 * 1024 and cut.startswith("first\n") and cut.endswith("\nlast") and "left out" in cut
    assert cut_middle("short", 100) == "short"


def test_a_history_is_read_in_the_order_of_its_attempts_and_half_a_line_is_left_out() -> None:
    lines = [
        model.write_attempt(number, float(number), number + 0.5, "retried", host="h", pid=1, reason="<b>\n\udcff")
        for number in (2, 1)
    ]
    history = model.read_history(lines[0][20:] + lines[0] + lines[1])
    assert [each.attempt for each in history] == [1, 2]
    assert json.dumps([each.to_json() for each in history])


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ("mysql://u:hush@h/db", "give 'sqlite'"), ("hush", "give 'sqlite'"), (7, "give 'sqlite'"), (True, "give"),
        ("postgresql://u:hush@h:port/db", "can't read"), ("postgresql://u:hush@[::1/db", "can't read"),
        ("postgresql://u:hush@h/db?nonsense=1", "can't read"), ("postgresql://u:hush%zz@h/db", "can't read"),
    ],
)  # fmt: skip
def test_a_url_that_cant_be_one_is_refused_at_the_start_and_shows_no_password(records: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_settings({"records": records}, {})
    assert "hush" not in str(caught.value).replace("records is hush:", "")


def test_records_are_in_sqlite_unless_none_or_nothing_turns_them_off() -> None:
    assert read_settings({}, {}).records == "sqlite"
    assert read_settings({"records": None}, {"GEARWSGI_RECORDS": "sqlite"}).records == ""
    assert read_settings({"records": ""}, {}).records == ""
    assert read_settings({}, {"GEARWSGI_RECORDS": ""}).records == ""
    url = "postgresql://ada:hush@db.example/records?sslmode=require"
    settings = read_settings({}, {"GEARWSGI_RECORDS": url})
    assert settings.records == url and "hush" not in repr(settings)

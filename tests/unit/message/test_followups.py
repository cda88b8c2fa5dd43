"""Follow-ups as they travel: what is read is what was written, and what nobody may write is refused."""

import json
from typing import Any

import pytest

from gearwsgi.errors import BadMessage
from gearwsgi.message.followups import FollowUp, read_follow_up
from gearwsgi.message.model import Message
from gearwsgi.message.reading import read

USUAL = {"service": "a.b", "method": "POST", "path": "/a/b", "queue": "job", "max_attempts": 5}


def test_a_message_brings_its_follow_ups_as_they_were() -> None:
    last = FollowUp("über.all", "PUT", "/x?y=%20", "käse", 3, (("X-A", "é"),), "low", "u", 1.5, 0.0, (1.0, 2.0))
    first = FollowUp("a.b", "POST", "/a/b", "job", 5, at=1.8e9, timeout=2.0, succeeds=(302,), then=last)
    task = Message("POST", id="1", service="s", max_attempts=5, queued=1.5, then=first, on_dead=last)
    assert read(task.to_bytes()) == task


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/a b"}, {"path": "/a\r\nX-Evil: 1"}, {"path": "a"}, {"method": "PO ST"}, {"method": "POST\n"},
        {"queue": ""}, {"queue": "a b"}, {"queue": "x" * 201}, {"queue": "a\nb"}, {"unique": "x" * 64},
        {"unique": "a\0b"}, {"service": "a\r\nb"}, {"service": ""}, {"headers": [["X-A", "b\r\nX-Evil: 1"]]},
        {"headers": [["X A", "b"]]}, {"headers": [["X-Gearman-Task", "b"]]}, {"headers": [["X-A", "€"]]},
        {"headers": "X-A"}, {"headers": 7}, {"priority": "urgent"}, {"max_attempts": 0}, {"max_attempts": "5"},
        {"max_attempts": True}, {"delay": -1}, {"delay": 1e11}, {"delay": "x"}, {"at": None}, {"timeout": []},
        {"backoff": [1]}, {"backoff": ["a", "b"]}, {"succeeds": [200]}, {"then": "a.b"}, {"then": {}},
        {"service": None}, {"surprise": 1},
    ],
)  # fmt: skip
def test_what_could_not_be_queued_is_no_follow_up(change: dict[str, Any]) -> None:
    assert read_follow_up(json.dumps(USUAL)).path == "/a/b"
    for values in ({**USUAL, **change}, {**USUAL, "on_dead": {**USUAL, **change}}):
        with pytest.raises(BadMessage, match="follow-up"):
            read_follow_up(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"a.b"', "{}", '{"then":' * 2000])
def test_what_is_no_json_object_is_no_follow_up(text: str) -> None:
    with pytest.raises(BadMessage, match="follow-up"):
        read_follow_up(text)
    payload = f"POST /x HTTP/1.1\r\nHost: a\r\nX-Gearman-Then: {text}\r\n\r\n".encode()
    with pytest.raises(BadMessage):
        read(payload)

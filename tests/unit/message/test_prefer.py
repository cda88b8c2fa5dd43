"""The header Prefer, as RFC 7240 has it."""

import pytest
from hypothesis import given
from hypothesis.strategies import text

from gearwsgi.message.prefer import read_prefer, seconds_to_wait


@pytest.mark.parametrize(
    ("header", "preferences"),
    [
        ("respond-async", {"respond-async": ""}),
        ("Respond-Async , WAIT = 10", {"respond-async": "", "wait": "10"}),
        ("respond-async; foo=bar; baz, wait=10", {"respond-async": "", "wait": "10"}),
        ('respond-async=""', {"respond-async": ""}),
        ('wait="10"', {"wait": "10"}),
        ("wait=5, wait=9", {"wait": "5"}),  # the first counts
        ('foo="respond-async, wait=3"', {"foo": "respond-async, wait=3"}),
        ('foo="a\\"b"; some-parameter', {"foo": 'a"b'}),
        ("return=minimal;;, ,handling=lenient", {"return": "minimal", "handling": "lenient"}),
        ("respond async, (x), =1, wait=10", {"wait": "10"}),
        ('foo="its quote never ends, respond-async', {"respond-async": ""}),
        ("", {}),
    ],
)  # fmt: skip
def test_preferences_are_read_as_the_rfc_has_them(header: str, preferences: dict[str, str]) -> None:
    assert read_prefer(header) == preferences


@pytest.mark.parametrize(
    ("header", "seconds"), [("wait=10", 10), ("wait=0", 0), ("wait", None), ("wait=-1", None), ("wait=1.5", None),
                            ("wait=9999999999", None), ("respond-async", None)],
)  # fmt: skip
def test_the_preference_wait_is_whole_seconds(header: str, seconds: int | None) -> None:
    assert seconds_to_wait(read_prefer(header)) == seconds


@given(text(alphabet='ab=;," \t\\-\x00é'))
def test_no_text_is_too_strange(header: str) -> None:
    read_prefer(header)


def test_a_long_header_takes_no_time() -> None:
    for piece in ('a="\\', "a=b;", '"', "a; b=", "\\", " ;"):
        read_prefer(piece * 20_000)

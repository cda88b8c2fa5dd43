"""The table of outcomes and fates, the backoff, Retry-After: pure, so by tables and properties."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearwsgi.policy import MAX_RETRY_AFTER, Dead, Done, GoOnAt, Limits, Outcome, RetryAt, backoff, decide, retry_after

LIMITS = Limits(5, 10.0, 3600.0)
NOW = 1_800_000_000.0


def fate(outcome: Outcome, attempt: int = 1, limits: Limits = LIMITS):
    return decide(outcome, attempt, limits, NOW, target="POST /x", random=lambda: 1.0)


@pytest.mark.parametrize("status", [200, 201, 204, 206, 226, 299])
def test_2xx_is_done(status: int) -> None:
    assert fate(Outcome("response", f"{status}", status)) == Done()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 505, 507, 511, 599, 999, 100])
def test_what_may_pass_is_retried(status: int) -> None:
    assert fate(Outcome("response", f"{status} Reason", status)) == RetryAt(NOW + 10, f"{status} Reason from POST /x")


@pytest.mark.parametrize(
    "status", [300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 418, 422, 451, 501]
)
def test_what_will_not_change_is_dead_at_once(status: int) -> None:
    result = fate(Outcome("response", f"{status} Reason", status))
    assert isinstance(result, Dead) and str(status) in result.reason and "POST /x" in result.reason


@pytest.mark.parametrize("kind", ["exception", "timeout", "lost"])
def test_whatever_befalls_the_worker_is_retried(kind: str) -> None:
    assert isinstance(fate(Outcome(kind, "why")), RetryAt)  # type: ignore[arg-type]


def test_a_redirect_asks_whether_there_is_a_login() -> None:
    result = fate(Outcome("response", "302 Found", 302, location="/login"))
    assert result == Dead("302 Found from POST /x to /login: is this handler behind a login?")


def test_the_last_attempt_is_dead_and_says_how_many_there_were() -> None:
    assert fate(Outcome("exception", "ValueError: x"), 5) == Dead("ValueError: x from POST /x; all 5 attempts used")
    assert isinstance(fate(Outcome("exception", "ValueError: x"), 4), RetryAt)


def test_an_exception_that_a_framework_made_a_500_is_named() -> None:
    result = fate(Outcome("response", "500 INTERNAL SERVER ERROR", 500, caught="ValueError: x"), 5)
    assert result == Dead("500 INTERNAL SERVER ERROR after ValueError: x from POST /x; all 5 attempts used")


def test_what_goes_on_later_is_no_failure_whatever_the_attempt() -> None:
    assert fate(Outcome("continued", retry_in=7.0, cursor="1"), 5) == GoOnAt(NOW + 7)


def test_a_refused_payload_is_dead_at_once() -> None:
    assert fate(Outcome("refused", "no signature")) == Dead("no signature")


def test_a_handler_may_say_never() -> None:
    assert isinstance(fate(Outcome("response", "503", 503, never=True)), Dead)


def test_a_handlers_own_delay_wins_over_all() -> None:
    assert fate(Outcome("exception", "Retry", retry_in=7.0, retry_after="99")) == RetryAt(NOW + 7, "Retry from POST /x")
    assert isinstance(fate(Outcome("exception", "Retry", retry_in=7.0), 5), Dead)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None), ("0", 0.0), ("120", 120.0), (" 3 ", 3.0), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("9" * 50, MAX_RETRY_AFTER),
        (format_datetime(datetime.fromtimestamp(NOW + 60, UTC), usegmt=True), 60.0),
        (format_datetime(datetime.fromtimestamp(NOW - 60, UTC), usegmt=True), 0.0),
        ("Sun, 06 Nov 9994 08:49:37 GMT", MAX_RETRY_AFTER),
        ("Sun, 99 Nov 2094 08:49:37 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_clamped(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


def test_retry_after_wins_over_the_backoff() -> None:
    assert fate(Outcome("response", "429", 429, retry_after="77")) == RetryAt(NOW + 77, "429 from POST /x")


@given(st.integers(1, 10**6), st.floats(0, 1e4), st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_the_backoff_doubles_up_to_its_maximum_with_full_jitter(n: int, low: float, high: float, luck: float) -> None:
    high = max(low, high)
    waited = backoff(n, low, high, lambda: luck)
    assert 0 <= waited <= min(high, low * 2.0 ** min(n - 1, 60))
    assert backoff(n, low, high, lambda: 1.0) <= backoff(n + 1, low, high, lambda: 1.0)


outcomes = st.builds(
    Outcome,
    st.sampled_from(["response", "exception", "timeout", "lost", "refused"]),
    st.text(max_size=50),
    st.integers(0, 999),
    retry_after=st.text(max_size=40),
    retry_in=st.none() | st.floats(allow_nan=False),
    never=st.booleans(),
)


@given(outcomes, st.integers(1, 20), st.integers(1, 20))
def test_every_outcome_has_a_fate_and_none_is_tried_more_often_than_allowed(o: Outcome, n: int, most: int) -> None:
    result = decide(o, n, Limits(most, 1.0, 10.0), NOW)
    if isinstance(result, RetryAt):
        assert n < most and result.at >= NOW and int(result.at) > 0
    assert isinstance(result, Done) == (o.kind == "response" and 200 <= o.status < 300 and o.retry_in is None)


@given(st.text(max_size=60) | st.from_regex(r"(Mon, )?\d{1,3} \w{3,9} \d{1,5} \d\d:\d\d(:\d\d)? ?[+-]?\w{0,6}"))
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after(value, time.time())
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER

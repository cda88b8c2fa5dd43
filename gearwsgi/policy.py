"""Decides a job's fate: from outcome, attempt, limits and time to done, another attempt, or dead. Pure."""

import random as _random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple, TypeAlias

RETRIED_STATUSES = frozenset({408, 425, 429})
"""Statuses under 500 that are worth another attempt."""
NEVER_RETRIED = frozenset({501})
"""Statuses from 500 on that another attempt would only repeat."""
MAX_RETRY_AFTER = 24 * 3600.0
"""Seconds that a response's Retry-After is clamped to."""

MAX_DELAY = 10 * 365 * 86400.0
"""Seconds that a handler's own delay is clamped to."""


OUTCOMES = ("done", "retried", "dead", "cancelled")
"""What an attempt can come to, each in the word under which it is counted and kept."""


@dataclass(slots=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        kind: `response`; `exception` (the application raised, or broke WSGI's rules); `timeout`; `lost` (the worker
            died); `refused` (the payload is no message that may be replayed, or its task may not run); `continued` (the
            handler said how far it is, and goes on as another job).
        reason: in words: "500 Internal Server Error", "ValueError: bad", "killed by SIGKILL (out of memory?)".
        status: the response's status, 0 without one.
        accepted: whether a status other than 2xx means, for this task, that its work is done: see the function
            `accepted`.
        caught: the exception that a framework has turned into this response, where it says so; or another cause.
        location: a redirect's Location.
        retry_after: the response's Retry-After as it came.
        retry_in: seconds until the next attempt, as the handler asked (`raise Retry(delay=…)`), or until it goes on.
        never: whether the handler answered `X-Gearman-Retry: never`.
        response: status line, headers and the first kilobytes of the response, for the dead letter.
        raised: the class of the exception that it failed with, such as `builtins.ValueError`; empty: not known.
        traceback: of the exception that it failed with; or the stack of a process that a fatal signal has ended.
        cursor: how far the handler is that goes on as another job, in JSON.
    """

    kind: Literal["response", "exception", "timeout", "lost", "refused", "continued"]
    reason: str = ""
    status: int = 0
    accepted: bool = False
    caught: str = ""
    location: str = ""
    retry_after: str = ""
    retry_in: float | None = None
    never: bool = False
    response: bytes = b""
    raised: str = ""
    traceback: str = ""
    cursor: str = ""


class Limits(NamedTuple):
    """The limits of one task: `max_attempts`, and the backoff in seconds."""

    max_attempts: int
    backoff_min: float
    backoff_max: float


class Done(NamedTuple):
    """Complete."""


class RetryAt(NamedTuple):
    """Another attempt at the Unix time `at`, for `reason`."""

    at: float
    reason: str


class GoOnAt(NamedTuple):
    """The same attempt goes on at the Unix time `at`, as another job that knows how far it is."""

    at: float


class Dead(NamedTuple):
    """A dead letter, for `reason`."""

    reason: str


Fate: TypeAlias = Done | RetryAt | GoOnAt | Dead


def decide(
    outcome: Outcome,
    attempt: int,
    limits: Limits,
    now: float,
    *,
    target: str = "",
    random: Callable[[], float] = _random.random,
) -> Fate:
    """The fate of a job whose attempt number `attempt` (1-based) had this outcome at the Unix time `now`.

    `target` is named in reasons; `random` answers a number in [0, 1) for the jitter.
    """
    if succeeded(outcome):
        return Done()
    if outcome.kind == "continued":
        return GoOnAt(now + min(max(outcome.retry_in or 0.0, 0.0), MAX_DELAY))
    reason = outcome.reason + (f" after {outcome.caught}" if outcome.caught else "")
    reason += f" from {target}" if target else ""
    if outcome.kind == "refused":
        return Dead(outcome.reason)
    if outcome.location:
        reason += f" to {outcome.location}: is this handler behind a login?"
    if outcome.never:
        return Dead(f"{reason}; the handler said X-Gearman-Retry: never")
    if not may_retry(outcome):
        return Dead(reason)
    if attempt >= limits.max_attempts:
        return Dead(f"{reason}; all {limits.max_attempts} attempts used")
    delay = outcome.retry_in
    if delay is None:
        delay = retry_after(outcome.retry_after, now)
    if delay is None:
        delay = backoff(attempt, limits.backoff_min, limits.backoff_max, random)
    return RetryAt(now + min(max(delay, 0.0), MAX_DELAY), reason)


def succeeded(outcome: Outcome) -> bool:
    """Whether the application answered 2xx, or what means the same for this task."""
    return outcome.kind == "response" and (200 <= outcome.status < 300 or outcome.accepted) and outcome.retry_in is None


def accepted(status: int, succeeds: Collection[int], from_request: bool, leads_to_login: Callable[[], bool]) -> bool:
    """Whether a status that is none from 200 to 299 means that the work is done.

    The handler of a form answers with a redirect when it has done its work. A redirect to the login says it has not.

    Args:
        status: the response's status.
        succeeds: the statuses that the task, or its alias, says mean success.
        from_request: whether it is a public request that was queued as it came in.
        leads_to_login: whether the response's Location is the login page.
    """
    if status in succeeds:
        return True
    return from_request and (status == 303 or (status == 302 and not leads_to_login()))


def may_retry(outcome: Outcome) -> bool:
    """Whether another attempt could have another outcome."""
    if outcome.kind != "response" or outcome.retry_in is not None:
        return outcome.kind != "refused"
    if outcome.status in NEVER_RETRIED:
        return False
    return outcome.status >= 500 or outcome.status < 200 or outcome.status in RETRIED_STATUSES


def backoff(attempt: int, low: float, high: float, random: Callable[[], float] = _random.random) -> float:
    """Seconds to wait after failed attempt number `attempt`: exponential, with full jitter.

    Anything between 0 and `low` doubled for each attempt before this one, at most `high`: spread out, so that what
    failed together does not come back together.
    """
    ceiling = min(high, low * 2.0 ** min(attempt - 1, 60))
    return ceiling * random()


def retry_after(value: str, now: float) -> float | None:
    """Seconds that a Retry-After (RFC 9110, section 10.2.3: seconds or a date) asks to wait; None: it can't be read."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), MAX_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - now, 0.0), MAX_RETRY_AFTER)

"""Follow-ups: from what a caller gave as `then=` or `on_dead=` to what travels, and from there to the task itself.

All that can be known when the first task is queued is decided then, and travels, signed, in that task's message. So its
retries, a retried dead letter and a later load of the application have it too; and the supervisor, which settles the
task without any handler's help, can write the follow-up's message without the application.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..errors import InvalidTask
from ..kinds import check_queue
from ..message import targets
from ..message.followups import FollowUp
from ..message.model import Message, check_headers, encode_json
from ..message.targets import nearest
from ..policy import MAX_DELAY
from ..settings import Settings
from ..wire.payload import Submission, make_unique, seal
from . import checks
from .compose import Wanted, backoff
from .request import USER_AGENT, travels

_KNOWN = (
    "service", "queue", "params", "headers", "method", "priority", "unique", "delay", "at", "max_attempts",
    "backoff_min", "backoff_max", "timeout", "keep_result", "succeeds", "then", "on_dead",
    "limit",
)  # fmt: skip


def compose_follow_up(wanted: Wanted, name: str, settings: Settings) -> FollowUp:
    """The follow-up that a caller wants.

    Args:
        wanted: a service, or a dict with `service` and other arguments of `task()`; its data is made when the task
            ends.
        name: the keyword: `then` or `on_dead`.
        settings: the middleware's.

    Raises:
        InvalidTask: it can't be one.
    """
    if isinstance(wanted, str):
        wanted = {"service": wanted}
    if not isinstance(wanted, Mapping):
        raise InvalidTask(f"{name} is {wanted!r}: give a service, or a dict such as {{'service': 'report.mail'}}")
    try:
        return _compose(**wanted, name=name, settings=settings)
    except TypeError:
        unknown = sorted(map(str, set(wanted) - set(_KNOWN)))
        if unknown:
            raise InvalidTask(
                f"{name} has {unknown[0]!r}{nearest(unknown[0], _KNOWN)}; it takes {', '.join(_KNOWN)}: its data says "
                "what became of the task"
            ) from None
        if "service" not in wanted:
            raise InvalidTask(f"{name} names no service") from None
        raise


def _compose(
    *,
    name: str,
    settings: Settings,
    service: str,
    queue: str | None = None,
    params: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    headers: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    method: str | None = None,
    priority: str = "normal",
    unique: str | None = None,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
    max_attempts: int | None = None,
    backoff_min: float | None = None,
    backoff_max: float | None = None,
    timeout: float | None = None,
    keep_result: float | None = None,
    succeeds: Iterable[int] = (),
    then: Wanted | None = None,
    on_dead: Wanted | None = None,
    limit: str | None = None,
) -> FollowUp:
    queue = settings.queue if queue is None else queue
    check_queue(queue, InvalidTask)
    if queue in settings.plain_queues:
        raise InvalidTask(f"{name} goes to {queue!r}, a queue of plain calls, which no follow-up can be")
    target = targets.resolve(service, settings.tasks, settings.resolver, method)
    if targets.takes_query(target.method):
        raise InvalidTask(f"{name} is a {target.method}, which has no body for its data: give another method")
    path = target.path if params is None else targets.add_query(target.path, params)
    checks.check_priority(priority)
    due = checks.due(delay, at)
    if isinstance(delay, timedelta):
        delay = delay.total_seconds()
    own_backoff = None
    if backoff_min is not None or backoff_max is not None:
        own_backoff = backoff(settings, service, backoff_min, backoff_max)
    limits = settings.retry_limits(Message("POST", service=service))
    return FollowUp(
        service, target.method, path, checks.limited_queue(queue, limit, service, settings),
        limits.max_attempts if max_attempts is None else checks.attempts(max_attempts),
        headers=tuple(check_headers(headers)) if headers is not None else (),
        priority=priority, unique="" if unique is None else checks.unique(unique, ""),
        delay=float(delay or 0.0), at=due if at is not None else 0.0, backoff=own_backoff,
        timeout=None if timeout is None else checks.positive(timeout, "timeout"),
        keep_result=None if keep_result is None else checks.seconds(keep_result, "keep_result"),
        succeeds=checks.statuses(succeeds) if succeeds else (),
        then=None if then is None else compose_follow_up(then, "then", settings),
        on_dead=None if on_dead is None else compose_follow_up(on_dead, "on_dead", settings),
    )  # fmt: skip


def follow(
    task: Message, settings: Settings, now: float, *, status: int, reason: str | None = None
) -> Submission | None:
    """The task that follows one that has ended: its `then` if there is no reason, its `on_dead` if there is one.

    Its id, and so its unique, are made from the task's id. If the task is settled a second time, after a crash, the job
    server recognizes the follow-up as long as it is queued.

    Args:
        task: the message of its last attempt.
        settings: the middleware's.
        now: Unix time.
        status: the last response's; 0: there was none.
        reason: why it is dead.

    Returns:
        None where nothing follows.
    """
    wanted = task.then if reason is None else task.on_dead
    if wanted is None:
        return None
    kind = "then" if reason is None else "on_dead"
    task_id = hashlib.blake2b(f"{kind}\0{task.id}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    data = {"id": task.id, "service": task.service, "status": status or None, "reason": reason, "data": task.json()}
    try:
        body = encode_json(data)
    except InvalidTask:  # NaN, say: a foreign message may have it
        body = b""
    if not 0 < len(body) <= settings.max_body:
        body = encode_json({**data, "data": None})
    due = wanted.at or (now + min(wanted.delay, MAX_DELAY) if wanted.delay else 0.0)
    message = Message(
        wanted.method, task.scheme, task.host, task.script_name, wanted.path, (), body, True, task_id, wanted.service,
        max_attempts=wanted.max_attempts, timeout=wanted.timeout, backoff=wanted.backoff, priority=wanted.priority,
        remote_addr=task.remote_addr, remote_user=task.remote_user, succeeds=wanted.succeeds, queued=now, due=due,
        keep_result=wanted.keep_result, then=wanted.then, on_dead=wanted.on_dead,
    )  # fmt: skip
    message.headers = _headers(task, wanted, message, settings)
    unique = wanted.unique or make_unique(task_id, 1)
    payload = seal(message, wanted.queue, settings, due or now)
    return Submission(wanted.queue, unique, payload, wanted.priority, due, task_id)


def _headers(task: Message, wanted: FollowUp, message: Message, settings: Settings) -> list[tuple[str, str]]:
    """The headers of a follow-up: those of its task that travel from a request, and its own over them."""
    own = list(wanted.headers)
    for name, value in wanted.headers:
        if name.lower() == "host":
            message.host = value
            own.remove((name, value))
    given = {name.lower() for name, _ in own} | {"user-agent", "content-type", "idempotency-key"}
    passed_on = [pair for pair in task.headers if travels(pair[0], settings.inherit) and pair[0].lower() not in given]
    named = {name.lower() for name, _ in own}
    made = [("User-Agent", USER_AGENT), ("Content-Type", "application/json"), ("Idempotency-Key", message.id)]
    return [pair for pair in made if pair[0].lower() not in named] + passed_on + own

"""Makes a message of what a caller has given to `task()` or `call()`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from ..errors import InvalidTask
from ..kinds import BaseURL
from ..message import targets
from ..message.bodies import encode_body
from ..message.model import Message, check_headers, safe_host
from ..settings import Settings
from . import checks
from .request import USER_AGENT, InHand

Pairs: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
Wanted: TypeAlias = str | Mapping[str, Any]
"""A follow-up: a service, or a dict with what `task()` takes."""

_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class Given:
    """The arguments that describe a request; each is as in `Gearman.task`."""

    service: str
    data: Any
    form: Pairs | None
    files: Pairs | None
    body: bytes | None
    content_type: str | None
    params: Pairs | None
    headers: Pairs | None
    method: str | None
    target: str | None = None


def compose(
    given: Given, task_id: str, settings: Settings, request: InHand | None, base: BaseURL, encoder: Any = None
) -> Message:
    """The message for the request that was asked for.

    Args:
        given: the request that is wanted.
        task_id: the task's id.
        settings: the middleware's.
        request: the request in hand; None where there is none.
        base: what the application's URLs begin with.
        encoder: what writes the data, in place of the setting `json`.

    Raises:
        InvalidTask: it can't be a request.
    """
    service, data = given.service, given.data
    wanted = service if given.target is None else given.target
    target = targets.resolve(wanted, settings.tasks, settings.resolver, given.method)
    method, path = target.method, target.path
    if data is not None and targets.takes_query(method) and given.form is None and given.body is None:
        path, data = targets.add_query(path, data), None
    if given.params is not None:
        path = targets.add_query(path, given.params)
    if encoder is not None:
        checks.encoder(encoder)
    content, kind = encode_body(
        data=data,
        form=given.form,
        files=given.files,
        body=given.body,
        content_type=given.content_type,
        encoder=encoder or settings.json,
    )
    # RFC 9110, section 8.6: with these methods a client sends a length even without a body; some frameworks insist on
    # it.
    has_length = kind is not None or method in _WITH_LENGTH
    scheme, host, mount = base
    message = Message(method, scheme, host, mount, path, (), content, has_length, task_id, service)
    own = check_headers(given.headers) if given.headers is not None else []
    if kind is not None and own and any(name.lower() == "content-type" for name, _ in own):
        if given.content_type is not None:
            raise InvalidTask("Content-Type is given twice: as content_type= and in headers=")
        kind = None
    return surround(message, own, kind, settings, request)


def surround(
    message: Message,
    own: list[tuple[str, str]],
    kind: str | None,
    settings: Settings,
    request: InHand | None,
    inherit: tuple[str, ...] | None = None,
) -> Message:
    """The message, with the headers and facts that it takes from the request in hand; its `own` headers win.

    Args:
        message: without headers.
        own: its own headers.
        kind: its Content-Type; None: it has none, or its own headers have it.
        settings: the middleware's.
        request: the one in hand; None where there is none.
        inherit: replaces the setting, where it is given.

    Raises:
        InvalidTask: its Host can't be one.
    """
    inherit = settings.inherit if inherit is None else inherit
    pairs = [("User-Agent", USER_AGENT)] if request is None else request.surroundings(inherit)
    keyed = False
    if own or inherit:
        given = {name.lower() for name, _ in own}
        keyed = "idempotency-key" in given
        if "host" in given:
            message.host = next(value for name, value in own if name.lower() == "host")
            own = [pair for pair in own if pair[0].lower() != "host"]
            if not safe_host(message.host):
                raise InvalidTask(f"Host {message.host!r} can't be one")
        if kind is not None:
            given.add("content-type")
        pairs = [pair for pair in pairs if pair[0].lower() not in given] + own
    if kind is not None:
        pairs.append(("Content-Type", kind))
    if not keyed:
        pairs.append(("Idempotency-Key", message.id))
    message.headers = pairs
    if request is not None:
        message.remote_addr = request.remote_addr()
        if "remote-user" in inherit:
            message.remote_user = request.remote_user()
    return message


def backoff(settings: Settings, service: str, low: float | None, high: float | None) -> tuple[float, float]:
    """A task's own backoff, of which one end may be its service's or the settings'."""
    limits = settings.retry_limits(Message("POST", service=service))
    low = limits.backoff_min if low is None else checks.positive(low, "backoff_min")
    return low, max(low, limits.backoff_max if high is None else checks.positive(high, "backoff_max"))


def plain_name(service: str, settings: Settings) -> str:
    """The name by which a PHP worker knows a service: of an alias its value, as PhalApi-Gearman has it."""
    if not isinstance(service, str) or not service or not service.isprintable():
        raise InvalidTask(f"service {service!r} can't be one")
    entry = settings.tasks.get(service)
    return entry.target if entry is not None else service


def refuse_with_plain(given: Given) -> None:
    """Refuse arguments that a plain call can't carry: it has a service and its data, and nothing else.

    Raises:
        InvalidTask: something else is given.
    """
    for field in fields(given)[2:]:
        if getattr(given, field.name) is not None:
            raise InvalidTask(f"{field.name} is given for a plain call, which carries a service's name and data only")

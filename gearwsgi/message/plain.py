"""The plain call: a service and its data as one JSON object, as PhalApi and the `gearman` tool write it. Pure.

It is read, strictly, as the request that it stands for: it comes from whoever reaches the job server's port.
"""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import BadMessage, InvalidTask
from . import targets
from .model import MAX_BODY, MAX_HEAD, Encoder, Message, dumps, encode_json
from .values import as_fields

MAX_DEPTH = 100
"""How deep lists and objects of a plain call may be nested."""
MAX_VALUES = 1_000_000
"""About how many values a plain call may hold: each takes far more memory than its bytes."""
MAX_NAME = 2000
"""Characters of a plain call's service."""


def is_plain(payload: bytes) -> bool:
    """Whether the payload is a plain service call rather than an HTTP message."""
    return payload[:1] == b"{"


def read_plain(
    payload: bytes,
    tasks: Mapping[str, targets.Service],
    resolver: targets.Resolver | None,
    *,
    id: str,
    max_body: int = MAX_BODY,
) -> Message:
    """The request that a plain call, `{"service": "default.index", …data}`, stands for.

    Args:
        payload: JSON; one NUL or newline at its end is forgiven.
        tasks: the aliases.
        resolver: as in `targets.resolve`.
        id: an id for the task, since a plain call brings none.
        max_body: bytes that the payload may have.

    Raises:
        BadMessage: it is no JSON object with a `service`, or the service is unknown.
    """
    if len(payload) > max_body:
        raise BadMessage(f"payload of {len(payload)} bytes is over max_body={max_body}")
    if payload.endswith(b"\r\n"):
        payload = payload[:-2]
    elif payload[-1:] in (b"\0", b"\n"):
        payload = payload[:-1]
    try:
        call = _read_json(payload)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"plain call can't be read as JSON: {error}") from error
    if not isinstance(call, dict):
        raise BadMessage("plain call is no JSON object")
    name = call.pop("service", None)
    if not isinstance(name, str):
        raise BadMessage('plain call names no "service"')
    if len(name) > MAX_NAME:
        raise BadMessage(f"plain call's service has {len(name)} characters, over the limit of {MAX_NAME}")
    try:
        target = targets.resolve(name, tasks, resolver)
        path, body = target.path, b""
        headers: tuple[tuple[str, str], ...] = ()
        if targets.takes_query(target.method):
            path = targets.add_query(path, call)
        else:
            headers, body = (("Content-Type", "application/json"),), dumps(call).encode()
    except InvalidTask as error:
        raise BadMessage(f"plain call: {error}") from error
    if len(path) > MAX_HEAD - 1024:
        raise BadMessage(f"plain call's target has {len(path)} bytes, which no request line holds")
    return Message(method=target.method, path=path, headers=headers, body=body, id=id, service=name, plain=call)


def _read_json(text: bytes) -> Any:
    """JSON from a stranger: no key twice, only finite numbers, and not more memory than its size suggests."""
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"over {MAX_VALUES} values")
    found = _decode(text.decode("utf-8"))
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _check_depth(found)
    return found


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(MAX_DEPTH + 1):
        level = [
            value
            for each in level
            if isinstance(each, dict | list)
            for value in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


_decode = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_refuse_constant, parse_float=_finite).decode


def write_plain(name: str, data: Any, encoder: Encoder | None = None) -> bytes:
    """The plain call of `name` with `data` (a dict or None).

    Raises:
        InvalidTask: the data is no dict, has a `service` of its own, or JSON can't hold it.
    """
    data = as_fields(data)
    if data is not None and not isinstance(data, Mapping):
        raise InvalidTask(f"a plain call takes a dict as its data, not {type(data).__name__}")
    if data and "service" in data:
        raise InvalidTask('data has a "service" of its own, which a plain call has no room for')
    return encode_json({**(data or {}), "service": name}, encoder)

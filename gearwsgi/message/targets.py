"""From names to targets: a service, as a caller names it, becomes the method and path of a request.

Pure: no I/O. The four rules, in order: an alias is replaced by its value, once; `/path` and `METHOD /path` are
targets; a dotted name is a path (or whatever `resolver=` says); anything else is an error that helps.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from ..errors import ConfigError, InvalidTask, UnknownService
from .limits import checked_key
from .values import as_fields, as_text

Resolver: TypeAlias = Callable[[str], str | None]

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110, section 5.6.2: what a method and a header's name may be."""

_DOTTED = re.compile(r"[\w-]+(?:\.[\w-]+)+")
_SIMPLE_TARGET = re.compile(r"/[!$%&'()*+,./0-9:;=?@A-Z_a-z~\[\]{}|^\"<>\\`-]*")
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs, which no encoding can write."""
_SHOWN = 200
"""Characters of an unknown name that the error shows."""
_QUERY_METHODS = frozenset({"GET", "HEAD", "DELETE"})


@dataclass(slots=True)
class Target:
    """Where a task goes: `method` and `path`, which is ASCII, relative to the application, and has its query."""

    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Service(NamedTuple):
    """One entry of `tasks=`: its target, and the settings in which it differs from the middleware's."""

    target: str
    max_attempts: int | None = None
    backoff_min: float | None = None
    backoff_max: float | None = None
    timeout: float | None = None
    succeeds: tuple[int, ...] = ()
    limit: str | None = None


def read_statuses(value: Any) -> tuple[int, ...]:
    """Statuses that mean that the work is done: `(302, 303)`.

    Raises:
        ValueError: they can't be statuses.
    """
    found = tuple(value) if isinstance(value, list | tuple | set | frozenset) else ()
    if not 0 < len(found) <= 10 or not all(type(each) is int and 300 <= each <= 599 for each in found):
        raise ValueError("give up to ten statuses from 300 to 599, such as (302, 303)")
    return found


def read_tasks(tasks: Mapping[str, Any]) -> dict[str, Service]:
    """Check `tasks=`: names to targets, or to dicts with a `target` and settings of their own.

    Raises:
        ConfigError: a value is neither, or a key of the dict is unknown.
    """
    return {str(name): _read_entry(str(name), value) for name, value in tasks.items()}


def _read_entry(name: str, value: Any) -> Service:
    if isinstance(value, str):
        value = {"target": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("target"), str):
        raise ConfigError(f'tasks[{name!r}] is {value!r}: give a target such as "POST /mail/send" or a dict with one')
    unknown = sorted(set(value) - set(Service._fields))
    if unknown:
        raise ConfigError(
            f"tasks[{name!r}] has an unknown key {unknown[0]!r}{nearest(unknown[0], Service._fields)}; "
            f"known are {', '.join(Service._fields)}"
        )
    if "succeeds" in value:
        try:
            value = {**value, "succeeds": read_statuses(value["succeeds"])}
        except ValueError as error:
            raise ConfigError(f"tasks[{name!r}]['succeeds'] is {value['succeeds']!r}: {error}") from None
    if value.get("limit") is not None:
        try:
            checked_key(value["limit"])
        except ValueError as error:
            raise ConfigError(f"tasks[{name!r}]['limit'] is {value['limit']!r}: {error}") from None
    for field in ("max_attempts", "backoff_min", "backoff_max", "timeout"):
        number = value.get(field)
        if number is not None and not _fits(field, number):
            raise ConfigError(f"tasks[{name!r}][{field!r}] is {number!r}: give a number that it can be")
    return Service(**value)


def _fits(field: str, number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    if field == "max_attempts":
        return isinstance(number, int) and 1 <= number < 10**6
    return (0.001 if field == "timeout" else 0) <= number <= 10**9


def resolve(name: str, tasks: Mapping[str, Service], resolver: Resolver | None, method: str | None = None) -> Target:
    """The target that `name` stands for.

    Args:
        name: alias, `/path?query`, `METHOD /path` or dotted name.
        tasks: the aliases.
        resolver: replaces the rule for dotted names; called with the name, answers a target or None.
        method: overrides the target's method.

    Raises:
        UnknownService: the name is none of these, or the resolver does not know it.
        InvalidTask: a control character, a fragment, or a method that is no token.
    """
    if not isinstance(name, str):
        raise UnknownService(f"a service is a string, such as 'default.index'; this is {name!r}")
    if not name.isprintable() and _NO_TEXT.search(name):
        raise InvalidTask(f"service {name[:_SHOWN]!r} has a control character")
    entry = tasks.get(name)
    text = entry.target if entry is not None else name
    verb, path = _split(text)
    if not path:
        found = _ask(resolver, text) if resolver is not None else _dotted(text)
        verb, path = _split(found) if found else ("", "")
        if not path:
            raise _unknown(name, text, tasks)
    verb = method if method is not None else verb or "POST"
    if verb != "POST" and not TOKEN.fullmatch(verb):
        raise InvalidTask(f"method {verb!r} is not an HTTP token, such as POST")
    return Target(verb, path if _SIMPLE_TARGET.fullmatch(path) else _ascii(path))


def _ask(resolver: Resolver, text: str) -> str | None:
    """What the application's own resolver answers. Names may come from anywhere, and it may raise anything."""
    try:
        found = resolver(text)
    except InvalidTask:
        raise
    except Exception as error:
        raise UnknownService(f"unknown service {text[:_SHOWN]!r}: resolver raised {type(error).__name__}") from error
    if found is not None and not isinstance(found, str):
        raise UnknownService(f"unknown service {text[:_SHOWN]!r}: resolver answered {type(found).__name__}, not a str")
    return found


def _split(text: str) -> tuple[str, str]:
    """`METHOD /path` or `/path` in two; the path is empty where the text is neither."""
    if text.startswith("/"):
        return "", text
    verb, _, path = text.partition(" ")
    return (verb, path) if path.startswith("/") else ("", "")


def _dotted(name: str) -> str | None:
    return "/" + name.replace(".", "/") if _DOTTED.fullmatch(name) else None


def _ascii(path: str) -> str:
    """Percent-encode what a request line can't hold; all other bytes stay as they are."""
    if _NO_TEXT.search(path):
        raise InvalidTask(f"target {path[:_SHOWN]!r} has a control character; percent-encode it")
    if "#" in path:
        raise InvalidTask(
            f"target {path[:_SHOWN]!r} has a fragment, which no request carries; write %23 for a literal #"
        )
    return quote(path, safe="/!$%&'()*+,.:;=?@_~[]{}|^\"<>\\`-")


def _unknown(name: str, text: str, tasks: Mapping[str, Service]) -> UnknownService:
    via = "" if name == text else f" (the alias of {text!r})"
    known = ", ".join(sorted(tasks)) or "none"
    return UnknownService(
        f"unknown service {name[:_SHOWN]!r}{via}{nearest(name, tasks)}; aliases: {known}; "
        f"or give a path ('/mail/send', 'PUT /mail/7') or a dotted name ('mail.send')"
    )


def nearest(name: str, names: Any) -> str:
    """`, did you mean 'x'?` for the most similar name, if any; one with the same first word is preferred."""
    import difflib  # only where something is wrong

    close = difflib.get_close_matches(name[:_SHOWN], [str(known) for known in names], 3, 0.5)
    first = name.partition("_")[0] + "_"
    close.sort(key=lambda known: not known.startswith(first))
    return f", did you mean {close[0]!r}?" if close else ""


def takes_query(method: str) -> bool:
    """Whether data is sent in the query with this method, since the request has no body."""
    return method.upper() in _QUERY_METHODS


def add_query(path: str, params: Any) -> str:
    """`path` with `params` (a dict, whose lists repeat the key, or pairs) at the end of its query.

    Raises:
        InvalidTask: `params` is neither, or a value is a dict or a list in a list.
    """
    query = encode_form(params, "params")
    if not query:
        return path
    return path + ("&" if "?" in path else "?") + query


def encode_form(fields: Any, what: str) -> str:
    """`fields` (a dict or pairs) as application/x-www-form-urlencoded; a list repeats its key."""
    fields = as_fields(fields)
    if isinstance(fields, Mapping):
        fields = fields.items()
    elif isinstance(fields, str | bytes) or not hasattr(fields, "__iter__"):
        raise InvalidTask(f"{what} is {type(fields).__name__}: give a dict or pairs")
    pairs: list[tuple[str, Any]] = []
    for item in fields:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InvalidTask(f"{what} holds {item!r}: give a dict or pairs")
        key, value = item
        for one in value if isinstance(value, list | tuple) else (value,):
            pairs.append((str(key), _scalar(one, what, key)))
    try:
        return urlencode(pairs)
    except UnicodeEncodeError:
        raise InvalidTask(f"{what} holds half of a surrogate pair, which no encoding has") from None


def _scalar(value: Any, what: str, key: Any) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple | set):
        raise InvalidTask(f"{what}[{key!r}] is nested ({type(value).__name__}), which a form or query can't hold")
    return as_text(value) or str(value)

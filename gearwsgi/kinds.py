"""The kinds of values that settings have: how each is read from what was given, and how it travels as JSON. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .address import TLS, Address, parse_servers
from .errors import ConfigError
from .message import limits, targets
from .message.model import safe_host
from .schedule.entries import read_schedule

MIN_KEY = 16
"""Bytes that a secret key has at least."""


def _same(value: Any) -> Any:
    return value


class Kind(NamedTuple):
    """A kind of value that a setting may have.

    Attributes:
        read: from the setting's name and what was given (by keyword, or as a variable's text) to its value; raises
            `ConfigError` where it can't work.
        dump: from a value other than None to JSON's types.
        load: from JSON's types back to the value.
        may_be_off: whether the setting can be off: None as the keyword, or an empty variable, which `read` gets as "".
    """

    read: Callable[[str, Any], Any]
    dump: Callable[[Any], Any] = _same
    load: Callable[[Any], Any] = _same
    may_be_off: bool = False


def check_queue(queue: Any, error: type[Exception]) -> None:
    """Raise `error` unless `queue` can be a Gearman function's name."""
    is_text = isinstance(queue, str) and queue.isprintable() and " " not in queue
    if not is_text or not 0 < len(queue.encode()) <= limits.MAX_QUEUE:
        raise error(f"queue {queue!r} can't be one: give up to 200 bytes without spaces and control characters")
    if limits.SEPARATOR in queue:
        raise error(f"queue {queue!r} can't be one: a {limits.SEPARATOR} comes before a key, which limit= names")


def number(low: float, kind: type = float) -> Kind:
    """A number from `low` to a billion."""

    def read(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= 10**9:
            raise ConfigError(f"{name} is {value!r}: give a number from {low:g} to a billion")
        if kind is int and value != int(value):
            raise ConfigError(f"{name} is {value!r}: give a whole number")
        return kind(value)

    return Kind(read)


def choice(*known: str) -> Kind:
    """One of these words."""

    def read(name: str, value: Any) -> str:
        if value not in known:
            raise ConfigError(f"{name} is {value!r}: give one of {', '.join(map(repr, known))}")
        return str(value)

    return Kind(read)


def function(what: str) -> Kind:
    """A callable: code of the application's, which does not travel; `what` says what it is."""

    def read(name: str, value: Any) -> Any:
        if not callable(value):
            raise ConfigError(f"{name} is {value!r}: give {what}")
        return value

    return Kind(read, dump=lambda value: None)


def _read_servers(name: str, value: Any) -> tuple[tuple[Address, ...], bool]:
    return parse_servers(value)


def _load_servers(value: Any) -> tuple[Address, ...]:
    return tuple(Address(host, port, None if tls is None else TLS(*tls)) for host, port, tls in value)


class BaseURL(NamedTuple):
    """What the application's URLs begin with: scheme, Host, and the mount, percent-encoded without a slash last."""

    scheme: str = "http"
    host: str = "localhost"
    script_name: str = ""


_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+")
_BASE_URL = re.compile(r"(https?)://([^/?#]+)((?:/[!$-.0-;=@-Z_a-z~]+)*)/?", re.IGNORECASE)


def _read_base_url(name: str, value: Any) -> BaseURL:
    found = _BASE_URL.fullmatch(value) if isinstance(value, str) else None
    if found is None or not safe_host(found[2]):
        raise ConfigError(f"{name} is {value!r}: give a URL such as 'https://shop.example.com' or one with a path")
    return BaseURL(found[1].lower(), found[2], found[3])


def _read_tasks(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}: give a dict of names and targets")
    return targets.read_tasks(value)


def _read_queue(name: str, value: Any) -> str:
    check_queue(value, ConfigError)
    return str(value)


def _read_switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}: give True or False")
    return value


def _read_names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {value!r}: give a list of strings")
    names = tuple(value)
    if not all(isinstance(item, str) and item for item in names):
        raise ConfigError(f"{name} is {value!r}: give a list of strings")
    return names


def _read_headers(name: str, value: Any) -> tuple[str, ...]:
    names = tuple(item.lower().replace("_", "-") for item in _read_names(name, value))
    for item in names:
        if not targets.TOKEN.fullmatch(item):
            raise ConfigError(f"{name} holds {item!r}, which is no header's name")
    return names


def _read_paths(name: str, value: Any) -> tuple[str, ...]:
    names = _read_names(name, value)
    for item in names:
        if not item.startswith("/"):
            raise ConfigError(f"{name} holds {item!r}: a pattern begins with a slash, such as '/tasks/*'")
    return names


def _read_path(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _PATH.fullmatch(value):
        raise ConfigError(f"{name} is {value!r}: give a path such as '/-/tasks', without a slash at its end")
    return value


def _read_keys(name: str, value: Any) -> tuple[bytes, ...]:
    items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, bytes) else value
    if not isinstance(items, Iterable):
        raise ConfigError(f"{name} is no list: give the keys, newest first")
    keys = tuple(item.strip().encode() if isinstance(item, str) else item for item in items)
    for place, key in enumerate(keys, 1):
        # The key itself must not be shown.
        if not isinstance(key, bytes) or len(key) < MIN_KEY:
            raise ConfigError(
                f"{name}: key number {place} has under {MIN_KEY} bytes; make one with "
                '`python -c "import secrets; print(secrets.token_hex(32))"`'
            )
    return keys


def _read_folder(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ConfigError(f"{name} is {value!r}: give a path")
    return Path(value)


def _read_records(name: str, value: Any) -> str:
    if value in ("", "sqlite"):
        return str(value)
    if not isinstance(value, str) or not value.startswith(("postgresql://", "postgres://")):
        shown = value.partition(":")[0] + ":…" if isinstance(value, str) else repr(value)  # it may hold a password
        raise ConfigError(f"{name} is {shown}: give 'sqlite', a postgresql:// URL, or None for off")
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ConfigError(
            f"{name} is a postgresql:// URL, and its driver is missing ({error}): `pip install 'gearwsgi[postgres]'`"
        ) from error
    try:
        ports = str(conninfo_to_dict(value).get("port") or "0").split(",")
    except ProgrammingError as error:
        # Only up to the colon: what follows is a piece of the URL, and may be the password.
        said = str(error).partition(":")[0].strip()
        raise ConfigError(f"{name} is a URL that PostgreSQL can't read: {said}") from None
    if not all(port.isdecimal() for port in ports):
        raise ConfigError(f"{name} is a URL that PostgreSQL can't read: its port is no number")
    return value


def _read_key(name: str, value: Any) -> str:
    try:
        return limits.checked_key(value)
    except ValueError as error:
        raise ConfigError(f"{name} is {value!r}: {error}") from None


def _read_limits(name: str, value: Any) -> tuple[limits.Limit, ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{name} is {value!r}: give a dict such as {{"stripe:*": {{"concurrency": 1}}}}')
    found = []
    for pattern, given in value.items():
        if not isinstance(pattern, str) or not pattern or not isinstance(given, Mapping):
            raise ConfigError(f'{name}[{pattern!r}] is {given!r}: give a dict such as {{"rate": "100/minute"}}')
        try:
            found.append(limits.read_limit(pattern, given))
        except ValueError as error:
            raise ConfigError(f"{name}[{pattern!r}]: {error}") from None
    return tuple(found)


SERVERS = Kind(_read_servers, load=_load_servers)
"""Job servers: their addresses, and whether they are the embedded server's."""
TASKS = Kind(
    _read_tasks,
    dump=lambda tasks: {name: entry._asdict() for name, entry in tasks.items()},
    load=lambda tasks: {
        name: targets.Service(**{**entry, "succeeds": tuple(entry["succeeds"])}) for name, entry in tasks.items()
    },
)
QUEUE = Kind(_read_queue)
KEY = Kind(_read_key)
"""A key of limits."""
SWITCH = Kind(_read_switch)
NAMES = Kind(_read_names, load=tuple)
HEADERS = Kind(_read_headers, load=tuple)
"""Names of headers, in lower case."""
LIMITS = Kind(_read_limits, load=lambda found: tuple(limits.Limit(*each) for each in found))
"""Limits by key, in the order in which their patterns are tried."""
PATHS = Kind(_read_paths, load=tuple)
"""Patterns of paths."""
PATH = Kind(_read_path)
"""One path."""
KEYS = Kind(
    _read_keys, dump=lambda keys: [key.hex() for key in keys], load=lambda keys: tuple(map(bytes.fromhex, keys))
)
BASE_URL = Kind(_read_base_url, load=lambda parts: BaseURL(*parts))
SCHEDULE = Kind(read_schedule, dump=lambda entries: {})
"""The entries of the schedule. The supervisor gets them composed, from where the application is."""
FOLDER = Kind(_read_folder, dump=lambda path: str(path.absolute()), load=Path)
RECORDS = Kind(_read_records, may_be_off=True)
"""Where the records are: `sqlite`, a PostgreSQL URL, or empty: off."""

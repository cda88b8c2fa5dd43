"""The settings of a middleware, checked once: keyword, then environment, then default. Pure but for `environ`."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from .address import EMBEDDED, TLS, Address, parse_servers
from .errors import ConfigError
from .message import model, signature, targets
from .policy import Limits

MIN_KEY = 16
"""Bytes that a secret key has at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `GearmanMiddleware` was given. Times are in seconds.

    Attributes:
        servers: the job servers' addresses.
        embedded: whether the worker starts the embedded job server there.
        tasks: aliases of services.
        queue: the queue (Gearman function) of tasks that name none.
        max_attempts: how often a job is tried before it becomes a dead letter.
        backoff_min: the ceiling of the first retry's delay; it doubles from attempt to attempt.
        backoff_max: the ceiling that it stays under.
        job_timeout: how long a job may run.
        connect_timeout: how long to wait for a job server, to connect and to answer.
        on_unavailable: `outbox` keeps a task on disk when no job server answers, `raise` raises.
        secret_keys: keys that messages are signed with (the first) and verified with (all).
        max_age: how old a signature may be.
        accept_unsigned: queues that may carry unsigned messages although there are keys.
        inherit: headers (and `remote_user`) of the request that travel into its tasks.
        tasks_only: patterns of paths that only a replay may reach.
        plain_queues: queues whose tasks are sent as plain JSON calls.
        resolver: replaces the rule for dotted names.
        state_dir: where outbox, dead letters and the embedded server's queue are.
        max_body: bytes that a task's body may have.
        max_tasks_per_request: how many tasks one request may queue.
        dead_max_age: after how long dead letters are removed; None: never.
        dead_max_count: how many dead letters are kept, the newest; None: all.
        redact: further headers whose values never show in a log or a table.
    """

    servers: tuple[Address, ...]
    embedded: bool = False
    tasks: Mapping[str, targets.Service]
    queue: str = "job"
    max_attempts: int = 5
    backoff_min: float = 10.0
    backoff_max: float = 3600.0
    job_timeout: float = 600.0
    connect_timeout: float = 1.0
    on_unavailable: Literal["outbox", "raise"] = "outbox"
    secret_keys: tuple[bytes, ...] = field(default=(), repr=False)
    max_age: float = signature.DEFAULT_MAX_AGE
    accept_unsigned: tuple[str, ...] = ()
    inherit: tuple[str, ...] = ()
    tasks_only: tuple[str, ...] = ()
    plain_queues: tuple[str, ...] = ()
    resolver: targets.Resolver | None = None
    state_dir: Path = Path("var/gearwsgi")
    max_body: int = model.MAX_BODY
    max_tasks_per_request: int = 1000
    dead_max_age: float | None = None
    dead_max_count: int | None = None
    redact: tuple[str, ...] = ()

    def limits(self, task: model.Message) -> Limits:
        """Attempts and backoff of one task: its own, its service's, or the settings'."""
        entry = self.tasks.get(task.service)
        if entry is None:  # nearly always; this runs once for every task and every job
            low, high = task.backoff or (self.backoff_min, self.backoff_max)
            return Limits(self.max_attempts if task.max_attempts is None else task.max_attempts, low, high)
        low, high = task.backoff or (
            _first(entry and entry.backoff_min, self.backoff_min),
            _first(entry and entry.backoff_max, self.backoff_max),
        )
        attempts = _first(task.max_attempts, entry and entry.max_attempts, self.max_attempts)
        return Limits(int(attempts), low, high)

    def time_limit(self, task: model.Message) -> float:
        """Seconds that one attempt of this task may take."""
        if task.timeout is not None:
            return task.timeout
        entry = self.tasks.get(task.service)
        if entry is None:
            return self.job_timeout
        return _first(task.timeout, entry and entry.timeout, self.job_timeout)

    def may_be_unsigned(self, queue: str) -> bool:
        """Whether an unsigned message in this queue is run."""
        return not self.secret_keys or queue in self.accept_unsigned


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from keywords (None: not given) and the environment.

    Raises:
        ConfigError: a setting is unknown (the nearest one is named) or its value can't work.
    """
    for name in given:
        if name not in _READERS:
            raise ConfigError(
                f"unknown setting {name!r}{targets.nearest(name, _READERS)}; known: {', '.join(sorted(_READERS))}"
            )
    values: dict[str, Any] = {}
    for name, read in _READERS.items():
        value = given.get(name)
        if value is None:
            value = environ.get(_ENVIRONMENT[name]) or None if name in _ENVIRONMENT else None
        if value is not None:
            values[name] = read(name, value)
    values.setdefault("tasks", {})
    addresses, embedded = values.pop("servers", None) or parse_servers(EMBEDDED)
    settings = Settings(servers=addresses, embedded=embedded, **values)
    if settings.backoff_min > settings.backoff_max:
        raise ConfigError(f"backoff_min={settings.backoff_min:g} is over backoff_max={settings.backoff_max:g}")
    return settings


_ENVIRONMENT = {
    "servers": "GEARMAN_SERVERS",
    "secret_keys": "GEARWSGI_SECRET_KEYS",
    "state_dir": "GEARWSGI_STATE_DIR",
}


def _servers(name: str, value: Any) -> Any:
    return parse_servers(value)


def _tasks(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"tasks is {value!r}: give a dict of names and targets")
    return targets.read_tasks(value)


def _queue(name: str, value: Any) -> str:
    check_queue(value, ConfigError)
    return str(value)


def check_queue(queue: Any, error: type[Exception]) -> None:
    """Raise `error` unless `queue` can be a Gearman function's name."""
    if not isinstance(queue, str) or not queue or not queue.isprintable() or " " in queue or len(queue.encode()) > 200:
        raise error(f"queue {queue!r} can't be one: give up to 200 bytes without spaces and control characters")


def _number(low: float, kind: type = float) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= 10**9:
            raise ConfigError(f"{name} is {value!r}: give a number from {low:g} to a billion")
        if kind is int and value != int(value):
            raise ConfigError(f"{name} is {value!r}: give a whole number")
        return kind(value)

    return read


def _choice(*known: str) -> Callable[[str, Any], str]:
    def read(name: str, value: Any) -> str:
        if value not in known:
            raise ConfigError(f"{name} is {value!r}: give one of {', '.join(map(repr, known))}")
        return str(value)

    return read


def _names(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {value!r}: give a list of strings")
    names = tuple(value)
    if not all(isinstance(item, str) and item for item in names):
        raise ConfigError(f"{name} is {value!r}: give a list of strings")
    return names


def _header_names(name: str, value: Any) -> tuple[str, ...]:
    names = tuple(item.lower().replace("_", "-") for item in _names(name, value))
    for item in names:
        if not targets.TOKEN.fullmatch(item):
            raise ConfigError(f"{name} holds {item!r}, which is no header's name")
    return names


def _paths(name: str, value: Any) -> tuple[str, ...]:
    names = _names(name, value)
    for item in names:
        if not item.startswith("/"):
            raise ConfigError(f"{name} holds {item!r}: a pattern begins with a slash, such as '/tasks/*'")
    return names


def _keys(name: str, value: Any) -> tuple[bytes, ...]:
    items = value.split(",") if isinstance(value, str) else [value] if isinstance(value, bytes) else value
    if not isinstance(items, Iterable):
        raise ConfigError("secret_keys is no list: give the keys, newest first")
    keys = tuple(item.strip().encode() if isinstance(item, str) else item for item in items)
    for place, key in enumerate(keys, 1):
        # The key itself is never shown.
        if not isinstance(key, bytes) or len(key) < MIN_KEY:
            raise ConfigError(
                f"secret_keys: key number {place} has under {MIN_KEY} bytes; make one with "
                '`python -c "import secrets; print(secrets.token_hex(32))"`'
            )
    return keys


def _resolver(name: str, value: Any) -> Any:
    if not callable(value):
        raise ConfigError(f"resolver is {value!r}: give a callable from a service's name to a target")
    return value


def _folder(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ConfigError(f"{name} is {value!r}: give a path")
    return Path(value)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "servers": _servers,
    "tasks": _tasks,
    "queue": _queue,
    "max_attempts": _number(1, int),
    "backoff_min": _number(0),
    "backoff_max": _number(0),
    "job_timeout": _number(0.01),
    "connect_timeout": _number(0.01),
    "on_unavailable": _choice("outbox", "raise"),
    "secret_keys": _keys,
    "max_age": _number(1),
    "accept_unsigned": _names,
    "inherit": _header_names,
    "tasks_only": _paths,
    "plain_queues": _names,
    "resolver": _resolver,
    "state_dir": _folder,
    "max_body": _number(1, int),
    "max_tasks_per_request": _number(1, int),
    "dead_max_age": _number(1),
    "dead_max_count": _number(0, int),
    "redact": _header_names,
}


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings as JSON's types, for the supervisor, which imports no application code; without the resolver."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values.pop("resolver")
    values["state_dir"] = str(settings.state_dir.absolute())
    values["secret_keys"] = [key.hex() for key in settings.secret_keys]
    values["tasks"] = {name: entry._asdict() for name, entry in settings.tasks.items()}
    return values


def from_json(values: Mapping[str, Any]) -> Settings:
    """The settings that `to_json` wrote."""
    read = dict(values)
    read["servers"] = tuple(
        Address(host, port, None if tls is None else TLS(*tls)) for host, port, tls in values["servers"]
    )
    read["secret_keys"] = tuple(bytes.fromhex(key) for key in values["secret_keys"])
    read["tasks"] = {name: targets.Service(**entry) for name, entry in values["tasks"].items()}
    read["state_dir"] = Path(values["state_dir"])
    for name in ("accept_unsigned", "inherit", "tasks_only", "plain_queues", "redact"):
        read[name] = tuple(values[name])
    return Settings(**read)

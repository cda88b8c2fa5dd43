"""The settings of a middleware, each declared once, in `Settings`: keyword, then environment, then default.

A new one is a field of `Settings` and, as callers write it, a line of `Keywords`: the signature and the docstring of
`GearmanMiddleware`, the settings' page in the docs and their way to the supervisor as JSON follow from these.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from . import kinds, rules
from .address import EMBEDDED, Address
from .errors import ConfigError
from .message import model, signature, targets
from .message.limits import Limit, find_limit, split_queue, unmatched
from .policy import Limits
from .schedule.entries import Entry
from .webhooks import entries


class Setting(NamedTuple):
    """One setting, as it is declared.

    Attributes:
        kind: what its values are.
        default: as a caller would write it; None: there is none.
        help: what it is for; times are in seconds.
        variable: the environment variable that it is read from where no keyword is given.
    """

    kind: kinds.Kind
    default: Any
    help: str
    variable: str


def _setting(kind: kinds.Kind, default: Any, help: str, *, variable: str = "", is_secret: bool = False) -> Any:
    return field(metadata={"setting": Setting(kind, default, help, variable)}, repr=not is_secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `GearmanMiddleware` was given, read and checked.

    Attributes:
        embedded: whether `servers` is the embedded job server, which the worker starts.
        shows_status: whether status addresses are answered: `defer` or `status_path` is given.

    The others are what their declarations say.
    """

    servers: tuple[Address, ...] = _setting(
        kinds.SERVERS,
        EMBEDDED,
        "job servers, `host:port` with commas or a list; `embedded` for the one in this package.",
        variable="GEARMAN_SERVERS",
    )
    embedded: bool
    shows_status: bool = False
    tasks: Mapping[str, targets.Service] = _setting(
        kinds.TASKS,
        {},
        "aliases: names to targets, or to dicts with a `target` and `max_attempts`, `backoff_min`, `backoff_max`, "
        "`timeout`, `succeeds`, `limit` of their own.",
    )
    queue: str = _setting(kinds.QUEUE, "job", "the queue (Gearman function) of tasks that name none.")
    queues: tuple[str, ...] = _setting(
        kinds.NAMES,
        (),
        "the queues that a worker serves where `--queues` does not say; nothing: the one that `queue` names.",
    )
    max_attempts: int = _setting(kinds.number(1, int), 5, "how often a job is tried before it becomes a dead letter.")
    backoff_min: float = _setting(
        kinds.number(0), 10.0, "seconds; the ceiling of the first retry's delay, doubled from attempt to attempt."
    )
    backoff_max: float = _setting(kinds.number(0), 3600.0, "seconds; the ceiling that it stays under.")
    job_timeout: float = _setting(kinds.number(0.01), 600.0, "seconds that one attempt may take.")
    connect_timeout: float = _setting(kinds.number(0.01), 1.0, "seconds to wait for a job server.")
    on_unavailable: Literal["outbox", "raise"] = _setting(
        kinds.choice("outbox", "raise"),
        "outbox",
        "`outbox` keeps a task on disk while no job server answers; `raise` raises.",
    )
    secret_keys: tuple[bytes, ...] = _setting(
        kinds.KEYS,
        (),
        "signs messages with the first and accepts all; at least 16 bytes each.",
        variable="GEARWSGI_SECRET_KEYS",
        is_secret=True,
    )
    max_age: float = _setting(kinds.number(1), signature.DEFAULT_MAX_AGE, "seconds after which a signature is too old.")
    accept_unsigned: tuple[str, ...] = _setting(
        kinds.NAMES, (), "queues that may carry unsigned messages although there are keys."
    )
    inherit: tuple[str, ...] = _setting(
        kinds.HEADERS, (), "names of headers that travel from a request into its tasks, and `remote_user`."
    )
    identity: str | None = _setting(
        kinds.choice("user"),
        None,
        "`user`: tasks run as the user whose request queues them (Django, Flask-Login), who is loaded anew for each "
        "attempt. It needs `secret_keys` where the job server can be reached by others.",
    )
    authorize: Callable[[dict[str, Any], Any], Any] | None = _setting(
        kinds.function("a callable from environ and job to whether that job may run"),
        None,
        "a callable from environ and job, asked before every attempt of every task: where it answers False, the task "
        "is a dead letter; where it raises, the attempt has failed.",
    )
    tasks_only: tuple[str, ...] = _setting(
        kinds.PATHS, (), "patterns of paths (`/tasks/*`) that only a replay may reach; others get 404."
    )
    defer: tuple[rules.Rule, ...] = _setting(
        rules.DEFER,
        (),
        "routes of public requests that are queued instead of answered: `POST /reports/*`, or dicts with a `route` and "
        "`prefer`, `wait`, `queue`, `keep_result`, `max_waiting`, …",
    )
    status_path: str = _setting(
        kinds.PATH,
        "/-/tasks",
        "path of the tasks' status addresses, below the application's mount. They are answered where `defer` is used "
        "or this is given.",
    )
    defer_max_wait: float = _setting(
        kinds.number(0), 30.0, "seconds that a client's `Prefer: wait=N` may have it wait for a deferred response."
    )
    owner: rules.Owner | None = _setting(
        rules.OWNER,
        None,
        "a callable from an environ to who asks: to anybody else the status address of a deferred request is a 404.",
    )
    inbox: tuple[entries.Inbox, ...] = _setting(
        entries.INBOX,
        (),
        "webhooks that are verified at the door and on the job server or on disk before their sender is answered: "
        "dicts with a `route`, how to `verify` (`gearwsgi.webhooks`), and `id`, `queue`, `priority`, `max_attempts`, "
        "`timeout`.",
    )
    inbox_keep: float = _setting(
        kinds.number(1), 259200.0, "seconds in which a second delivery of the same id is dropped; it needs `records`."
    )
    limits: tuple[Limit, ...] = _setting(
        kinds.LIMITS,
        {},
        'how many tasks of a key (`task(…, limit="stripe:42")`) may run at once, and how many may start in a time: '
        "patterns of keys to dicts with `concurrency`, `rate` (`100/minute`) or both. The first that matches counts.",
    )
    plain_queues: tuple[str, ...] = _setting(kinds.NAMES, (), "queues whose tasks are sent as plain JSON calls.")
    resolver: targets.Resolver | None = _setting(
        kinds.function("a callable from a service's name to a target"),
        None,
        "a callable from a dotted name to a target, for applications with a front controller.",
    )
    json: model.Encoder | None = _setting(
        kinds.function("a class of json.JSONEncoder, or a callable from data to str or bytes"),
        None,
        "what writes a task's data as JSON: a class of `json.JSONEncoder`, or a callable such as `orjson.dumps`; else "
        "JSON's own types, dates and times, UUID, Decimal and dataclasses are known.",
    )
    base_url: kinds.BaseURL | None = _setting(
        kinds.BASE_URL,
        None,
        "the URL that the application has from outside, such as `https://shop.example.com/mount`, for what is queued "
        "without a request; with Django the first plain entry of `ALLOWED_HOSTS`, else `http://localhost`.",
        variable="GEARWSGI_BASE_URL",
    )
    login_urls: tuple[str, ...] = _setting(
        kinds.NAMES,
        ("*/login", "*/signin", "*/sign-in", "*/sign_in"),
        "patterns of paths or URLs of the login page: a replayed request that a 302 sends there has not done its work. "
        "Django's `LOGIN_URL` and Flask-Login's `login_view` are known without it.",
    )
    state_dir: Path = _setting(
        kinds.FOLDER,
        "var/gearwsgi",
        "folder of the outbox, the dead letters, the records and the embedded job server's queue.",
        variable="GEARWSGI_STATE_DIR",
    )
    max_body: int = _setting(kinds.number(1, int), model.MAX_BODY, "bytes that a task's body may have.")
    max_tasks_per_request: int = _setting(kinds.number(1, int), 1000, "how many tasks one request may queue.")
    dead_max_age: float | None = _setting(kinds.number(1), None, "seconds after which dead letters are removed.")
    dead_max_count: int | None = _setting(kinds.number(0, int), None, "how many dead letters are kept.")
    records: str = _setting(
        kinds.RECORDS,
        "sqlite",
        "where workers write what became of every task: `sqlite` (`records.sqlite3` in `state_dir`), a `postgresql://` "
        "URL (`gearwsgi[postgres]`), or nothing: nowhere.",
        variable="GEARWSGI_RECORDS",
        is_secret=True,
    )
    records_max_age: float = _setting(kinds.number(1), 604800.0, "seconds after which a finished task's record goes.")
    records_max_count: int = _setting(
        kinds.number(1, int), 100_000, "how many records are kept; the oldest finished go first."
    )
    keep_result: float = _setting(kinds.number(0), 0.0, "seconds that a task's response is kept; 0: it is not.")
    metrics: bool = _setting(
        kinds.SWITCH,
        False,
        "whether tasks that this process queues are counted for Prometheus, in the application's own registry "
        "(`gearwsgi[metrics]`). A worker's own metrics are its option `--metrics`.",
    )
    trace_parent: bool = _setting(
        kinds.SWITCH,
        False,
        "where the application has OpenTelemetry: whether a job's span is a child of the span that has sent it. Else "
        "it is the root of a trace of its own, and linked to it.",
    )
    schedule: Mapping[str, Entry] = _setting(
        kinds.SCHEDULE,
        {},
        "what runs by the clock: names to cron expressions, or to dicts with a `cron` and `service`, `timezone`, "
        "`missed`, `overlap` and what `task()` takes: see [Schedules](schedules.md).",
    )
    redact: tuple[str, ...] = _setting(kinds.HEADERS, (), "further headers whose values are never shown.")
    short_key: bool = _setting(
        kinds.SWITCH, True, 'whether `environ["gearman"]` is set beside `environ["gearwsgi.gearman"]`.'
    )

    def retry_limits(self, task: model.Message) -> Limits:
        """Attempts and backoff of one task: its own, its service's, or the settings'."""
        low, high = self.backoff_min, self.backoff_max
        entry = self.tasks.get(task.service)
        if entry is not None:
            low, high = _first(entry.backoff_min, low), _first(entry.backoff_max, high)
        return Limits(self.attempts_of(task), *(task.backoff or (low, high)))

    def attempts_of(self, task: model.Message) -> int:
        """How often one task is tried: as it says itself, or its service, or the settings."""
        if task.max_attempts is not None:
            return task.max_attempts
        entry = self.tasks.get(task.service)
        return self.max_attempts if entry is None or entry.max_attempts is None else entry.max_attempts

    def time_limit(self, task: model.Message) -> float:
        """Seconds that one attempt of this task may take."""
        if task.timeout is not None:
            return task.timeout
        entry = self.tasks.get(task.service)
        return self.job_timeout if entry is None else _first(entry.timeout, self.job_timeout)

    def succeeds(self, task: model.Message) -> tuple[int, ...]:
        """Statuses beside 2xx that mean that this task's work is done: its own, or its service's."""
        entry = self.tasks.get(task.service)
        return task.succeeds or (entry.succeeds if entry is not None else ())

    def keeps_result(self, task: model.Message) -> float:
        """Seconds that the response of this task is kept; 0: it is not."""
        if not self.records:
            return 0.0
        return self.keep_result if task.keep_result is None else task.keep_result

    @property
    def keeps_identities(self) -> bool:
        """Whether nobody else can write an identity into a message: there are keys, or only this machine's users can
        reach a job server.
        """
        return bool(self.secret_keys) or all(address.is_loopback for address in self.servers)

    def may_be_unsigned(self, queue: str) -> bool:
        """Whether an unsigned message in this queue is run."""
        return not self.secret_keys or split_queue(queue)[0] in self.accept_unsigned


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


class Keywords(TypedDict, total=False):
    """The settings as `GearmanMiddleware` takes them by keyword, beside `servers` and `tasks`.

    None is as if one were not given; of `records` it means off.
    """

    queue: str | None
    queues: Sequence[str] | None
    max_attempts: int | None
    backoff_min: float | None
    backoff_max: float | None
    job_timeout: float | None
    connect_timeout: float | None
    on_unavailable: Literal["outbox", "raise"] | None
    secret_keys: str | bytes | Sequence[str | bytes] | None
    max_age: float | None
    accept_unsigned: Sequence[str] | None
    inherit: Sequence[str] | None
    identity: Literal["user"] | None
    authorize: Callable[[dict[str, Any], Any], Any] | None
    tasks_only: Sequence[str] | None
    defer: Sequence[str | Mapping[str, Any]] | None
    status_path: str | None
    defer_max_wait: float | None
    owner: rules.Owner | None
    inbox: Sequence[Mapping[str, Any]] | None
    inbox_keep: float | None
    limits: Mapping[str, Mapping[str, Any]] | None
    plain_queues: Sequence[str] | None
    resolver: targets.Resolver | None
    json: model.Encoder | None
    base_url: str | None
    login_urls: Sequence[str] | None
    state_dir: str | Path | None
    max_body: int | None
    max_tasks_per_request: int | None
    dead_max_age: float | None
    dead_max_count: int | None
    records: str | None
    records_max_age: float | None
    records_max_count: int | None
    keep_result: float | None
    metrics: bool | None
    trace_parent: bool | None
    schedule: Mapping[str, Any] | None
    redact: Sequence[str] | None
    short_key: bool | None


SETTINGS: dict[str, Setting] = {
    declared.name: declared.metadata["setting"] for declared in fields(Settings) if "setting" in declared.metadata
}
"""Every setting by its name, in the order in which they are shown."""


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from keywords (None: not given) and the environment.

    Raises:
        ConfigError: a setting is unknown (the nearest one is named) or its value can't work.
    """
    for name in given:
        if name not in SETTINGS:
            raise ConfigError(
                f"unknown setting {name!r}{targets.nearest(name, SETTINGS)}; known: {', '.join(sorted(SETTINGS))}"
            )
    values: dict[str, Any] = {}
    for name, (kind, default, _, variable) in SETTINGS.items():
        value = given.get(name)
        if kind.may_be_off and value is None:
            value = "" if name in given else environ.get(variable)
        elif value is None and variable:
            value = environ.get(variable) or None
        if value is None:
            value = default
        values[name] = None if value is None else kind.read(name, value)
    for name in values["queues"]:
        kinds.check_queue(name, ConfigError)
    values["servers"], values["embedded"] = values["servers"]
    shows_status = bool(values["defer"]) or given.get("status_path") is not None
    settings = Settings(**values, shows_status=shows_status)
    if settings.backoff_min > settings.backoff_max:
        raise ConfigError(f"backoff_min={settings.backoff_min:g} is over backoff_max={settings.backoff_max:g}")
    if settings.identity and not settings.keeps_identities:
        raise ConfigError(
            "identity is set without secret_keys, and others can reach the job server: whoever does could run anything "
            "as anybody; set secret_keys"
        )
    check_limits(settings)
    return settings


def check_limits(settings: Settings) -> None:
    """Raise `ConfigError` where an alias or a rule names a key that no pattern of `limits` matches."""
    named = [(f"tasks[{name!r}]", entry.limit) for name, entry in settings.tasks.items()]
    named += [(f"defer[{place}]", rule.options.limit) for place, rule in enumerate(settings.defer)]
    for where, key in named:
        if key is not None and find_limit(settings.limits, key) is None:
            raise ConfigError(f"{where}['limit']: {unmatched(settings.limits, key)}")


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings as JSON's types, for the supervisor, which imports no application code; without callables."""
    values = {name: getattr(settings, name) for name in SETTINGS}
    dumped = {name: None if value is None else SETTINGS[name].kind.dump(value) for name, value in values.items()}
    return {**dumped, "embedded": settings.embedded}


def from_json(values: Mapping[str, Any]) -> Settings:
    """The settings that `to_json` wrote."""
    loaded: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        loaded[name] = None if values[name] is None else setting.kind.load(values[name])
    return Settings(**loaded, embedded=values["embedded"])

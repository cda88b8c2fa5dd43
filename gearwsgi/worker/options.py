"""The options of `gearwsgi worker`, each declared once: the command and its help follow from here."""

import json
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any

from ..settings import Settings


def _option(default: Any, help: str, **more: Any) -> Any:
    """A field that is an option of the command, with what click is to know of it."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True, slots=True)
class Options:
    """What `gearwsgi worker` was asked for. It travels to the fork server as JSON: an object of these fields.

    Attributes:
        app: `module:name`.
        workers: how many slots; with reserved queues at least their sum.
        queues: (queue, workers reserved for it or 0) in order; empty: the middleware's.
        timeout: overrides the middleware's `job_timeout` where it is given.
        graceful_timeout: seconds to finish jobs in at TERM.
        max_jobs: jobs after which a process is replaced; None: any number.
        max_rss: megabytes over which a process is replaced; None: any size.
        preload: whether the fork server loads the application, and not each worker; None: where it is safe.
        lookahead: whether jobs are held ahead while they are short.
        reload: whether a change of a Python file below the current folder is a HUP.
        burst: whether to end when the queues are empty.
        metrics: where the metrics are served, `host:port`; None: nowhere.
        log_level: `info`, or `warning`: no lines for jobs that go well.
    """

    app: str
    workers: int | None = _option(
        None, "Worker processes.  [default: number of cores]", flags=("-w", "--workers"), integers=(1, 1000)
    )
    queues: tuple[tuple[str, int], ...] = _option(
        (),
        "Queues (Gearman functions) with commas; mail:2 reserves two workers.  [default: the middleware's]",
        metavar="NAMES",
    )
    timeout: float | None = _option(
        None, "Seconds that a job may run; overrides job_timeout.", flags=("-t", "--timeout"), seconds=0.01
    )
    graceful_timeout: float = _option(30.0, "Seconds to finish jobs at TERM.", seconds=0, show_default=True)
    max_jobs: int | None = _option(None, "Replace a worker process after this many jobs.", integers=(1, None))
    max_rss: float | None = _option(
        None, "Replace a worker process that has grown over this.", metavar="MB", numbers=(1, None)
    )
    preload: bool | None = _option(
        None,
        "Load the application once, before the workers are forked, or in each.  [default: once, where that is safe]",
        flags=("--preload/--no-preload",),
    )
    lookahead: bool = _option(True, "Hold jobs ahead while they are short.", flags=("--lookahead/--no-lookahead",))
    reload: bool = _option(False, "Reload when a Python file changes (development).", is_flag=True)
    burst: bool = _option(False, "End when the queues are empty.", is_flag=True)
    log_level: str = _option(
        "info", "warning: no lines for jobs that go well.", choice=("info", "warning"), show_default=True
    )

    metrics: str | None = _option(
        None,
        "Serve /metrics, /livez and /readyz there (needs gearwsgi[metrics]); a port alone is on 127.0.0.1.",
        metavar="HOST:PORT",
    )

    @classmethod
    def from_json(cls, text: str) -> "Options":
        """The options that `to_json` has written."""
        values = json.loads(text)
        return cls(**{**values, "queues": tuple(map(tuple, values["queues"]))})

    def to_json(self) -> str:
        """For the fork server's command line."""
        return json.dumps(asdict(self))

    def reservations(self, settings: Settings, wanted: int) -> list[tuple[str, ...]]:
        """The queues of each slot: reserved ones first, then all for each slot that is left.

        Args:
            settings: the middleware's.
            wanted: how many slots there are to be; with reserved queues, more where these need them.
        """
        queues = self.queues or tuple((name, 0) for name in settings.queues or (settings.queue,))
        reserved = [(name,) for name, count in queues for _ in range(count)]
        shared = tuple(name for name, count in queues if not count) or tuple(name for name, _ in queues)
        free = max(0, wanted - len(reserved))
        if any(not count for _, count in queues):
            free = max(1, free)
        return [*reserved, *[shared] * free]

    @property
    def verbose(self) -> bool:
        """Whether jobs that go well are logged."""
        return self.log_level == "info"


def declared() -> list["Field[Any]"]:
    """The fields that are options of the command, in the order of its help."""
    return [each for each in fields(Options) if each.default is not MISSING]

"""What the command line of `gearwsgi worker` says."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """What the worker's command line says."""

    graceful_timeout: float = 30.0
    max_jobs: int | None = None
    max_rss: float | None = None
    lookahead: bool = True
    verbose: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """What `gearwsgi worker` was asked for.

    Attributes:
        app: `module:name`.
        workers: how many slots; with reserved queues at least their sum.
        queues: (queue, workers reserved for it or 0) in order; empty: the middleware's queue.
        timeout: overrides the middleware's `job_timeout` where it is given.
        preload: whether the fork server loads the application, and not each worker.
        burst: whether to end when the queues are empty.
        reload: whether a change of a Python file below the current folder is a HUP.
        options: what the slots need to know.
    """

    app: str
    workers: int = 1
    queues: Sequence[tuple[str, int]] = ()
    timeout: float | None = None
    preload: bool = True
    burst: bool = False
    reload: bool = False
    options: Options = field(default_factory=Options)

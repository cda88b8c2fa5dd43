"""Hooks: functions of the application that run in each worker process, at its start and at its end."""

import traceback
from collections.abc import Callable
from typing import TypeVar

from .. import log

_Hook = TypeVar("_Hook", bound=Callable[[], object])

_at_start: list[Callable[[], object]] = []
_at_exit: list[Callable[[], object]] = []


def on_worker_start(hook: _Hook) -> _Hook:
    """Have `hook()` run in each worker process, after its fork and before its first job; also as a decorator.

    The place for what each process makes for itself: connections, threads, event loops. What it sets in context
    variables, every job sees. A process whose hook raises takes no job: its traceback is in the log, and another
    process is tried after a while.

    Args:
        hook: called without arguments, in the order of registration.

    Returns:
        `hook`, as it is.
    """
    _at_start.append(hook)
    return hook


def on_worker_exit(hook: _Hook) -> _Hook:
    """Have `hook()` run in each worker process before its end; also as a decorator.

    That is at a stop, a reload, `--max-jobs` and `--max-rss`; not where a process is killed or dies. After the hooks
    the process's own exit functions run (`atexit`). All of them together have 5 seconds. One that raises is in the
    log, and the others run.

    Args:
        hook: called without arguments, the last one registered first.

    Returns:
        `hook`, as it is.
    """
    _at_exit.append(hook)
    return hook


def run_start_hooks() -> None:
    """Call the hooks; what one raises is raised here."""
    for hook in _at_start:
        hook()


def run_exit_hooks() -> None:
    """Call the hooks; what one raises is logged."""
    for hook in reversed(_at_exit):
        try:
            hook()
        except BaseException:  # even SystemExit: the other hooks are to run as well
            log.note_lines(traceback.format_exc())
            log.note(f"a hook of on_worker_exit failed: {hook!r}")

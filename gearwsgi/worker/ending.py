"""The end of a worker process: what the application wants run then, within a time limit, and nothing else.

The interpreter's own end would wait for threads that jobs have left behind.
"""

import atexit
import logging
import os
import sys
import traceback
import weakref
from _thread import get_ident, start_new_thread  # before the application is loaded: gevent has others
from time import sleep
from typing import Any, NoReturn

from .. import log
from ..app.hooks import run_exit_hooks

LIMIT = 5.0
"""Seconds for the hooks of `on_worker_exit` and the exit functions together."""


def forget_exit_functions() -> None:
    """In the fork server, before it loads the application: what is registered up to now is not for its processes."""
    atexit._clear()
    atexit.register(logging.shutdown)
    atexit.register(getattr(weakref.finalize, "_exitfunc", _nothing))


def _nothing() -> None:
    """Where Python has another way to run finalizers at its end."""


def leave_to_others() -> None:
    """After the fork: what was made before, for all processes, is not to be cleaned up at the end of this one.

    Exit functions that the application has registered stay: those of tools that send what they have gathered are.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False  # removes a temporary folder, say
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes._children.clear()  # ends them, such as a Manager's


def end(status: int) -> NoReturn:
    """Run the hooks and the exit functions, then end with this exit code, at the latest when `LIMIT` is over."""
    try:
        start_new_thread(_watch, (get_ident(), status))
        run_exit_hooks()
        atexit._run_exitfuncs()  # which end with logging.shutdown()
    except BaseException:
        log.note_lines(traceback.format_exc())
        log.note("the exit functions of a worker process failed")
    finally:
        os._exit(status)


def _watch(thread: int, status: int) -> None:
    """In a thread, not by a signal: C code may wait for something, which no handler would interrupt."""
    sleep(LIMIT)
    frame = sys._current_frames().get(thread)
    log.note_lines("".join(traceback.format_stack(frame)))
    log.note(f"the exit functions of a worker process did not end within {LIMIT:g} s")
    os._exit(status)

"""The end of a worker process: what the application wants to have run then, within a time limit, and nothing else.

The interpreter's own way to end would wait for threads that jobs have left behind.
"""

import atexit
import logging
import os
import sys
import traceback
import weakref
from _thread import get_ident, start_new_thread  # before the application is loaded: gevent puts others in their place
from time import sleep
from typing import Any, NoReturn

from .. import log
from ..app.hooks import run_exit_hooks

LIMIT = 5.0
"""Seconds for the hooks of `on_worker_exit` and the exit functions together."""


def forget_exit_functions() -> None:
    """Drop the exit functions registered so far: called in the fork server, before it loads the application.

    They are the fork server's, and not for its worker processes.
    """
    atexit._clear()
    atexit.register(logging.shutdown)
    atexit.register(getattr(weakref.finalize, "_exitfunc", _nothing))


def _nothing() -> None:
    """Stands in for the function that would run finalizers at the interpreter's end."""


def leave_to_others() -> None:
    """After the fork: have this process, at its end, not clean up what was made before it, for all processes.

    Exit functions that the application has registered stay: those of tools that send what they have gathered are.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False  # such a finalizer may remove a temporary folder
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes._children.clear()  # else multiprocessing ends its children here, such as a Manager's


def end(status: int) -> NoReturn:
    """Run the hooks and the exit functions, then end with this exit code, at the latest when `LIMIT` is over."""
    try:
        start_new_thread(_watch, (get_ident(), status))
        run_exit_hooks()
        atexit._run_exitfuncs()  # logging.shutdown() among them, the last one
    except BaseException:
        log.note_lines(traceback.format_exc())
        log.note("the exit functions of a worker process failed")
    finally:
        os._exit(status)


def _watch(thread: int, status: int) -> None:
    """End the process when `LIMIT` is over. A thread, not a signal: a handler would not interrupt C code that waits."""
    sleep(LIMIT)
    frame = sys._current_frames().get(thread)
    log.note_lines("".join(traceback.format_stack(frame)))
    log.note(f"the exit functions of a worker process did not end within {LIMIT:g} s")
    os._exit(status)

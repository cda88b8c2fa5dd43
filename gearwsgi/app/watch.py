"""Watches an application's code for changes."""

import threading
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, StartError


def watch_code(on_change: Callable[[], None]) -> None:
    """Call `on_change` when a Python file below the current folder changes, from a thread of its own.

    Raises:
        ConfigError: the package watchfiles is not installed.
        StartError: the system has no thread to give.
    """
    try:
        import watchfiles
    except ImportError as error:
        raise ConfigError("--reload needs watchfiles: pip install watchfiles") from error

    def watch() -> None:
        for _ in watchfiles.watch(Path.cwd(), watch_filter=watchfiles.PythonFilter()):
            on_change()

    try:
        threading.Thread(target=watch, daemon=True, name="gearwsgi reload").start()
    except RuntimeError as error:
        raise StartError(f"--reload has no thread to watch the code in: {error}") from error

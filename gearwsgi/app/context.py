"""The context (`contextvars`) that jobs run in.

Each job runs in a copy of the context that its process had when it was ready. So nothing that a job sets is seen by the
next, and what was there before (set at import, or by `on_worker_start`) is seen by all.
"""

import contextvars
import sys
from typing import Any

from .. import log


def ready_context(base: contextvars.Context | None = None) -> contextvars.Context:
    """The context that jobs get copies of, with the connections that frameworks keep in theirs.

    Django makes a cache's backend, and with it its connections, where it is first used in a context. Made here, it is
    the same one for all jobs of the process.

    Args:
        base: what to begin with; None: the caller's own context.
    """
    context = contextvars.copy_context() if base is None else base
    context.run(_make_caches)
    return context


def _make_caches() -> None:
    module: Any = sys.modules.get("django.core.cache")
    if module is None or not sys.modules["django.conf"].settings.configured:
        return
    for alias in module.caches:
        try:
            module.caches[alias]
        except Exception as error:  # such as a backend that isn't installed: those who use it will learn of that
            log.note(f"Django's cache {alias!r} can't be made: {type(error).__name__}: {error}")

"""How a command that serves waits until it is asked to end."""

import os
import signal
from collections.abc import Callable

_ENDS = frozenset({signal.SIGINT, signal.SIGTERM})


def asked_to_end() -> Callable[[], None]:
    """Have SIGINT and SIGTERM interrupt nothing from now on; returns a function that waits for one of them.

    A KeyboardInterrupt could be raised anywhere in the main thread: in a finalizer it is dropped; between taking a lock
    and the block that releases it, it leaves the lock taken. And `threading.Event.set()`, called in a handler, waits
    forever if it has interrupted that Event's own `wait()`.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    for number in _ENDS:
        signal.signal(number, lambda number, stack: None)

    def wait() -> None:
        while os.read(reads, 1)[0] not in _ENDS:
            pass  # a signal that the application listens to

    return wait

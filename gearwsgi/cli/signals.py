"""How a command that serves is asked to end."""

import os
import signal
from collections.abc import Callable

_ENDS = frozenset({signal.SIGINT, signal.SIGTERM})


def asked_to_end() -> Callable[[], None]:
    """From now on SIGINT and SIGTERM interrupt nothing. The answer is a function that waits for one of them.

    A KeyboardInterrupt is raised wherever the main thread happens to be: in a finalizer it is dropped, between a lock's
    acquisition and the block that releases it the lock stays taken. `threading.Event.set()` in a handler waits for
    ever where it interrupts that Event's own `wait()`.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    for number in _ENDS:
        signal.signal(number, lambda number, stack: None)

    def wait() -> None:
        while os.read(reads, 1)[0] not in _ENDS:
            pass  # one that the application listens to

    return wait

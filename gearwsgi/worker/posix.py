"""Calls of the operating system: a process's memory, sessions, signals, and ending together with the parent process."""

import ctypes
import gc
import os
import random
import signal
import sys
from types import FrameType

# Loaded before the fork, or else each worker would have a copy of its own.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _resident(process: int | str) -> float | None:
    """Resident memory of a process in megabytes; None where the system doesn't say."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return None


def resident(pid: int) -> str:
    """A process's resident memory for people, such as `23 MB`; empty where the system doesn't say."""
    megabytes = _resident(pid)
    return "" if megabytes is None else f"{megabytes:.0f} MB"


def resident_megabytes() -> float:
    """Memory of this process: resident on Linux, its peak elsewhere."""
    megabytes = _resident("self")
    if megabytes is None:
        import resource

        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return megabytes


def prepare_process() -> None:
    """After the fork: give the process a session and randomness of its own, and leave signals to the supervisor."""

    def nothing(signum: int, stack: FrameType | None) -> None:
        """A handler and not SIG_IGN, which what the application starts would inherit."""

    # A session of its own: so os.kill(0, …) in a handler reaches what its job has started, and not the supervisor. A
    # group of its own would not do: some terminals (stty tostop) stop a group in the background when it prints.
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, nothing)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    gc.enable()


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """On Linux: have this process get a signal when its parent has ended; elsewhere it must notice that in another way.

    Args:
        parent: the parent's pid; where that has ended already, this process ends here.
        number: the signal.
    """
    if _libc is not None:
        pr_set_pdeathsig = 1  # linux/prctl.h
        _libc.prctl(pr_set_pdeathsig, number)
    if os.getppid() != parent:
        os._exit(0)

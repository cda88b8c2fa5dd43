"""What only the system knows or does: memory of a process, signals, the end with one's parent."""

import ctypes
import gc
import os
import random
import signal
import sys
from types import FrameType


def resident(pid: int) -> str:
    """A process's resident memory for people, such as `23 MB`; empty where the system doesn't say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return ""
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f} MB"


# Loaded before the fork: each worker would have a copy of its own.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def resident_megabytes() -> float:
    """Memory of this process: resident on Linux, its peak elsewhere."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def prepare_process() -> None:
    """After the fork: signals are the supervisor's business, and randomness is this process's own."""

    def nothing(signum: int, stack: FrameType | None) -> None:
        """A handler and not SIG_IGN, which what the application starts would inherit."""

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, nothing)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    gc.enable()


def die_with_parent() -> None:
    """On Linux: be killed when the fork server is, whatever code runs; elsewhere the fork server's end does it."""
    if _libc is not None:
        pr_set_pdeathsig = 1  # linux/prctl.h
        _libc.prctl(pr_set_pdeathsig, signal.SIGKILL)

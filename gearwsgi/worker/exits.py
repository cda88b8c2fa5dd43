"""Why a worker process ended: as one word for counting, and as a sentence for the log and the dead letter."""

import signal
import time

from .held import Held

EXITS = ("recycled", "stopped", "timeout", "killed", "exited", "failed")
"""Why a process ended, as one word: --max-jobs or --max-rss; a reload or a stop; killed after a job's time limit; a
signal; by itself; before it was ready."""


class Exit:
    """Why a process ends, from what was noticed of it until then and its exit status.

    Attributes:
        kind: one of `EXITS`.
        trouble: what it was found doing wrong, or could not do; empty: nothing.
        timed_out: whether it was killed because its job did not end at its time limit.
    """

    def __init__(self) -> None:
        self.kind = "stopped"
        self.trouble = ""
        self.timed_out = False

    def judge(self, status: int | None, *, came_up: bool) -> None:
        """Decide on the word, now that the process is gone.

        Args:
            status: its exit status: negative for a signal, None where it is not known.
            came_up: whether the process has ever been ready.
        """
        if self.timed_out:
            self.kind = "timeout"
        elif not came_up:
            self.kind = "failed"
        elif status == 0 and not self.trouble:
            self.kind = "recycled"
        else:
            self.kind = "killed" if status is not None and status < 0 else "exited"

    def describe(self, status: int | None, running: Held | None) -> str:
        """A sentence on how the process ended, with the job that ran, if one did."""
        took = f" after {time.monotonic() - running.started:.1f} s" if running is not None and running.started else ""
        if self.timed_out and running is not None and running.cancelled is not None:
            return f"was killed by SIGKILL{took}: it did not end when its task was cancelled"
        if self.timed_out and running is not None:
            return f"timed out{took} and was killed by SIGKILL: it did not end at its time limit"
        if self.trouble:
            return f"{self.trouble}{took}"
        if status is None:
            return f"ended{took}, nobody knows how"
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            guess = " (out of memory?)" if name == "SIGKILL" else ""
            return f"killed by {name}{guess}{took}"
        return f"exited with code {status}{took}"

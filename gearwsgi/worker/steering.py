"""What supervisors are asked to do, as far as this one knows: which queues are paused, and which tasks are cancelled.

The records' thread reads it several times in two seconds. While the records are away, what was read last holds, and a
pause that was for a time ends all the same.
"""

import time
from collections.abc import Sequence

from .. import log
from ..message.limits import Limit, load_change
from ..state.records.steering import CANCEL, LIMIT, PAUSE, Request
from .held import Held
from .recorder import FIRST_LOOK, Recorder


class Steering:
    """The requests to supervisors as of the last look: what is paused, what is cancelled.

    Args:
        recorder: what reads the records.

    Attributes:
        knows: whether the requests were read once, or can't be had. Before that, no job is taken.
        paused: the queues that are paused, of which no jobs are taken.
        is_set: whether there is any request.
        limits: the limits that were changed at run time, by their patterns; the dict is replaced and never changed.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._wait_until = time.monotonic() + FIRST_LOOK
        self._seen: Sequence[Request] | None = None
        self._cancelled: dict[str, Request] = {}
        self.knows = False
        self.paused: frozenset[bytes] = frozenset()
        self.is_set = False
        self.limits: dict[str, Limit] = {}
        self.look(time.monotonic())

    def look(self, now: float) -> bool:
        """Look for new requests; whether they differ from those at the last look."""
        requests = self._recorder.requests()
        knew, paused_before, cancelled_before = self.knows, self.paused, self._cancelled
        self.knows = knew or requests is not None or now > self._wait_until
        if requests is None:
            return self.knows is not knew
        if requests is not self._seen:
            self._seen = requests
            self._cancelled = {each.name: each for each in requests if each.kind == CANCEL}
            limits = {each.name: load_change(each.name, each.about)[0] for each in requests if each.kind == LIMIT}
            if limits != self.limits:
                self.limits = limits
        if requests or self.paused:
            pauses = {_name(each): each.about for each in requests if each.kind == PAUSE and each.holds(now)}
            self.paused = frozenset(pauses)
            for queue in self.paused - paused_before:
                log.note(f"queue {_text(queue)} is paused{f' by {pauses[queue]}' if pauses[queue] else ''}")
            for queue in paused_before - self.paused:
                log.note(f"queue {_text(queue)} is resumed")
        self.is_set = bool(self.paused or self._cancelled)
        is_same = self.paused == paused_before and self._cancelled.keys() == cancelled_before.keys()
        return not is_same or self.knows is not knew

    def cancels(self, held: Held) -> str | None:
        """Who has cancelled a job's task ("": not known), and note that this request was fulfilled; None: nobody."""
        request = self._cancelled.get(held.task_id()) if self._cancelled else None
        if request is None:
            return None
        self._recorder.withdraw(request)
        return request.about

    def pauses(self, held: Held) -> bool:
        """Whether a job's queue is paused."""
        queue = held.job.queue
        return queue in self.paused or queue.partition(b"#")[0] in self.paused

    def stops(self, held: Held) -> bool:
        """Whether a job must not be started."""
        return self.pauses(held) or held.task_id() in self._cancelled


def _name(request: Request) -> bytes:
    return request.name.encode("utf-8", "surrogateescape")


def _text(queue: bytes) -> str:
    return queue.decode("utf-8", "surrogateescape")

"""The outbox: tasks on disk that no job server has taken yet, and the relay that submits them."""

import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from ..errors import GearwsgiError, ServerError, ServerUnavailable, SpoolError
from ..message import model, signature
from ..settings import Settings
from ..wire.payload import Submission
from .spool import Letter, Spool

_log = logging.getLogger("gearwsgi")

_OUR_ID = re.compile(r"[0-9a-f]{32}")
_REFUSED_AGAIN = 5.0
"""Seconds until a submission that the job server refused is tried again."""


class Outbox:
    """The submissions in `state_dir/outbox`, oldest first."""

    def __init__(self, settings: Settings) -> None:
        self.spool = Spool(settings.state_dir / "outbox", "outbox")
        self._settings = settings
        self._not_before: dict[str, float] = {}

    def put(self, submission: Submission) -> str:
        """Keep it on disk, durably; its name.

        Raises:
            SpoolError: it can't be kept.
        """
        fields = {
            "id": submission.id,
            "queue": submission.queue,
            "unique": submission.unique,
            "priority": submission.priority,
            "at": f"{submission.at:.3f}",
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        known = _OUR_ID.fullmatch(submission.id) is not None
        name = f"{time.time_ns():020d}-{submission.id if known else secrets.token_hex(16)}"
        return self.spool.put(Letter(submission.payload, fields), name)

    def holds(self, task_id: str) -> bool:
        """Whether the task with this id waits here."""
        return any(name.endswith(f"-{task_id}") for name in self.spool.names())

    def get(self, name: str) -> Submission:
        """The submission of that name, with a fresh signature where there are keys.

        Raises:
            SpoolError: there is none, or it can't be used.
        """
        letter = self.spool.get(name)
        fields = letter.fields
        try:
            queue, at, priority = fields["queue"], float(fields["at"]), fields["priority"]
            if priority not in model.PRIORITIES or not queue or not letter.message or not math.isfinite(at):
                raise ValueError("a field of its head has a wrong value")
            # Only what one of our keys signed is signed anew: `dead retry` may have put here what a stranger sent.
            payload = letter.message
            if keys := self._settings.secret_keys:
                payload = signature.renew(payload, queue, keys, max(time.time(), at))
            return Submission(queue, fields["unique"], payload, priority, at, fields["id"])
        except (KeyError, ValueError) as error:
            raise SpoolError(f"{self.spool.folder / name}.http can't be used: {error}") from error

    def relay(self, submit: Callable[[Submission], str]) -> int:
        """Submit all, in order, each removed when its JOB_CREATED has come; how many went.

        A file that can't be used is set aside and what the job server refuses stays, so that neither blocks others.

        Raises:
            ServerUnavailable: no job server takes any; what is left waits.
        """
        sent = 0
        if not self.spool.names():
            return 0
        with self.spool.lock() as is_ours:
            for name in self.spool.names() if is_ours else ():
                if self._not_before.get(name, 0.0) > time.time():
                    continue
                try:
                    submission = self.get(name)
                except SpoolError as error:
                    if self.spool.modified(name):
                        _log.error("outbox: set aside as %s: %s", self.spool.set_aside(name, str(error)), error)
                    continue
                sent += self._relay_one(name, submission, submit)
        return sent

    def _relay_one(self, name: str, submission: Submission, submit: Callable[[Submission], str]) -> int:
        try:
            handle = submit(submission)
        except ServerUnavailable:
            raise
        except ServerError as error:
            if error.code == "ARGUMENT_TOO_LARGE":
                _log.error("outbox: set aside as %s: %s", self.spool.set_aside(name, str(error)), error)
                return 0
            # A job server without delays refuses the submission until it is due; then it goes as any other.
            again = submission.at if submission.at > time.time() else time.time() + _REFUSED_AGAIN
            self._not_before[name] = again
            _log.warning("outbox: id %s stays, %s; next try in %.0f s", submission.id, error, again - time.time())
            return 0
        self._not_before.pop(name, None)
        self.spool.remove(name)
        _log.info("outbox: id %s queued as %s", submission.id, handle)
        return 1


class Relay:
    """A thread that empties the outbox as soon as a job server answers: one at a time on a machine, by a lock.

    Args:
        outbox: the outbox.
        submit: submits one and answers its handle, or raises `ServerUnavailable`.
        forever: whether it goes on when the outbox is empty, as in a supervisor.
    """

    INTERVAL = 1.0

    def __init__(self, outbox: Outbox, submit: Callable[[Submission], str], *, forever: bool) -> None:
        self._outbox = outbox
        self._submit = submit
        self._forever = forever
        self._stop = threading.Event()
        self.has_passed = False
        """Whether it has been through the outbox once: what is left then waits for a job server, or for its time."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start it unless it runs."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi relay")
                self._thread.start()

    def stop(self) -> None:
        """Let it end, and wait until it has."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        trouble = ""
        while not self._stop.is_set():
            try:
                self._outbox.relay(self._submit)
                trouble = ""
                with self._starting:
                    if not self._forever and not self._outbox.spool.names():
                        self._thread = None
                        return
            except GearwsgiError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    _log.warning("outbox: %d task(s) wait: %s", len(self._outbox.spool.names()), error)
            self.has_passed = True
            self._stop.wait(self.INTERVAL)

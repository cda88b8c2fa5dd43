"""The outbox: tasks on disk that no job server has taken yet, and the relay that submits them."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..errors import GearwsgiError, ServerError, ServerUnavailable, SpoolError
from ..kinds import check_queue
from ..message import model, signature
from ..policy import MAX_DELAY
from ..settings import Settings
from ..wire.payload import Submission, is_task_id
from .spool import BadLetter, Letter, Spool

_log = logging.getLogger("gearwsgi")

_PAUSE = 5.0
"""Seconds until a task that could not be submitted is tried again; doubled each time."""
_PAUSE_MAX = 60.0
_HEAD = 2 * (model.MAX_HEAD + model.MAX_OWN)
"""Bytes that a file may have beside the body: the message's head, and our own lines about it."""


@dataclass(slots=True)
class _PassedOver:
    """A task that was tried and is put off, so that others are submitted before it.

    Attributes:
        until: Unix time when it is tried again.
        tries: how often it was tried.
        sent_to: the job server that was sent it whole and did not answer; empty: none.
    """

    until: float = 0.0
    tries: int = 0
    sent_to: str = ""


class Outbox:
    """The tasks in `state_dir/outbox`, as they are to be submitted, oldest first."""

    def __init__(self, settings: Settings) -> None:
        self.spool = Spool(settings.state_dir / "outbox", "outbox")
        self._settings = settings
        self._passed_over: dict[str, _PassedOver] = {}

    def put(self, submission: Submission) -> str:
        """Keep a submission on disk, durably; the name of its file.

        Raises:
            SpoolError: it can't be kept.
        """
        fields = {
            "id": submission.id,
            "queue": submission.queue,
            "unique": submission.unique,
            "priority": submission.priority,
            "at": f"{submission.at:.3f}",
            "sent-to": submission.sent_to,
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        own = submission.id if is_task_id(submission.id) else secrets.token_hex(16)
        name = f"{time.time_ns():020d}-{own}"
        return self.spool.put(Letter(submission.payload, fields), name)

    def holds(self, task_id: str) -> bool:
        """Whether the task with this id waits in the outbox."""
        return any(name.endswith(f"-{task_id}") for name in self.spool.names())

    def get(self, name: str) -> Submission:
        """The submission in the file of that name, signed anew where there are keys.

        Raises:
            BadLetter: it can't be used.
            SpoolError: there is none, or it can't be read just now.
        """
        letter = self.spool.get(name, limit=self._settings.max_body + _HEAD)
        try:
            return self._read(letter)
        except (KeyError, ValueError) as error:
            raise BadLetter(f"{self.spool.path(name)} can't be used: {error}") from error

    def _read(self, letter: Letter) -> Submission:
        fields, now = letter.fields, time.time()
        queue, unique, at, priority = fields["queue"], fields["unique"], float(fields["at"]), fields["priority"]
        check_queue(queue, ValueError)
        if not (unique and unique.isprintable() and len(unique.encode()) <= model.MAX_UNIQUE):
            raise ValueError(f"unique {unique[:80]!r} can't be one")
        if priority not in model.PRIORITIES or not letter.message or not 0 <= at <= now + 2 * MAX_DELAY:
            raise ValueError("a field of its head has a wrong value")
        # Only what one of our keys has signed is signed anew: `dead retry` may have put a stranger's message here.
        payload = letter.message
        if keys := self._settings.secret_keys:
            payload = signature.renew(payload, queue, keys, max(now, at))
        return Submission(queue, unique, payload, priority, at, fields["id"], fields.get("sent-to", ""))

    def relay(self, submit: Callable[[Submission], str]) -> int:
        """Submit all, in order; each is removed once its JOB_CREATED has come. How many were submitted.

        One that can't be submitted blocks no other: a file that can't be used is set aside; what the job server refuses
        or doesn't answer in time, and what can't be read just now, is tried again after a pause that grows.

        Args:
            submit: submits one, and answers its handle, or "" where the job server had it already.

        Raises:
            ServerUnavailable: no job server takes any; what is left waits.
            SpoolError: the outbox can't be used just now.
        """
        if not self.spool.names():
            return 0
        with self.spool.lock() as is_ours:
            names = self.spool.names() if is_ours else []
            self._passed_over = {name: self._passed_over[name] for name in names if name in self._passed_over}
            return sum(self._relay_one(name, submit) for name in names)

    def _relay_one(self, name: str, submit: Callable[[Submission], str]) -> int:
        passed = self._passed_over.get(name, _PassedOver())
        if passed.until > time.time():
            return 0
        try:
            submission = self.get(name)
            submission = replace(submission, tries=passed.tries, sent_to=passed.sent_to or submission.sent_to)
            handle = submit(submission)
        except BadLetter as error:
            _log.error("outbox: set aside as %s: %s", self.spool.set_aside(name, str(error)), error)
            return 0
        except SpoolError as error:
            if self.spool.modified(name):  # if not, another relay has submitted it
                self._pass_over(name, name, error)
            return 0
        except ServerUnavailable as error:
            if not error.sent_to:
                raise
            self._pass_over(name, f"id {submission.id}", error, sent_to=error.sent_to)
            return 0
        except ServerError as error:
            if error.code == "ARGUMENT_TOO_LARGE":
                _log.error("outbox: set aside as %s: %s", self.spool.set_aside(name, str(error)), error)
            else:
                # A job server without delayed jobs refuses it until it is due; then it is submitted as any other.
                self._pass_over(name, f"id {submission.id}", error, due=submission.at)
            return 0
        self._passed_over.pop(name, None)
        self.spool.remove(name)
        if handle:
            _log.info("outbox: id %s queued as %s", submission.id, handle)
        else:
            _log.info("outbox: id %s was queued already, on %s", submission.id, submission.sent_to)
        return 1

    def _pass_over(self, name: str, what: str, error: GearwsgiError, *, due: float = 0.0, sent_to: str = "") -> None:
        now = time.time()
        passed = self._passed_over.setdefault(name, _PassedOver())
        passed.until = due if due > now else now + min(_PAUSE_MAX, _PAUSE * 2 ** min(passed.tries, 10))
        passed.tries += 1
        passed.sent_to = sent_to or passed.sent_to
        _log.warning("outbox: %s stays, %s; next try in %.0f s", what, error, passed.until - now)


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
        """Whether it has gone through the outbox once: what is left then waits for a job server, or for its time."""
        self._thread: threading.Thread | None = None
        self._has_no_thread = False
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it runs. If the system has no thread to give now, the next call tries again."""
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                thread = threading.Thread(target=self._run, daemon=True, name="gearwsgi relay")
                try:
                    thread.start()
                except RuntimeError as error:
                    if not self._has_no_thread:
                        _log.warning("outbox: what is in it waits: %s", error)
                    self._has_no_thread = True
                else:
                    self._thread, self._has_no_thread = thread, False

    def stop(self) -> None:
        """Have the thread end, and wait until it has."""
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
            except Exception as error:
                # No such error is known. The next round may go well, and nobody would start the thread again.
                if repr(error) != trouble:
                    trouble = repr(error)
                    unexpected = not isinstance(error, GearwsgiError)
                    _log.warning("outbox: what is in it waits: %s", error, exc_info=unexpected)
            self.has_passed = True
            self._stop.wait(self.INTERVAL)

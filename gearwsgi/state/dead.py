"""Dead letters: tasks that are not tried again by themselves. A person reads them, retries them or throws them away."""

import logging
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ..errors import BadMessage, SpoolError
from ..message import model, reading
from ..policy import Outcome
from ..settings import Settings
from ..wire.payload import Grabbed, Submission, make_unique, seal
from .spool import Letter, Spool

_log = logging.getLogger("gearwsgi")
_OUR_ID = re.compile(r"[0-9a-f]{32}")
_REASON = 1000
"""Characters of a reason that are kept: an exception's text may hold a whole request."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Attributes:
        id: the task's id; the file's name where the payload has none.
        name: the file's name without `.http`.
        service: what the caller called, `-` where that could not be read.
        queue: the Gearman function that it came through.
        target: method and path, `-` where they could not be read.
        at: when it died, ISO 8601 in UTC.
        attempts: how often it was tried.
        reason: why it died.
        notes: the failed attempts and the last response, for a reader.
        payload: the message's bytes.
        trusted: whether it was verified, or there was nothing to verify.
    """

    id: str
    name: str
    service: str
    queue: str
    target: str
    at: str
    attempts: int
    reason: str
    notes: tuple[str, ...]
    payload: bytes
    trusted: bool


class DeadLetters:
    """The dead letters in `state_dir/dead`."""

    def __init__(self, settings: Settings) -> None:
        self.spool = Spool(settings.state_dir / "dead", "dead letter")
        self._settings = settings

    def bury(self, job: Grabbed, task: model.Message | None, reason: str, outcome: Outcome) -> str:
        """Keep a job that is not tried again, durably; its id.

        Args:
            job: as it was grabbed.
            task: its message; None where the payload holds none that may run.
            reason: why.
            outcome: of its last attempt.

        Raises:
            SpoolError: it can't be kept.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # A file's name never comes from a payload that nobody vouched for.
        ours = task is not None and _OUR_ID.fullmatch(task.id) is not None
        name = task.id if task is not None and ours else secrets.token_hex(16)
        if self._is_of_another_queue(name, job.queue_name):
            name = secrets.token_hex(16)
        fields = {
            "id": task.id if task is not None else name,
            "service": task.service if task is not None else "-",
            "target": task.target if task is not None else "-",
            "queue": job.queue_name,
            "handle": job.handle_name,
            "died": now,
            "attempts": str(task.attempt if task is not None else 0),
            "reason": model.one_line(reason, _REASON),
            "trusted": "yes" if task is not None else "no",
        }
        notes = [*(task.failures if task is not None else ())]
        if outcome.response:
            notes += ["last response:", *outcome.response.decode("utf-8", "replace").splitlines()]
        self.spool.put(Letter(self._content(job, task), fields, notes), name)
        self._expire()
        return fields["id"]

    def _is_of_another_queue(self, name: str, queue: str) -> bool:
        """Whether a letter of that name came through another queue: whoever may feed this one can't overwrite it."""
        try:
            return self.spool.get(name).fields.get("queue") != queue
        except SpoolError:
            return False

    def _content(self, job: Grabbed, task: model.Message | None) -> bytes:
        """What is kept: a plain call as the request it stands for, so that `curl` can send it; else the payload."""
        return task.to_bytes() if task is not None and task.plain is not None else job.payload

    def all(self) -> Iterator[DeadLetter]:
        """All dead letters, oldest first; a file that can't be read is named in the log."""
        found = []
        for name in self.spool.names():
            try:
                found.append(self._read(name))
            except SpoolError as error:
                _log.warning("dead letters: %s", error)
        return iter(sorted(found, key=lambda letter: letter.at))

    def find(self, wanted: str) -> DeadLetter:
        """The dead letter with this id, or of this file's name.

        Raises:
            SpoolError: there is none.
        """
        if is_there := [name for name in (wanted,) if name in self.spool.names()]:
            return self._read(is_there[0])
        for letter in self.all():
            if letter.id == wanted:
                return letter
        raise SpoolError(f"no dead letter {wanted!r} in {self.spool.folder}; `gearwsgi dead list` shows all")

    def set_apart(self, letter: DeadLetter) -> DeadLetter:
        """Move a letter that is about to be queued again out of its successor's way.

        The task may die again before the old letter is discarded, and its new one has the same name.
        """
        name = secrets.token_hex(16)
        self.spool.rename(letter.name, name)
        return replace(letter, name=name)

    def discard(self, letter: DeadLetter) -> None:
        """Throw it away."""
        self.spool.remove(letter.name)

    def submission(self, letter: DeadLetter) -> Submission:
        """A new first attempt of the task, under its old id. What was never trusted goes as it came, not re-signed."""
        again = "r" + secrets.token_hex(4)
        unique = make_unique(letter.id, 1, again)
        if not letter.trusted:
            return Submission(letter.queue, unique, letter.payload, id=letter.id)
        try:
            task = reading.read(letter.payload, max_body=self._settings.max_body)
        except BadMessage as error:
            raise SpoolError(f"dead letter {letter.id} can't be read any more: {error}") from error
        task = replace(task, id=task.id or letter.id, attempt=1, failures=())
        data = seal(task, letter.queue, self._settings, time.time())
        return Submission(letter.queue, unique, data, task.priority, id=letter.id)

    def _read(self, name: str) -> DeadLetter:
        letter = self.spool.get(name)
        fields = letter.fields
        attempts = fields.get("attempts", "0")
        return DeadLetter(
            id=fields.get("id") or name,
            name=name,
            service=fields.get("service", "-"),
            queue=fields.get("queue", ""),
            target=fields.get("target", "-"),
            at=fields.get("died", ""),
            attempts=int(attempts) if attempts.isdigit() else 0,
            reason=fields.get("reason", ""),
            notes=tuple(letter.notes),
            payload=letter.message,
            trusted=fields.get("trusted") == "yes",
        )

    def _expire(self) -> None:
        """Remove what `dead_max_age` and `dead_max_count` say is too old or too many, and say so."""
        age, count = self._settings.dead_max_age, self._settings.dead_max_count
        if age is None and count is None:
            return
        by_time = sorted(self.spool.names(), key=self.spool.modified, reverse=True)
        limit = time.time() - age if age is not None else 0.0
        for place, name in enumerate(by_time):
            if (count is not None and place >= count) or self.spool.modified(name) < limit:
                self.spool.remove(name)
                _log.warning("dead letters: removed %s, over dead_max_age or dead_max_count", name)

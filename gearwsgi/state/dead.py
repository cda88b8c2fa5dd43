"""Dead letters: tasks that are not tried again by themselves. A person reads them, retries them or throws them away."""

import logging
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from ..errors import BadMessage, SpoolError
from ..message import model, reading
from ..policy import Outcome
from ..settings import Settings
from ..wire.payload import Grabbed, Submission, is_task_id, make_unique, seal
from .retention import Retention
from .spool import Letter, Spool

_log = logging.getLogger("gearwsgi")
_REASON = 1000
"""Characters of a reason that are kept: an exception's text may hold a whole request."""
_SHORTEST = 4
"""Characters that a shortened id must have at least."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a dead letter without reading its message.

    Attributes:
        id: the task's id; the file's name where the payload has none.
        name: the file's name without `.http`.
        service: what the caller called, `-` where that could not be read.
        queue: the Gearman function that it came through.
        target: method and path, `-` where they could not be read.
        at: when it died, ISO 8601 in UTC.
        attempts: how often it was tried.
        reason: why it died.
        trusted: whether it was verified, or there was nothing to verify.
        outcome: the last attempt's `Outcome.kind`; empty in a letter of an older version.
        spool: what the records call the state directory that it lies in, where that is another machine's.
    """

    id: str
    name: str
    service: str
    queue: str
    target: str
    at: str
    attempts: int
    reason: str
    trusted: bool
    outcome: str
    spool: str = field(default="", kw_only=True)


class AmbiguousId(SpoolError):
    """A shortened id is the beginning of several."""


class Place(NamedTuple):
    """Where a dead letter is kept: the task's id, and the name of its file."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class DeadLetter(Entry):
    """One dead letter.

    Attributes:
        notes: the failed attempts and the last response, for a reader.
        payload: the message's bytes.
    """

    notes: tuple[str, ...]
    payload: bytes


class DeadLetters:
    """The dead letters in `state_dir/dead`."""

    def __init__(self, settings: Settings) -> None:
        self.spool = Spool(settings.state_dir / "dead", "dead letter")
        self._settings = settings
        self._retention = Retention(self.spool, settings.dead_max_age, settings.dead_max_count)

    def put(self, job: Grabbed, task: model.Message | None, reason: str, outcome: Outcome) -> "Place":
        """Keep a job that is not tried again, durably on disk.

        Args:
            job: as the job server has handed it out.
            task: its message; None where the payload holds none that may run.
            reason: why it is not tried again.
            outcome: the outcome of its last attempt.

        Raises:
            SpoolError: it can't be kept.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        # The file's name is never taken from a message that was not verified.
        name = task.id if task is not None and is_task_id(task.id) else secrets.token_hex(16)
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
            "outcome": outcome.kind,
        }
        notes = [*(task.failures if task is not None else ())]
        if outcome.traceback:
            notes += ["traceback of the last attempt:", *outcome.traceback.splitlines()]
        if outcome.response:
            notes += ["last response:", *outcome.response.decode("utf-8", "replace").splitlines()]
        self.spool.put(Letter(self._content(job, task), fields, notes), name)
        self._retention.start()
        return Place(fields["id"], name)

    def _is_of_another_queue(self, name: str, queue: str) -> bool:
        """Whether a letter of that name came through another queue: users of this queue must not overwrite it."""
        try:
            return self.spool.get(name).fields.get("queue") != queue
        except SpoolError:
            return False

    def _content(self, job: Grabbed, task: model.Message | None) -> bytes:
        """The message to keep: the payload, but a plain call as its request, so that `curl` can send it."""
        return task.to_bytes() if task is not None and task.plain is not None else job.payload

    def entries(self, since: float = 0.0, service: str | None = None) -> Iterator[Entry]:
        """Dead letters, the newest first, each read when it is asked for; one that can't be read is named in the log.

        Args:
            since: those that died then or later, in Unix time.
            service: those of this service; None: of any.

        Raises:
            SpoolError: the folder can't be read.
        """
        for written, name in sorted(self.spool.dated(), reverse=True):
            if written < since:
                return  # all files from here on are older, and a letter is written after its task has died
            try:
                entry = _entry(name, self.spool.fields(name))
            except SpoolError as error:
                self._warn(name, error)
                continue
            if (service is None or entry.service == service) and (not since or _unix(entry.at) >= since):
                yield entry

    def all(self) -> Iterator[DeadLetter]:
        """All dead letters whole, the oldest first; a file that can't be read is named in the log.

        Raises:
            SpoolError: the folder can't be read.
        """
        for _, name in sorted(self.spool.dated()):
            try:
                yield self.get(name)
            except SpoolError as error:
                self._warn(name, error)

    def _warn(self, name: str, error: SpoolError) -> None:
        if self.spool.modified(name):  # if not, it was retried or discarded meanwhile
            _log.warning("dead letters: %s", error)

    def get(self, name: str) -> DeadLetter:
        """The dead letter in the file of that name.

        Raises:
            SpoolError: there is none, or it is no letter.
        """
        return read_letter(name, self.spool.get(name))

    def find(self, wanted: str) -> DeadLetter:
        """The dead letter with this id, or in the file of this name. Either may be shortened, if no other begins so.

        Raises:
            SpoolError: there is none, or the shortened text fits more than one.
        """
        names = self.spool.names()
        if wanted in names:
            return self.get(wanted)
        begun = [name for name in names if name.startswith(wanted)] if may_be_short(wanted) else []
        if len(begun) == 1:
            return self.get(begun[0])
        found: dict[str, Entry] = {}
        for entry in self.entries():
            if entry.id == wanted:
                return self.get(entry.name)
            if entry.name in begun or (may_be_short(wanted) and entry.id.startswith(wanted)):
                found.setdefault(entry.id, entry)
        if len(found) > 1:
            raise ambiguous(wanted, list(found))
        for entry in found.values():
            return self.get(entry.name)
        raise SpoolError(f"no dead letter {wanted!r} in {self.spool.folder}; `gearwsgi dead list` shows them")

    def set_apart(self, letter: DeadLetter) -> DeadLetter:
        """Rename a letter that is about to be queued again, so that a new letter of the same task can't overwrite it.

        The task may die again before the old letter is discarded, and the new letter has the same name.
        """
        name = secrets.token_hex(16)
        self.spool.rename(letter.name, name)
        return replace(letter, name=name)

    def discard(self, letter: DeadLetter) -> None:
        """Throw a letter away."""
        self.spool.remove(letter.name)

    def submission(self, letter: DeadLetter, queued: float | None = None) -> Submission:
        """A new first attempt of the task, under its old id. A message that was never verified is not signed anew.

        Args:
            letter: the dead letter.
            queued: when it is queued again, in Unix time; None: now.

        Raises:
            SpoolError: it can't be read any more.
        """
        now = time.time() if queued is None else queued
        again = "r" + secrets.token_hex(4)
        unique = make_unique(letter.id, 1, again)
        if not letter.trusted:
            return Submission(letter.queue, unique, letter.payload, id=letter.id)
        try:
            task = reading.read(letter.payload, max_body=self._settings.max_body)
        except BadMessage as error:
            raise SpoolError(f"dead letter {letter.id} can't be read any more: {error}") from error
        task = replace(task, id=task.id or letter.id, attempt=1, failures=(), awaited=None, queued=now, due=0.0)
        data = seal(task, letter.queue, self._settings, now)
        return Submission(letter.queue, unique, data, task.priority, id=letter.id)


def may_be_short(wanted: str) -> bool:
    """Whether a text is long enough to be taken for a shortened id."""
    return len(wanted) >= _SHORTEST


def ambiguous(wanted: str, ids: Sequence[str]) -> AmbiguousId:
    """The error for a shortened id that fits several ids."""
    shown = ", ".join(map(repr, ids[:3]))
    return AmbiguousId(f"{len(ids)} dead letters begin with {wanted!r}: {shown}{' …' if len(ids) > 3 else ''}")


def read_letter(name: str, letter: Letter) -> DeadLetter:
    """The dead letter in the file of that name."""
    return DeadLetter(**asdict(_entry(name, letter.fields)), notes=tuple(letter.notes), payload=letter.message)


def _entry(name: str, fields: Mapping[str, str]) -> Entry:
    attempts = fields.get("attempts", "0")
    return Entry(
        id=fields.get("id") or name,
        name=name,
        service=fields.get("service", "-"),
        queue=fields.get("queue", ""),
        target=fields.get("target", "-"),
        at=fields.get("died", ""),
        attempts=int(attempts) if attempts.isascii() and attempts.isdigit() and len(attempts) < 10 else 0,
        reason=fields.get("reason", ""),
        trusted=fields.get("trusted") == "yes",
        outcome=fields.get("outcome", ""),
    )


def _unix(text: str) -> float:
    """An ISO 8601 time in UTC as Unix time; 0 where it can't be read."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

"""The dead letters of all machines that share the records: the files here, and the copies of others' in the records.

The file on the machine where the task died is the truth. To retry or discard a letter elsewhere, it is first taken out
of the records; then that machine's supervisors are asked to remove the file, if it is still the same letter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from heapq import merge
from typing import Any, NamedTuple

from ..errors import RecordsUnavailable, SpoolError
from ..settings import Settings
from .dead import AmbiguousId, DeadLetter, DeadLetters, Entry, ambiguous, may_be_short, read_letter
from .records.database import Transaction
from .records.letters import lose, spool_id
from .records.model import QUEUED, moment
from .records.opening import reading
from .records.rows import QUEUED as PLACE_QUEUED
from .records.rows import clean_id, place
from .records.steering import note
from .records.store import Store
from .spool import Letter

_ENTRY = "l.spool, l.name, t.id, t.service, t.queue, t.method, t.path, t.ended, t.attempts, t.reason"


class Found(NamedTuple):
    """A dead letter, and where it lies.

    Attributes:
        letter: the letter, as in its file.
        spool: the state directory on another machine that it lies in; empty: it lies here.
        content: the file's bytes from the records, where it lies elsewhere.
    """

    letter: DeadLetter
    spool: str = ""
    content: bytes = b""


class SharedLetters:
    """All dead letters, to be read, retried and discarded from any of those machines.

    Args:
        settings: the middleware's.
        store: the records; None where they are off or can't be asked: then only letters here are known.
    """

    def __init__(self, settings: Settings, store: Store | None) -> None:
        self.here = DeadLetters(settings)
        self._store = store
        self._settings = settings

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings) -> Iterator["SharedLetters"]:
        """The letters for these settings, with the records where they are on."""
        if not settings.records:
            yield cls(settings, None)
            return
        with reading(settings) as store:
            yield cls(settings, store)

    def _own(self) -> str:
        """The id of this state directory in the records; empty where they don't know it."""
        path = self._settings.state_dir / "id"
        return spool_id(self._settings.state_dir) if path.exists() else ""

    # -- to read -----------------------------------------------------------------------------------------------------

    def entries(self, since: float = 0.0, service: str | None = None) -> Iterator[Entry]:
        """All dead letters, the newest first; see `DeadLetters.entries`.

        Raises:
            SpoolError: the folder can't be read.
            RecordsUnavailable: the database is away.
        """
        elsewhere = self._elsewhere(since, service)
        return merge(self.here.entries(since, service), elsewhere, key=lambda each: each.at, reverse=True)

    def _elsewhere(self, since: float, service: str | None) -> list[Entry]:
        if self._store is None:
            return []
        which, values = "l.spool <> ? AND coalesce(t.ended, 0) >= ?", list[Any]((self._own(), since))
        if service is not None:
            which, values = f"{which} AND t.service = ?", [*values, service]
        with self._store.database.transaction(write=False) as transaction:
            rows = transaction.all(
                f"SELECT {_ENTRY} FROM gearwsgi_letter l JOIN gearwsgi_task t ON t.id = l.task WHERE {which}"
                " ORDER BY t.ended DESC",
                values,
            )
        return [_entry(row) for row in rows]

    def find(self, wanted: str) -> Found:
        """The dead letter with this id, which may be shortened: the one that lies here, or its copy in the records.

        Raises:
            SpoolError: there is none, or the shortened id fits several.
            RecordsUnavailable: it does not lie here, and the database is away.
        """
        try:
            letter = self.here.find(wanted)
        except AmbiguousId:
            raise
        except SpoolError:
            return self._find_elsewhere(wanted)
        if self._store is not None and wanted not in (letter.id, letter.name):
            with suppress(RecordsUnavailable):
                others = {row[2] for row in self._rows(wanted)} - {letter.id}
                if others:
                    raise ambiguous(wanted, [letter.id, *others])
        return Found(letter)

    def get(self, entry: Entry) -> Found | None:
        """The letter for an entry of a list; None where it was retried or discarded meanwhile.

        Raises:
            SpoolError: its file can't be read.
            RecordsUnavailable: the database is away.
        """
        if entry.spool:
            rows = [row for row in self._rows(entry.id) if row[:3] == (entry.spool, entry.name, entry.id)]
            return _found(rows[0]) if rows else None
        try:
            return Found(self.here.get(entry.name))
        except SpoolError:
            if self.here.spool.modified(entry.name):
                raise
            return None

    def _find_elsewhere(self, wanted: str) -> Found:
        rows = self._rows(wanted) if self._store is not None else []
        rows = [row for row in rows if row[2] == wanted] or rows
        ids = sorted({row[2] for row in rows})
        if len(ids) > 1:
            raise ambiguous(wanted, ids)
        if not rows:
            raise SpoolError(f"no dead letter {wanted!r}; `gearwsgi dead list` shows them")
        return _found(rows[-1])

    def _rows(self, wanted: str) -> list[tuple[str, str, str, bytes]]:
        assert self._store is not None
        key = clean_id(wanted)
        end = key + "\U0010ffff" if may_be_short(wanted) else key
        with self._store.database.transaction(write=False) as transaction:
            rows = transaction.all(
                "SELECT spool, name, task, content FROM gearwsgi_letter"
                " WHERE task >= ? AND task <= ? AND spool <> ? ORDER BY name LIMIT 100",
                (key, end, self._own()),
            )
        return [(spool, name, task, bytes(content)) for spool, name, task, content in rows]

    # -- to change ---------------------------------------------------------------------------------------------------

    def take(self, found: Found) -> Found:
        """Set a letter apart that is about to be queued again, so that nobody else does so; returns where it is then.

        Raises:
            SpoolError: somebody else was first.
            RecordsUnavailable: the database is away.
        """
        if not found.spool:
            return Found(self.here.set_apart(found.letter))
        assert self._store is not None
        with self._store.database.transaction(write=True) as transaction:
            taken = transaction.run(
                "DELETE FROM gearwsgi_letter WHERE spool = ? AND name = ? AND content = ?",
                (found.spool, found.letter.name, found.content),
            )
        if not taken:
            raise SpoolError(f"dead letter {found.letter.id} was retried or discarded meanwhile, or died again")
        return found

    def put_back(self, taken: Found) -> None:
        """Put a letter back that could not be queued again. One that lies here still is a letter.

        Raises:
            RecordsUnavailable: the database is away; the machine where the letter lies makes up for that.
        """
        if taken.spool and self._store is not None:
            with self._store.database.transaction(write=True) as transaction:
                self._store.keep_letter(transaction, taken.spool, taken.letter.name, taken.letter.id, taken.content)

    def retried(self, found: Found, taken: Found, queued: float, by: str) -> None:
        """Remove a letter whose task was queued again: its file goes at once where it lies here, else within seconds.

        Args:
            found: the letter.
            taken: the same letter, as `take` returned it.
            queued: when it was queued again, in Unix time, as its message says now.
            by: who did it.

        Raises:
            SpoolError: the file can't be removed.
            RecordsUnavailable: the database is away.
        """
        if not found.spool:
            self.here.discard(taken.letter)
        if self._store is None:
            return
        key = clean_id(found.letter.id)
        now = self._store.database.now()
        with self._store.database.transaction(write=True) as transaction:
            self._forget(transaction, found)
            self._store.steering.allow(transaction, key)
            transaction.run(
                "UPDATE gearwsgi_task SET state = ?, queued = ?, place = ?, changed = ?, attempts = 0, due = NULL,"
                " started = NULL, ended = NULL, status = NULL, reason = NULL WHERE id = ? AND queued < ?",
                (QUEUED, queued, place(1, PLACE_QUEUED), now, key, queued),
            )
            note(transaction, key, "retried", now, by)

    def discard(self, found: Found, by: str) -> None:
        """Throw a letter away.

        Raises:
            SpoolError: the file can't be removed, or is gone.
            RecordsUnavailable: the database is away.
        """
        if not found.spool:
            self.here.discard(found.letter)
        if self._store is None:
            return
        now = self._store.database.now()
        with self._store.database.transaction(write=True) as transaction:
            lose(transaction, found.spool or self._own(), found.letter.name, now)
            self._forget(transaction, found)
            note(transaction, found.letter.id, "discarded", now, by)

    def _forget(self, transaction: Transaction, found: Found) -> None:
        """Remove it from the records, and have its machine remove the file."""
        spool, name = found.spool or self._own(), found.letter.name
        transaction.run("DELETE FROM gearwsgi_letter WHERE spool = ? AND name = ?", (spool, name))
        if found.spool and self._store is not None:
            self._store.steering.forget(transaction, spool, name, found.content, self._store.database.now())


def _found(row: tuple[str, str, str, bytes]) -> Found:
    spool, name, _, content = row
    return Found(read_letter(name, Letter.from_bytes(content)), spool, content)


def _entry(row: Sequence[Any]) -> Entry:
    spool, name, key, service, queue, method, path, ended, attempts, reason = row
    at = moment(ended)
    return Entry(
        id=key, name=name, service=service, queue=queue, target="-" if method == "-" else f"{method} {path}",
        at=at.isoformat(timespec="seconds") if at is not None else "", attempts=attempts, reason=reason or "",
        trusted=True, outcome="", spool=spool,
    )  # fmt: skip

"""Dead letters for the pages: those of all machines, if there are records; else those on this machine."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from ..errors import RecordsError, SpoolError
from ..state.dead import DeadLetters, Entry, read_letter
from ..state.records.model import DEAD, GROUPED, Record
from ..state.records.queries import Filter, Group, Key, Queries
from ..state.shared import Found
from ..state.spool import Letter, is_name
from .view import View

READ = 500
"""Letters that are read where there are no records; each is a file."""


@dataclass(frozen=True, slots=True)
class Row:
    """A dead letter, as a row of a list."""

    id: str
    service: str
    queue: str
    reason: str
    attempts: int
    died: datetime | None


@dataclass(frozen=True, slots=True)
class Listed:
    """What a page of dead letters shows.

    Attributes:
        rows: some of the letters that are meant, the newest first.
        next: the place of the last one, after which the next page begins.
        groups: all letters that are meant, by service and reason.
        is_local: whether these are only the letters on this machine.
        unread: how many letters on this machine were not read.
    """

    rows: list[Row]
    next: Key | None
    groups: list[Group]
    is_local: bool = False
    unread: int = 0

    @property
    def number(self) -> int:
        """How many are meant."""
        return sum(group.number for group in self.groups)


def list_letters(view: View, after: Key | None = None) -> Listed:
    """The letters that the request's fields ask for."""
    try:
        with view.records() as store:
            if store is not None:
                queries = Queries(store.database)
                which = view.fields.filter(store.database.now(), DEAD)
                found, following = queries.page(which, after)
                rows = [_row(each.record) for each in found]
                return Listed(rows, following, queries.groups(which))
    except RecordsError as error:
        view.trouble = f"The records can't be read, so only what lies on this machine is shown: {error}"
    which = view.fields.filter(time.time(), DEAD)
    letters = DeadLetters(view.settings)
    count = letters.spool.count()
    meant = [_row_here(entry) for entry in _matching(islice(letters.entries(), READ), which)]
    return Listed(meant, None, _groups(meant), is_local=True, unread=max(0, count - READ))


def list_ids(view: View, which: Filter, limit: int) -> list[str]:
    """The ids of the letters that are meant, the oldest first."""
    with suppress(RecordsError), view.records() as store:
        if store is not None:
            return Queries(store.database).ids(which, limit)
    entries = list(_matching(islice(DeadLetters(view.settings).entries(), READ), which))
    return [entry.id for entry in reversed(entries)][:limit]


def find_letter(view: View, task_id: str) -> Found | None:
    """The dead letter of a task: the file on this machine, or what the records have; None where there is none."""
    here = DeadLetters(view.settings)
    found = _get(here, task_id)
    if found is not None:
        return found
    with suppress(RecordsError), view.records() as store:
        if store is not None:
            for kept in Queries(store.database).letters(task_id):
                letter = read_letter(kept.name, Letter.from_bytes(kept.content))
                return _get(here, kept.name) or Found(letter, kept.spool, kept.content)
            return None
    try:
        return Found(here.find(task_id))  # this looks at each letter
    except SpoolError:
        return None


def _get(here: DeadLetters, name: str) -> Found | None:
    """The letter in the file of that name."""
    if not is_name(name):
        return None
    try:
        return Found(here.get(name))
    except SpoolError:
        return None  # there is none, or it was removed meanwhile


def _row(record: Record) -> Row:
    return Row(record.id, record.service, record.queue, record.reason or "", record.attempts, record.ended)


def _row_here(entry: Entry) -> Row:
    return Row(entry.id, entry.service, entry.queue, entry.reason, entry.attempts, died_at(entry))


def died_at(entry: Entry) -> datetime | None:
    """When a letter's task died; None where the file does not say."""
    try:
        at = datetime.fromisoformat(entry.at)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _matching(entries: Iterable[Entry], which: Filter) -> Iterable[Entry]:
    for entry in entries:
        died = died_at(entry)
        at = died.timestamp() if died is not None else 0.0
        if (
            (not which.service or entry.service == which.service)
            and (not which.queue or entry.queue == which.queue)
            and entry.id.startswith(which.id)
            and which.text.lower() in entry.reason.lower()
            and (which.since is None or at >= which.since)
            and (which.settled is None or at <= which.settled)
        ):
            yield entry


def _groups(rows: list[Row]) -> list[Group]:
    counts = Counter((row.service, row.reason[:GROUPED]) for row in rows)
    last: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row.service, row.reason[:GROUPED]
        last[key] = max(last.get(key, 0.0), row.died.timestamp() if row.died is not None else 0.0)
    return [Group(*key, number, last[key] or None) for key, number in counts.most_common()]

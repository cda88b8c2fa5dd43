"""Dead letters in the records: copies for other machines. The file on the machine where the task died is the truth."""

import logging
import os
import secrets
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from ...errors import BadMessage, SpoolError
from ...settings import Settings
from ..spool import Letter, Spool, make_private_folder, open_private
from . import model
from .database import Transaction
from .facts import read_facts
from .rows import ENDED, MAX_PATH, MAX_REASON, Row, clean, clean_id, place
from .steering import FORGET, Request, mark
from .store import Store

_log = logging.getLogger("gearwsgi")

TITLE = "dead letter"
BITE = 100
"""Letters that are written in one go, at most."""


class Letters:
    """The dead letters of one state directory, and their copies in the records.

    Args:
        store: the records.
        settings: the middleware's.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._spool = Spool(settings.state_dir / "dead", TITLE)
        self._state_dir = settings.state_dir
        self._id = ""

    @property
    def id(self) -> str:
        """What the records call this state directory."""
        if not self._id:
            self._id = spool_id(self._state_dir)
        return self._id

    def keep(self, transaction: Transaction, name: str, task_id: str) -> None:
        """Copy the letter of that name into the records; if its file is gone already, do nothing."""
        try:
            letter = self._spool.get(name)
        except SpoolError:
            return
        self._store.keep_letter(transaction, self.id, name, task_id, letter.to_bytes(TITLE))

    def forget(self, requests: Iterable[Request]) -> list[Request]:
        """Remove the letters here that were retried or discarded elsewhere; returns the requests that are done thereby.

        Raises:
            SpoolError: one can't be removed.
        """
        done = [each for each in requests if each.kind == FORGET and each.about == self.id]
        for request in done:
            name, _, wanted = request.name.partition(" ")
            if self._is(name, wanted):
                # Its task may run again, and die under the same name: so remove it under another name.
                aside = secrets.token_hex(16)
                self._spool.rename(name, aside)
                if self._is(aside, wanted):
                    self._spool.remove(aside)
                    _log.info("dead letter %s was retried or discarded elsewhere", name)
        return done

    def _is(self, name: str, wanted: str) -> bool:
        try:
            return mark(self._spool.get(name).to_bytes(TITLE)) == wanted
        except SpoolError:
            return False  # it is gone

    def names(self) -> set[str]:
        """The names of the letters that are here."""
        return set(self._spool.names())

    def compare(self, before: set[str] | None = None) -> None:
        """Make the records true: add letters that they lack, and note as discarded those that are gone here.

        Args:
            before: only letters of these names are added: for newer ones, the supervisor writes more itself. None: all.

        Raises:
            RecordsUnavailable, SpoolError: it can't be done now.
        """
        here = self.names()
        with self._store.database.transaction(write=False) as transaction:
            known = {row[0] for row in transaction.all("SELECT name FROM gearwsgi_letter WHERE spool = ?", (self.id,))}
        missing = sorted((here if before is None else here & before) - known)[:BITE]
        gone = sorted(known - here)[:BITE]
        if not (missing or gone):
            return
        rows = {}
        for name in missing:
            try:
                row = letter_row(self._spool.get(name), name)
            except SpoolError as error:
                _log.warning("records: %s", error)
                continue
            rows[name] = row
        now = self._store.database.now()
        with self._store.database.transaction(write=True) as transaction:
            self._store.put(transaction, list({row.id: row for row in rows.values()}.values()))
            for name, row in rows.items():
                self.keep(transaction, name, row.id)
            for name in gone:
                lose(transaction, self.id, name, now)


def lose(transaction: Transaction, spool: str, name: str, now: float) -> None:
    """Remove a letter that is gone. If its task is still dead and has no other letter, the task was discarded."""
    found = transaction.all("SELECT task FROM gearwsgi_letter WHERE spool = ? AND name = ?", (spool, name))
    transaction.run("DELETE FROM gearwsgi_letter WHERE spool = ? AND name = ?", (spool, name))
    for (task_id,) in found:
        transaction.run(
            "UPDATE gearwsgi_task SET state = ?, ended = ?, changed = ? WHERE id = ? AND state = ?"
            " AND NOT EXISTS (SELECT 1 FROM gearwsgi_letter WHERE task = ?)",
            (model.DISCARDED, now, now, task_id, model.DEAD, task_id),
        )


def letter_row(letter: Letter, name: str) -> Row:
    """The row of a task, made from its dead letter, with the attempts that the letter tells of."""
    fields = letter.fields
    died = _unix(fields.get("died", ""))
    number = fields.get("attempts", "0")
    attempts = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
    row = Row(
        id=clean_id(fields.get("id") or name), service=clean(fields.get("service", "-")), method="-", path="-",
        queue=clean(fields.get("queue", "")), priority="normal", state=model.DEAD, queued=died, due=None, started=None,
        ended=died, attempts=attempts, max_attempts=None, done=None, total=None, status=None,
        reason=clean(fields.get("reason", ""), MAX_REASON), host=None, pid=None, request_id=None, traceparent=None,
        owner=None, place=place(max(1, attempts), ENDED), changed=died, began=None, history="",
    )  # fmt: skip
    if fields.get("trusted") != "yes":
        return row
    try:
        facts = read_facts(letter.message, lambda: row.id)
    except BadMessage:
        return row
    row.method, row.path, row.priority = facts.method, clean(facts.path, MAX_PATH), facts.priority
    row.queued, row.max_attempts = facts.queued or died, facts.max_attempts
    row.request_id, row.traceparent = facts.request_id, facts.traceparent
    return row


def _unix(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return time.time()


def spool_id(state_dir: Path) -> str:
    """The name of a state directory among all that share the records: made once, kept in its file `id`.

    Raises:
        SpoolError: the file can't be read or made.
    """
    path = state_dir / "id"
    try:
        if not path.exists():
            make_private_folder(state_dir)
            new = state_dir / f".id-{secrets.token_hex(4)}"
            with open(open_private(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(16) + "\n")
            try:
                os.link(new, path)  # fails where another process was first
            except FileExistsError:
                pass
            finally:
                new.unlink()
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise SpoolError(f"can't use {path}: {error}") from error

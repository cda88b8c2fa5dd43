"""What people do to queues and tasks, from any machine that shares the records: pause, resume, cancel,
retry or discard a dead letter.

Command line, dashboard and status address all do it through here. Supervisors obey within two seconds.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from ..errors import ConfigError, GearwsgiError, RecordsUnavailable
from ..log import clean
from ..message.limits import check_rate, dump_change
from ..state import limits
from ..state.records import model
from ..state.records.opening import writing
from ..state.records.steering import PAUSE
from ..state.shared import Found, SharedLetters
from .client import Client
from .lookup import Lookup
from .task import Task

_log = logging.getLogger("gearwsgi")


class Done(NamedTuple):
    """The result of an action.

    Attributes:
        did: whether anything was changed.
        text: what was done, or why nothing was; a line for people.
        state: of a task: the state that it has now; `running` where its supervisor is about to end it.
    """

    did: bool
    text: str
    state: str = ""


class Actions:
    """The actions on queues, limits and tasks, in one person's name.

    Args:
        client: the middleware's: `middleware.client`.
        by: who does it, for the log and for the task's story; empty: nobody says.
    """

    def __init__(self, client: Client, by: str = "") -> None:
        self.settings = client.settings
        self._client = client
        self._by = by

    def pause(self, queue: str, seconds: float | None = None, *, kind: str = PAUSE) -> Done:
        """Have no supervisor take jobs of a queue: they stay on the job server, those held ahead go back there.

        Args:
            queue: its name.
            seconds: for so long; None: until it is resumed.
            kind: what is paused: a queue, or what else `state.records.steering` names.

        Raises:
            RecordsUnavailable: the records are off, or their database is away.
        """
        with writing(self.settings) as store:
            store.steering.pause(queue, seconds, by=self._by, kind=kind)
        return self._report(True, f"{queue} is paused" + ("" if seconds is None else f" for {seconds:g} s"))

    def resume(self, queue: str, *, kind: str = PAUSE) -> Done:
        """End a pause.

        Raises:
            RecordsUnavailable: as `pause`.
        """
        with writing(self.settings) as store:
            did = store.steering.resume(queue, kind=kind)
        return self._report(did, f"{queue} is resumed" if did else f"{queue} was not paused")

    def set_limit(self, pattern: str, concurrency: int | None, rate: str | None) -> Done:
        """Have another limit hold for a pattern's keys until it is reset.

        Args:
            pattern: one of the setting `limits`.
            concurrency: how many may run at once, 0: any number; None: as many as now.
            rate: how many may start, empty: any number; None: as many as now.

        Raises:
            ConfigError: there is no such pattern, or that can't be a limit.
            RecordsUnavailable: as `pause`.
        """
        with writing(self.settings) as store:
            known = limits.in_use(self.settings, store)
            if pattern not in known:
                named = ", ".join(map(repr, known)) or "none is known, nor a supervisor that knows them: give --app"
                raise ConfigError(f"{pattern!r} is no pattern of the setting limits: {named}")
            limit, _ = known[pattern]
            if concurrency is not None:
                limit = limit._replace(concurrency=concurrency)
            if rate is not None:
                limit = limit._replace(rate=rate)
            try:
                check_rate(limit.rate or "1/second")
            except ValueError as error:
                raise ConfigError(str(error)) from None
            store.steering.limit(pattern, dump_change(limit, self._by))
        return self._report(True, f"limit {pattern} is {limit.text} until it is reset")

    def reset_limit(self, pattern: str) -> Done:
        """Have the setting's limit hold again.

        Raises:
            RecordsUnavailable: as `pause`.
        """
        with writing(self.settings) as store:
            did = store.steering.limit(pattern, None)
        return self._report(did, f"limit {pattern} is what the setting says" + ("" if did else ", as it was"))

    def cancel(self, task: Task | str, *, waits: bool = False) -> Done:
        """Cancel a task: one that waits never runs, one that runs is ended as a time-out ends it.

        Args:
            task: the task, or its id, which may be shortened.
            waits: whether it is still to be submitted.

        Raises:
            UnknownTask: nobody knows it, or several ids begin so.
            RecordsUnavailable: as `pause`.
            ServerUnavailable: the records don't know it, and no job server answers.
        """
        with self._client.open_records(make=True) as records:
            assert records is not None
            record = Lookup(self._client, task, waits=waits).found(records)
            before = records.cancel(record, by=self._by)
        if before in model.ENDED:
            return self._report(False, f"{record.id} is {before} already: nothing is changed", before)
        if before == model.RUNNING:
            return self._report(True, f"{record.id} runs, and is ended", before)
        return self._report(True, f"{record.id} is cancelled", model.CANCELLED)

    def letters(self) -> AbstractContextManager[SharedLetters]:
        """The dead letters of all who share the records, for several of the actions below."""
        return SharedLetters.opened(self.settings)

    def retry(self, wanted: str | Found, letters: SharedLetters | None = None) -> Done:
        """Queue the task of a dead letter again, as a first attempt, under its old id.

        Args:
            wanted: the letter, or its id, which may be shortened.
            letters: where it is; None: they are opened for this one.

        Raises:
            SpoolError: there is no such letter, it can't be read any more, or somebody else was quicker.
            RecordsUnavailable: it lies elsewhere, and the database is away.
            ServerUnavailable, ServerError: it can't be queued: it is a dead letter still.
        """
        if letters is None:
            with self.letters() as opened:
                return self.retry(wanted, opened)
        found = letters.find(wanted) if isinstance(wanted, str) else wanted
        queued = round(time.time(), 3)
        submission = letters.here.submission(found.letter, queued)
        taken = letters.take(found)
        try:
            (receipt,) = self._client.submit([submission])
        except GearwsgiError:
            letters.put_back(taken)
            raise
        with self._catching_up(found):
            letters.retried(found, taken, queued, self._by)
        where = f"queued as {receipt.handle}" if receipt.handle else "is in the outbox"
        return self._report(True, f"{found.letter.id} {where}", model.QUEUED)

    def discard(self, wanted: str | Found, letters: SharedLetters | None = None) -> Done:
        """Throw a dead letter away: arguments and errors as `retry` has them."""
        if letters is None:
            with self.letters() as opened:
                return self.discard(wanted, opened)
        found = letters.find(wanted) if isinstance(wanted, str) else wanted
        with self._catching_up(found):
            letters.discard(found, self._by)
        return self._report(True, f"{found.letter.id} discarded", model.DISCARDED)

    @contextlib.contextmanager
    def _catching_up(self, found: Found) -> Iterator[None]:
        """Of what lies here the file counts: its supervisor tells the records, when they are there again."""
        try:
            yield
        except RecordsUnavailable as error:
            if found.spool:
                raise
            _log.warning("records: %s: they will say later what became of %s", error, clean(found.letter.id))

    def _report(self, did: bool, text: str, state: str = "") -> Done:
        if did:
            _log.info("%s%s", clean(text), f", by {clean(self._by)}" if self._by else "")
        return Done(did, clean(text), state)

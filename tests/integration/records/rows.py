"""Rows for the tests of the records."""

from dataclasses import replace
from typing import Any

from gearwsgi.state.records.rows import ENDED, Row, place
from gearwsgi.state.records.store import Store

NOW = 1_800_000_000.0


def make_row(task_id: str, **changes: Any) -> Row:
    """A task that was done at its first attempt, but for what `changes` say."""
    row = Row(
        id=task_id, service="mail.welcome", method="POST", path="/mail/welcome", queue="job", priority="normal",
        state="done", queued=NOW, due=None, started=NOW + 1, ended=NOW + 2, attempts=1, max_attempts=5, done=None,
        total=None, status=200, reason=None, host="here", pid=7, request_id=None, traceparent=None, owner="s1",
        place=place(1, ENDED), changed=NOW + 2, began=NOW + 1, history="",
    )  # fmt: skip
    return replace(row, **changes)


def put(store: Store, *rows: Row) -> None:
    """Write these."""
    with store.database.transaction(write=True) as transaction:
        store.put(transaction, rows)

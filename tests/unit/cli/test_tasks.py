"""The lines of `gearwsgi tasks` on a terminal."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.cells import cell_len

from gearwsgi.cli.tasks import _line
from gearwsgi.state.records.model import Record
from gearwsgi.state.records.store import Found

WHEN = datetime(2026, 1, 31, 12, tzinfo=UTC)


def found(fresh: bool | None = None, **changes: Any) -> Found:
    values = dict.fromkeys(Record.__dataclass_fields__) | {
        "id": "0123456789abcdef" * 2, "service": "report.daily", "queue": "mail", "state": "running", "queued": WHEN,
        "attempts": 1, "max_attempts": 5,
    }  # fmt: skip
    return Found(Record(**{**values, **changes}), fresh)  # type: ignore[arg-type]


def test_a_task_on_80_columns_shows_what_matters_of_it() -> None:
    line = _line(found(), 80)
    assert line == "0123456789ab  2026-01-31T12:00:00  running  1/5  mail  report.daily"
    assert "running (not responding)  1/5  mail" in _line(found(fresh=False), 80)


@pytest.mark.parametrize("text", ["x" * 500, "äöü" * 90, "世界" * 99])
def test_no_line_is_wider_than_the_terminal(text: str) -> None:
    lines = _line(found(id=text, service=text, queue=text, reason=text), 80).splitlines()
    assert len(lines) == 2 and all(cell_len(line) <= 80 for line in lines)

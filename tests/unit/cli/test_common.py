"""What the commands share: tables that show anything, and times in the past."""

import io
import time

import click
import pytest
from rich.console import Console

from gearwsgi.cli.common import confirm, read_since
from gearwsgi.cli.tables import make_table
from tests.hostile import HOSTILE, obeys_no_terminal


@pytest.mark.parametrize("text", HOSTILE)
def test_every_cell_of_a_table_is_shown_as_it_is(text: str) -> None:
    console = Console(width=1000, highlight=False)
    with console.capture() as captured:
        console.print(make_table(["a", "b"], [[text, "plain"], ["plain", text]], keep=(0,)))
    shown = captured.get()
    assert obeys_no_terminal(shown)
    assert shown.count("plain") == 2 and len(shown.splitlines()) == 6, shown


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("1.5d", 129600)])
def test_a_span_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    before = time.time()
    assert before - seconds <= _since(text) <= time.time() - seconds


def test_a_time_without_a_zone_is_utc() -> None:
    assert _since("1970-01-02T00:00:00") == _since("1970-01-02T02:00:00+02:00") == 86400


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1w", "1h30m", "٣h", "yesterday", "1" * 400 + "h"])
def test_what_is_no_time_is_an_error_that_says_what_is(text: str) -> None:
    with pytest.raises(click.BadParameter, match="90s, 15m, 1h or 7d"):
        _since(text)


def test_nobody_is_asked_where_nobody_can_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(click.UsageError, match="--yes"):
        confirm("Discard 3?", yes=False)
    confirm("Discard 3?", yes=True)


def _since(text: str) -> float:
    found = read_since(click.Context(click.Command("x")), click.Option(["--since"]), text)
    assert found is not None
    return found

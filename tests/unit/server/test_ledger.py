"""The small file beside the queue: written in place, read after a crash."""

from pathlib import Path

import pytest

from gearwsgi.errors import StartError
from gearwsgi.server.ledger import PLACES, SIZE, Ledger


def again(path: Path) -> Ledger:
    """As the next process sees it; what wrote to it did not close it."""
    return Ledger(path)


def test_what_was_noted_is_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    assert (ledger.least, ledger.done) == (0, set())
    ledger.expect(10, 12)
    assert ledger.note_done([3, 10**15])
    assert ledger.note_done([10**15, 4])
    found = again(path)
    assert (found.least, found.done) == (10, {3, 4, 10**15})
    found.settle(9)
    assert (again(path).least, again(path).done) == (9, set())


def test_it_never_grows_and_says_when_it_is_full(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.note_done(range(1, PLACES + 1))
    assert not ledger.note_done(range(1, PLACES + 3))
    assert (tmp_path / "ledger").stat().st_size == SIZE
    assert again(tmp_path / "ledger").done == set(range(1, PLACES + 1))


@pytest.mark.parametrize("content", [b"", b"another's", b"x" * SIZE])
def test_a_file_that_is_none_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger").write_bytes(content)
    ledger = Ledger(tmp_path / "ledger")
    assert (ledger.least, ledger.done) == (0, set())
    assert ledger.note_done([7])
    assert again(tmp_path / "ledger").done == {7}


def test_one_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=str(tmp_path)):
        Ledger(tmp_path)

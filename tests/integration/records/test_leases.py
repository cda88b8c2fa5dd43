"""Shares of keys: each has one owner at a time, in both databases."""

import pytest

from gearwsgi.settings import Settings
from gearwsgi.state.records import leases
from gearwsgi.state.records.leases import SHARES, renew
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store


def test_a_share_has_one_owner_and_goes_on_when_it_is_given_up_or_its_owner_is_silent(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = store.database
    first = renew(database, "first", ["job", "mail"], [])
    assert len(first.shares) == 2 * SHARES and not first.unwanted, "who is alone owns all"
    second = renew(database, "second", ["job"], [])
    assert not second.shares, "nothing is taken from who has it"
    first = renew(database, "first", ["job", "mail"], [])
    assert {queue for queue, _ in first.unwanted} == {"job"} and 10 < len(first.unwanted) < 54
    given = first.unwanted
    first = renew(database, "first", ["job", "mail"], given)
    assert not first.unwanted and not first.shares & given
    second = renew(database, "second", ["job"], [])
    assert second.shares == given and not second.unwanted

    # A silent one's are another's once its time is over, and not before.
    now = database.now
    assert len(renew(database, "first", ["job", "mail"], []).shares) == 2 * SHARES - len(given)
    monkeypatch.setattr(type(database), "now", lambda self: now() + leases.LASTS + leases.AFTER + 1)
    other = open_database(settings)
    assert other is not None
    assert len(renew(other, "first", ["job", "mail"], []).shares) == 2 * SHARES
    assert not renew(other, "second", ["job"], []).shares
    # One that ends gives up all at once.
    leases.leave(other, "first")
    assert len(renew(other, "second", ["job"], []).shares) == SHARES
    other.close()


def test_a_key_is_in_the_same_share_for_everybody() -> None:
    assert [leases.share_of(key) for key in ("stripe:42", "mail", "é")] == [55, 41, 39]

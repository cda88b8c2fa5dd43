"""Dead letters of another machine: two state directories that share the records."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gearwsgi.errors import RecordsUnavailable, SpoolError
from gearwsgi.message.model import Message
from gearwsgi.settings import Settings
from gearwsgi.state.dead import AmbiguousId, DeadLetters
from gearwsgi.state.records.letters import Letters
from gearwsgi.state.records.store import Store
from gearwsgi.state.shared import SharedLetters
from gearwsgi.state.spool import Letter
from gearwsgi.submit.actions import Actions
from gearwsgi.submit.client import Client
from tests.support import Bench, bench, free_port, until

ID, OTHER, MORE = "0123456789abcdef" * 2, "0123456789abcdee" * 2, "f" * 32


def leave(settings: Settings, name: str, reason: str = "500") -> DeadLetters:
    """A dead letter in this state directory."""
    letters = DeadLetters(settings)
    task = Message("POST", path="/mail", id=name, service="mail", attempt=5, max_attempts=5, queued=100.0)
    fields = {
        "id": name, "service": "mail", "target": "POST /mail", "queue": "job", "died": "2026-01-31T12:00:00+00:00",
        "attempts": "5", "reason": reason, "trusted": "yes",
    }  # fmt: skip
    letters.spool.put(Letter(task.to_bytes(), fields), name)
    return letters


@pytest.fixture
def there(settings: Settings, store: Store) -> Settings:
    """Another machine, where two tasks have died, which the records know."""
    other = replace(settings, state_dir=settings.state_dir.parent / "there")
    leave(other, ID)
    leave(other, OTHER, "404")
    Letters(store, other).compare()
    return other


@pytest.fixture
def actions(settings: Settings) -> Iterator[Actions]:
    here = replace(settings, embedded=False, servers=settings.servers)
    client = Client(here)
    yield Actions(client, "ann")
    client.close()


def asked(store: Store, settings: Settings) -> int:
    """Have a supervisor of that state directory do what it is asked; how much it was."""
    with store.database.transaction(write=False) as transaction:
        requests = store.steering.requests(transaction, store.database.now())
    done = Letters(store, settings).forget(requests)
    with store.database.transaction(write=True) as transaction:
        for each in done:
            store.steering.obeyed(transaction, each, store.database.now())
    return len(done)


def test_letters_of_all_machines_are_listed_and_found_together(
    settings: Settings, store: Store, there: Settings
) -> None:
    leave(settings, MORE)
    letters = SharedLetters(settings, store)
    assert {entry.id: bool(entry.spool) for entry in letters.entries()} == {ID: True, OTHER: True, MORE: False}
    assert [entry.id for entry in letters.entries(service="other")] == []
    found = letters.find(ID[:20])
    assert found.letter.payload == DeadLetters(there).find(ID).payload and found.letter.reason == "500"
    with pytest.raises(AmbiguousId, match="2 dead letters begin with '0123456789'"):
        letters.find("0123456789")
    for nobody in ("", "0", "abcdef", "%", "' OR 1=1 --"):
        with pytest.raises(SpoolError, match="no dead letter"):
            letters.find(nobody)
    assert letters.find("ffff").spool == ""


def test_a_letter_discarded_elsewhere_is_gone_where_it_lay_and_says_who_did_it(
    store: Store, there: Settings, actions: Actions
) -> None:
    assert actions.discard(ID).text == f"{ID} discarded"
    assert store.find(ID).state == "discarded"
    assert [(each.what, each.by) for each in store.story(ID)] == [("discarded", "ann")]
    assert asked(store, there) == 1 and DeadLetters(there).spool.names() == [OTHER]
    assert asked(store, there) == 0
    Letters(store, there).compare()
    assert store.find(ID).state == "discarded" and store.find(OTHER).state == "dead"


def test_a_letter_that_has_another_content_by_now_is_not_removed(
    store: Store, there: Settings, actions: Actions
) -> None:
    actions.discard(ID)
    leave(there, ID, "it died again")
    assert asked(store, there) == 1 and DeadLetters(there).find(ID).reason == "it died again"


def test_of_two_that_retry_a_letter_elsewhere_one_is_told_that_the_other_was_quicker(
    settings: Settings, store: Store, there: Settings
) -> None:
    letters = SharedLetters(settings, store)
    first, second = letters.find(ID), letters.find(ID)
    taken = letters.take(first)
    with pytest.raises(SpoolError, match="meanwhile"):
        letters.take(second)
    letters.put_back(taken)
    assert letters.find(ID).content == first.content


def test_what_lies_here_is_found_where_the_database_is_away(settings: Settings) -> None:
    leave(settings, MORE)
    away = replace(settings, records=f"postgresql://127.0.0.1:{free_port()}/none")
    with SharedLetters.opened(away) as letters:
        assert letters.find(MORE).letter.id == MORE
        with pytest.raises(RecordsUnavailable):
            letters.find(ID)


@pytest.fixture
def site() -> Iterator[Bench]:
    with bench("embedded") as made:
        yield made


def test_a_letter_is_listed_shown_and_retried_from_any_machine(
    site: Bench, records: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if records == "sqlite":
        pytest.skip("a file is one machine's")
    monkeypatch.setenv("GEARWSGI_RECORDS", records)
    site.worker("--workers", "1")
    task = site.app().gearman.task("/boom", max_attempts=1)
    folder = site.state_dir / "dead"
    until(lambda: list(folder.glob("*.http")))
    until(lambda: store.tasks(state="dead"))
    elsewhere: Callable[..., str] = lambda *arguments: site.run(*arguments, env=other).stdout  # noqa: E731
    other = {"GEARWSGI_STATE_DIR": str(site.folder / "elsewhere")}
    (row,) = json.loads(elsewhere("dead", "list", "--json"))
    assert row["id"] == task.id and row["attempts"] == 1 and "boom on purpose" in row["reason"]
    assert "boom on purpose" in elsewhere("dead", "show", task.id[:8])
    before = store.find(task.id)
    assert f"{task.id} queued as" in elsewhere("dead", "retry", task.id[:8])
    again = until(lambda: (found := store.find(task.id)).state == "dead" and found.ended != before.ended and found)
    assert again.queued is not None and before.queued is not None and again.queued > before.queued
    assert [each.outcome for each in again.history] == ["dead", "dead"]
    assert [each.what for each in store.story(task.id)] == ["retried"]
    (name,) = until(lambda: len(found := list(folder.glob("*.http"))) == 1 and found)
    until(lambda: "attempts: 1" in name.read_text())
    elsewhere("dead", "discard", "--all", "--yes")
    until(lambda: not list(folder.glob("*.http")))
    assert store.find(task.id).state == "discarded"

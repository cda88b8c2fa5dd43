"""The commands that steer, on both databases."""

from typing import Any

import pytest

from gearwsgi.settings import Settings
from gearwsgi.state.records.store import Store
from tests.hostile import HOSTILE, obeys_no_terminal
from tests.integration.records.rows import make_row, put

pytestmark = pytest.mark.usefixtures("environment")


def test_a_queue_is_paused_for_a_time_and_resumed(store: Store, run: Any) -> None:
    assert run("pause", "mail", "--for", "10m").out == "mail is paused for 600 s\n"
    assert run("pause", "job").out == "job is paused\n"
    job, mail = store.steering.pauses()
    assert job.until is None and "@" in job.about and 590 < (mail.until or 0) - store.database.now() <= 600
    assert run("resume", "mail").out == "mail is resumed\n"
    assert run("resume", "mail").out == "mail was not paused\n"
    assert [each.name for each in store.steering.pauses()] == ["job"]


@pytest.mark.parametrize("span", ["10", "m", "-1m", "1w", "tomorrow", ""])
def test_a_pause_for_what_is_no_span_is_refused(store: Store, run: Any, span: str) -> None:
    answer = run("pause", "mail", "--for", span)
    assert answer.code == 2 and "90s, 15m, 1h or 7d" in answer.err
    assert not store.steering.pauses()


def test_a_task_that_waits_is_cancelled_and_one_that_has_ended_says_its_state(store: Store, run: Any) -> None:
    put(store, make_row("waits", state="retrying", ended=None), make_row("ended"))
    answer = run("cancel", "wai", "unknown", "ended")
    assert answer.code == 1 and answer.err == "gearwsgi: no task 'unknown' is known\n"
    assert run("cancel", "").err == "gearwsgi: an empty id is no task's\n"
    assert answer.out == "waits is cancelled\nended is done already: nothing is changed\n"
    shown = run("task", "waits").out
    assert "state: cancelled\n" in shown and "cancelled by " in shown.splitlines()[-1]
    assert store.find("waits").state == "cancelled" and store.find("ended").state == "done"
    with store.database.transaction(write=False) as transaction:
        assert [(each.kind, each.name) for each in store.steering.requests(transaction, 0.0)] == [("cancel", "waits")]


def test_a_task_that_waits_in_the_outbox_can_be_cancelled(store: Store, run: Any, settings: Settings) -> None:
    folder = settings.state_dir / "outbox"
    folder.mkdir(mode=0o700, parents=True)
    wanted = "0123456789abcdef" * 2
    (folder / f"{0:020d}-{wanted}.http").write_bytes(b"")
    assert run("cancel", wanted).out == f"{wanted} is cancelled\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_queues_and_ids_are_shown_and_not_interpreted(run: Any, text: str) -> None:
    for arguments in (["pause", text], ["resume", text], ["cancel", text]):
        answer = run(*arguments)
        assert obeys_no_terminal(answer.out + answer.err), arguments

"""The commands that ask the records, on both databases."""

import json
import time
from dataclasses import fields
from typing import Any

import pytest

from gearwsgi.message.response import write_response
from gearwsgi.settings import Settings
from gearwsgi.state.records.model import Record, write_attempt
from gearwsgi.state.records.rows import RUNNING, clean, place
from gearwsgi.state.records.store import Store
from tests.hostile import HOSTILE, obeys_no_terminal
from tests.integration.records.rows import make_row, put
from tests.support import free_port

pytestmark = pytest.mark.usefixtures("environment")


def test_tasks_are_listed_newest_first_as_json_with_the_names_of_a_record(store: Store, run: Any) -> None:
    put(store, make_row("a", queued=10.0), make_row("b", queued=30.0), make_row("c", queued=20.0, state="dead"))
    listed = json.loads(run("tasks", "--json").out)
    assert [each["id"] for each in listed] == ["b", "c", "a"]
    assert list(listed[0]) == [field.name for field in fields(Record) if field.name != "history"]
    assert listed[0]["queued"] == "1970-01-01T00:00:30.000+00:00" and listed[0]["status"] == 200


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--state", "dead"], "c"),
        (["--service", "other"], "b"),
        (["--queue", "mail"], "a"),
        (["--since", "1h"], "d"),
        (["--limit", "1"], "d"),
    ],
)
def test_tasks_are_chosen_by_state_service_queue_time_and_number(
    store: Store, run: Any, options: list[str], found: str
) -> None:
    now = time.time()
    put(
        store,
        make_row("a", queue="mail", queued=1.0, changed=2.0),
        make_row("b", service="other", queued=2.0, changed=2.0),
        make_row("c", state="dead", queued=3.0, changed=2.0),
        make_row("d", queued=now, changed=now),
    )
    assert [each["id"] for each in json.loads(run("tasks", "--json", *options).out)] == [found]


def test_a_task_that_runs_on_a_silent_supervisor_is_marked(store: Store, run: Any) -> None:
    running = {"state": "running", "ended": None, "status": None, "place": place(1, RUNNING)}
    put(store, make_row("lost", owner="gone", **running), make_row("well", owner="here:1", **running))
    with store.database.transaction(write=True) as transaction:
        store.hear(transaction, "here:1", store.database.now(), {})
        store.hear(transaction, "gone", store.database.now() - 11, {})
    lines = {line.split()[0]: line for line in run("tasks").out.splitlines()}
    assert "running (not responding)" in lines["lost"] and "not responding" not in lines["well"]
    assert {each["id"]: each.get("fresh") for each in json.loads(run("tasks", "--json").out)} == {
        "lost": False,
        "well": None,
    }


def test_a_task_is_shown_with_each_attempt_and_its_traceback(store: Store, run: Any) -> None:
    first = write_attempt(1, 1.0, 2.5, "retried", host="here", pid=7, status=None, reason="ValueError: no",
                          traceback="Traceback:\n  File x\nValueError: no")  # fmt: skip
    second = write_attempt(
        2, 5.0, 6.0, "dead", host="there", pid=8, status=500, reason="500 from POST /x", traceback=None
    )
    put(store, make_row("abcdef", state="dead", attempts=2, reason="500 from /x", history=first + second))
    shown = run("task", "abc").out
    assert "id: abcdef\n" in shown and "state: dead\n" in shown
    assert "attempt 1: retried after 1.500 s" in shown and "| ValueError: no\n" in shown
    assert "attempt 2: dead after 1.000 s" in shown and "status 500" in shown
    found = json.loads(run("task", "abcdef", "--json").out)
    assert [(each["attempt"], each["outcome"], each["pid"]) for each in found["history"]] == [
        (1, "retried", 7),
        (2, "dead", 8),
    ]
    assert found["history"][0]["traceback"].startswith("Traceback:")


@pytest.mark.parametrize("command", ["task", "result"])
def test_an_unknown_an_ambiguous_and_an_empty_id_are_errors_on_standard_error(
    store: Store, run: Any, command: str
) -> None:
    put(store, make_row("abc1"))
    assert run(command, "").err == "gearwsgi: an empty id is no task's\n"
    put(store, make_row("abc2"))
    for wanted, why in (("zzz", "no task 'zzz'"), ("abc", "several"), ("", "empty")):
        answer = run(command, wanted)
        assert (answer.code, answer.out) == (1, "") and why in answer.err and answer.err.startswith("gearwsgi: ")


def test_the_body_of_a_result_is_on_standard_output_and_its_status_on_standard_error(store: Store, run: Any) -> None:
    put(store, make_row("abc"))
    with store.database.transaction(write=True) as transaction:
        content = write_response("201 Created", [("Content-Type", "text/plain")], b"made\r\n\r\nit")
        store.keep_result(transaction, "abc", time.time() + 60, content)
    answer = run("result", "ab")
    assert (answer.code, answer.out, answer.err) == (0, "made\r\n\r\nit", "201 Created\n")


def test_a_result_that_is_not_there_is_an_error_that_says_why(store: Store, run: Any) -> None:
    put(store, make_row("done"), make_row("runs", state="running", ended=None), make_row("gone", state="cancelled"),
         make_row("dead", state="dead", reason="ValueError: no"))  # fmt: skip
    for wanted, why in (
        ("done", "not kept"),
        ("runs", "is running"),
        ("gone", "is cancelled"),
        ("dead", "ValueError: no"),
    ):
        answer = run("result", wanted)
        assert (answer.code, answer.out) == (1, "") and why in answer.err


def test_a_task_that_waits_in_the_outbox_is_no_unknown_one(store: Store, run: Any, settings: Settings) -> None:
    folder = settings.state_dir / "outbox"
    folder.mkdir(mode=0o700, parents=True)
    wanted = "0123456789abcdef" * 2
    (folder / f"{0:020d}-{wanted}.http").write_bytes(b"")
    shown = json.loads(run("task", wanted, "--json").out)
    assert shown["state"] == "queued" and shown["id"] == wanted and shown["history"] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_services_queues_and_reasons_are_shown_and_not_interpreted(store: Store, run: Any, text: str) -> None:
    history = write_attempt(1, 1.0, 2.0, "dead", host="h", pid=1, status=None, reason=text, traceback=text)
    put(
        store,
        make_row("abc", service=clean(text), queue=clean(text), state="retrying", reason=clean(text), history=history),
    )
    for arguments in (["tasks"], ["task", "abc"], ["task", text], ["result", text]):
        answer = run(*arguments)
        assert obeys_no_terminal(answer.out + answer.err), arguments


@pytest.mark.parametrize("arguments", [["tasks"], ["task", "a"], ["result", "a"]])
def test_records_that_are_off_or_away_end_a_command_with_a_reason(
    run: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for records, why in (("", "off"), (f"postgresql://127.0.0.1:{free_port()}/none", "postgresql://127.0.0.1")):
        monkeypatch.setenv("GEARWSGI_RECORDS", records)
        answer = run(*arguments)
        assert (answer.code, answer.out) == (1, "") and why in answer.err

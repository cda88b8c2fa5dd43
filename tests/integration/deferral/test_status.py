"""The status address: JSON, a page, events; the result; who may see it."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from webob import Request

from gearwsgi.state.records.model import Record
from gearwsgi.submit.deferral.status import poll_after
from gearwsgi.testing import capture
from tests.integration.deferral.conftest import Site
from tests.support import until

HTML = {"Accept": "text/html,*/*;q=0.8"}
EVENTS = {"Accept": "text/event-stream"}
LATER = {"route": "POST /later", "delay": 3600}
KEYS = ["id", "state", "progress", "attempts", "queued", "started", "ended", "reason"]


def queue(site: Site, path: str, body: bytes = b"", **headers: str) -> str:
    answer = site.ask(f"http://x.example:8000{path}", POST=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.location)


def test_the_result_is_the_handlers_own_response_without_what_was_for_one_client(working: Site) -> None:
    url = queue(working, "/reports/1?a=b", b"abc")
    known = working.when("done", url)
    assert known == {**known, "attempts": 1, "reason": None, "progress": None, "result": f"{url}/result"}
    assert list(known) == [*KEYS, "result"]
    assert known["queued"] <= known["started"] <= known["ended"]
    assert "Retry-After" not in working.ask(url).headers
    result = working.ask(known["result"])
    assert (result.status_code, result.content_type, result.headers["X-Own"]) == (200, "text/csv", "yes")
    assert result.text == "POST http://x.example:8000/reports/1?a=b 3 job"
    assert result.headers.getall("Cache-Control") == ["no-store"]
    assert not {"Set-Cookie", "Connection"} & set(result.headers)
    head = working.ask(known["result"], method="HEAD")
    assert (head.status_code, head.body, head.content_length) == (200, b"", result.content_length)
    page = working.ask(url, headers=HTML)
    assert (page.status_code, page.location) == (303, known["result"])


def test_while_it_runs_progress_shows_and_the_result_is_409(working: Site, tmp_path: Path) -> None:
    file = tmp_path / "go"
    file.write_text("1")
    url = queue(working, "/steps", **{"X-File": str(file)})
    until(lambda: working.ask(url).json["progress"] == [1, 4], "progress")
    pending = working.ask(f"{url}/result")
    assert (pending.status_code, pending.headers["Retry-After"]) == (409, "1")
    page = working.ask(url, headers=HTML)
    assert '<meta http-equiv="refresh" content="1">' in page.text
    assert '<progress aria-label="progress" value="1" max="4">' in page.text
    told = watch(working, url)
    first = next(told)
    assert (first["state"], first["progress"]) == ("running", [1, 4])
    file.write_text("3")
    assert next(told)["progress"] == [3, 4]
    file.write_text("end")
    *_, last = told
    assert (last["state"], last["result"]) == ("done", f"{url}/result")


def watch(site: Site, url: str, last: list[str] | None = None, **environ: Any) -> Any:
    """The data of the events that a browser would see; the ids go into `last`."""
    request = Request.blank(url, headers=EVENTS)
    request.environ.update({"wsgi.multithread": True, **environ})
    answer = request.get_response(site.application)
    assert (answer.status_code, answer.content_type, answer.headers["Cache-Control"]) == (
        200, "text/event-stream", "no-store",
    )  # fmt: skip
    for chunk in answer.app_iter:
        for line in chunk.decode().splitlines():
            if line.startswith("id: ") and last is not None:
                last.append(line[4:])
            if line.startswith("data: "):
                yield json.loads(line[6:])
    answer.app_iter.close()


def test_a_server_of_one_thread_holds_no_stream_and_a_client_comes_again_until_the_end(working: Site) -> None:
    url = queue(working, "/reports/1")
    working.when("done", url)
    ids: list[str] = []
    assert [told["state"] for told in watch(working, url, ids, **{"wsgi.multithread": False})] == ["done"]
    again = working.ask(url, headers={**EVENTS, "Last-Event-ID": ids[0]})
    assert (again.status_code, again.body) == (204, b"")
    assert working.ask(url, method="HEAD", headers=EVENTS).body == b""


def test_only_a_few_streams_are_held_at_once(idle: Site) -> None:
    url = queue(idle, "/reports/1")
    held = [watch(idle, url) for _ in range(2)]
    assert [next(each)["state"] for each in held] == ["queued", "queued"]
    assert [told["state"] for told in watch(idle, url)] == ["queued"]  # it ends at once
    for each in held:
        each.close()
    third = watch(idle, url)
    assert next(third)["state"] == "queued"
    third.close()


def test_of_a_dead_one_the_result_is_its_last_response_or_404(working: Site) -> None:
    url = queue(working, "/fail?status=404")
    known = working.when("dead", url)
    assert known["reason"].startswith("404 Not Found")
    assert "result" not in known
    answer = working.ask(f"{url}/result")
    assert (answer.status_code, answer.text) == (404, "it is 404")
    page = working.ask(url, headers=HTML)
    assert (page.status_code, "refresh" in page.text, "Failed" in page.text) == (200, False, True)
    url = queue(working, "/fail?raise=1")
    working.when("dead", url)
    answer = working.ask(f"{url}/result")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_redirect_in_a_result_leads_where_it_led_from_its_own_address(working: Site) -> None:
    url = queue(working, "/moved")
    working.when("done", url)
    answer = working.ask(f"{url}/result")
    assert (answer.status_code, answer.location) == (303, "http://x.example:8000/made/7")


def test_what_is_not_kept_is_410_and_what_nobody_knows_404(working: Site) -> None:
    app = working.make(defer=[{"route": "POST /reports/*", "keep_result": 0}])
    url = str(working.ask("/reports/1", app=app, method="POST").location)
    known = working.when("done", url)
    assert "result" not in known
    assert working.ask(f"{url}/result").status_code == 410
    assert working.ask(url, headers=HTML).status_code == 200
    path, _, task_id = url.rpartition("/")
    for wrong in ("0" * 32, task_id[:20], task_id.upper(), task_id + "0", "x", "", f"{task_id}/other", f"{task_id}/"):
        assert working.ask(f"{path}/{wrong}").status_code == 404, wrong


def test_where_records_are_off_the_job_server_and_the_outbox_tell(working: Site, idle: Site) -> None:
    off = idle.make(records="")
    url = str(idle.ask("/reports/1", app=off, method="POST").location)
    assert idle.ask(url, app=off).json["state"] == "queued"
    off = working.make(records="")
    url = str(working.ask("/reports/1", app=off, method="POST").location)
    gone = until(lambda: (found := working.ask(url, app=off)).status_code == 404 and found, "its end")
    assert "Records are off" in gone.json["detail"]


def test_status_addresses_are_below_the_mount_and_each_applications_own(idle: Site) -> None:
    one, two = idle.make(), idle.make(status_path="/own/tasks", defer=["POST /reports/*"])
    mounts: dict[str, Callable[..., Any]] = {"/one": one, "/two": two}

    def site(environ: dict[str, Any], start_response: Any) -> Any:
        name = "/" + environ["PATH_INFO"].split("/")[1]
        environ["SCRIPT_NAME"] += name
        environ["PATH_INFO"] = environ["PATH_INFO"][len(name) :]
        return mounts[name](environ, start_response)

    urls = [str(idle.ask(f"http://x:1{name}/reports/1", app=site, method="POST").location) for name in mounts]
    assert [url.rpartition("/")[0] for url in urls] == ["http://x:1/one/-/tasks", "http://x:1/two/own/tasks"]
    assert [idle.ask(url, app=site).json["state"] for url in urls] == ["queued", "queued"]
    assert idle.ask("http://x:1/two/-/tasks/" + urls[0][-32:], app=site).status_code == 404


def test_delete_cancels_what_waits_and_what_runs_and_leaves_what_has_ended(working: Site, tmp_path: Path) -> None:
    later = str(working.ask("/later", app=working.make(defer=[LATER]), method="POST").location)
    answer = working.ask(later, method="DELETE")
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")
    assert working.ask(f"{later}/result").status_code == 404
    file = tmp_path / "go"
    file.write_text("1")
    runs = queue(working, "/steps", **{"X-File": str(file)})
    until(lambda: working.ask(runs).json["progress"] == [1, 4], "progress")
    assert working.ask(runs, method="DELETE").status_code in (200, 202)  # 202: the records know that it runs
    working.when("cancelled", runs)
    done = queue(working, "/reports/1")
    working.when("done", done)
    answer = working.ask(done, method="DELETE")
    assert (answer.status_code, answer.json["state"]) == (200, "done")
    assert working.ask(f"{done}/result", method="DELETE").status_code == 405
    assert working.ask("/-/tasks/" + "0" * 32, method="DELETE").status_code == 404


def asker(environ: dict[str, Any]) -> Any:
    return environ.get("REMOTE_USER")


def badge(environ: dict[str, Any]) -> Any:
    return environ.get("HTTP_X_BADGE")


def test_an_owners_task_is_a_404_for_others_before_any_worker_has_seen_it(idle: Site) -> None:
    rules = ["POST /reports/*", {"route": "POST /mine", "owner": badge}]
    app = idle.make(defer=rules, owner=asker)
    ada, bob = {"REMOTE_USER": "ada"}, {"REMOTE_USER": "bob"}

    def codes(url: str, **headers: str) -> list[int]:
        return [idle.ask(url, app=app, environ=who, headers=headers).status_code for who in (ada, bob, {})]

    hers = str(idle.ask("/reports/1", app=app, method="POST", environ=ada).location)
    assert codes(hers) == [200, 404, 404]
    assert idle.ask(f"{hers}/result", app=app, environ=bob).status_code == 404
    nobodys = str(idle.ask("/reports/1", app=app, method="POST").location)
    assert codes(nobodys) == [200, 200, 200]
    badged = str(idle.ask("/mine", app=app, method="POST", environ=ada, headers={"X-Badge": "7"}).location)
    assert codes(badged) == [404, 404, 404]
    assert codes(badged, **{"X-Badge": "7"}) == [200, 200, 200]
    handlers = str(idle.ask("/handler", app=app, method="POST", environ=ada).location)
    assert codes(handlers) == [200, 404, 404]
    with capture(app):
        plain = app.gearman.task("/reports/1").id
        assert idle.ask(f"/-/tasks/{plain}", app=app, environ=ada).status_code == 404


def test_other_methods_are_told_which_there_are(idle: Site) -> None:
    url = queue(idle, "/reports/1")
    answer = idle.ask(url, method="PATCH")
    assert (answer.status_code, "GET" in answer.headers["Allow"]) == (405, True)
    assert idle.ask(url, method="OPTIONS").status_code == 204


def test_who_guesses_ids_keeps_few_threads_busy(working: Site) -> None:
    codes: list[int] = []

    def guess(number: int) -> None:
        codes.append(working.ask(f"/-/tasks/{number:032x}").status_code)

    working.when("done", queue(working, "/reports/1"))  # so that there are records
    threads = [threading.Thread(target=guess, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) == {404, 503}


@pytest.mark.parametrize(
    ("state", "age", "due", "seconds"),
    [("queued", 0, None, 1), ("running", 60, None, 6), ("running", 9999, None, 30), ("retrying", 5, 12, 12),
     ("scheduled", 5, 9999, 30), ("done", 1, None, None), ("dead", 1, None, None)],
)  # fmt: skip
def test_the_rate_of_asking_goes_with_a_tasks_age(state: str, age: float, due: float | None, seconds: int) -> None:
    now = time.time()

    def at(stamp: float) -> datetime:
        return datetime.fromtimestamp(stamp, UTC)

    record = Record(
        id="", service="", method="", path="", queue="", priority="", state=state, queued=at(now - age),
        due=None if due is None else at(now + due), started=None, ended=None, attempts=0, max_attempts=None,
        progress=None, status=None, reason=None, host=None, pid=None, request_id=None, traceparent=None,
    )  # fmt: skip
    assert poll_after(record, now) == seconds

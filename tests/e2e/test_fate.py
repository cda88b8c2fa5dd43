"""The fate of a job, on both job servers: retries, delays, after_response, dead letters, the story in the log."""

import io
import json
import re
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.address import parse_address
from gearwsgi.app import replay
from gearwsgi.app.job import Job
from gearwsgi.errors import InvalidTask
from gearwsgi.message.model import Message
from gearwsgi.wire import packets
from gearwsgi.wire.connection import Connection
from tests.support import Bench, JobServer, until


def test_a_failed_attempt_is_tried_again_until_it_succeeds_under_one_id(busy: Bench) -> None:
    [worker] = busy.workers
    task = busy.app().gearman.task("/flaky", {"good": 3})
    worker.wait_for("result 200 OK")
    until(lambda: busy.server.queued() == 0)
    assert busy.lines() == [f"flaky {task.id} {attempt}" for attempt in (1, 2, 3)]
    assert not busy.dead()
    story = [line.split(" ", 4)[4] for line in worker.log.splitlines() if task.id in line]
    kinds = [line.split(" ")[0] for line in story]
    assert kinds == ["received", "failed", "received", "failed", "received", "result"], worker.log


def test_attempts_used_up_end_as_a_dead_letter_that_tells_each_reason(busy: Bench) -> None:
    task = busy.app().gearman.task("/status", {"status": "503 Down"}, max_attempts=3)
    [letter] = busy.dead(1)
    assert (letter["id"], letter["service"], letter["attempts"]) == (task.id, "/status", 3)
    assert letter["reason"] == "503 Down from POST /status; all 3 attempts used"
    shown = busy.run("dead", "show", task.id).stdout
    assert "attempt 1 at " in shown and "attempt 2 at " in shown
    assert "503 Down" in shown and "the body of 503 Down" in shown and '{"status":"503 Down"}' in shown


@pytest.mark.parametrize(
    ("status", "says"), [("302 Found", "302 Found"), ("404 Not Found", "404"), ("501 Not Implemented", "501")]
)
def test_what_will_not_change_is_a_dead_letter_at_once(busy: Bench, status: str, says: str) -> None:
    busy.app().gearman.task("/status", {"status": status, "headers": [["Location", "/login"]], "n": "once"})
    [letter] = busy.dead(1)
    assert says in letter["reason"] and "POST /status" in letter["reason"]
    assert ("/login" in letter["reason"]) == (status == "302 Found")
    assert busy.lines() == ["status once 1"]


def test_a_handler_may_ask_for_another_attempt_or_for_none(busy: Bench) -> None:
    [worker] = busy.workers
    busy.app().gearman.task("/retry", {"n": "r"})
    worker.wait_for("result 200 OK")
    assert "Retry: asked for" in worker.log
    busy.app().gearman.task("/status", {"status": "503 No", "headers": [["X-Gearman-Retry", "never"]]})
    [letter] = busy.dead(1)
    assert "X-Gearman-Retry: never" in letter["reason"] and letter["attempts"] == 1


def test_retry_after_is_waited_for(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    site.app().gearman.task("/status", {"status": "429 Slow down", "headers": [["Retry-After", "3600"]]})
    worker.wait_for("attempt 2 of 5 in 3600.0 s")
    until(lambda: site.server.queued() == 1)


def test_a_service_has_attempts_of_its_own_and_a_task_has_the_last_word(site: Bench) -> None:
    tasks = {"mail": {"target": "POST /boom", "max_attempts": 2}}
    site.worker("--workers", "1", env={"SETTINGS": json.dumps({"tasks": tasks})})
    app = site.app(tasks=tasks)
    app.gearman.task("mail")
    app.gearman.task("mail", max_attempts=1)
    letters = site.dead(2)
    assert sorted(letter["attempts"] for letter in letters) == [1, 2]


def test_a_plain_call_is_retried_as_any_other(busy: Bench) -> None:
    connection = Connection(parse_address(busy.server.address), 5)
    payload = b'{"service":"/flaky","good":3,"n":"plain"}'
    connection.send(packets.pack_submit("job", "u-1", payload), 5)
    connection.expect(packets.JOB_CREATED, 10)
    connection.close()
    until(lambda: busy.lines() == [f"flaky plain {attempt}" for attempt in (1, 2, 3)])
    until(lambda: busy.server.queued() == 0)


def test_the_retry_is_queued_before_the_job_is_answered(embedded_site: Bench) -> None:
    """A job server by hand reads the order on the wire."""
    import socket
    import struct
    import threading

    site = embedded_site
    site.server.stop()
    order: list[str] = []
    listener = socket.create_server(("127.0.0.1", site.server.port))
    payload = b"POST http://localhost/boom HTTP/1.1\r\nX-Gearman-Task: abc\r\n\r\n"

    def serve() -> None:
        connection, _ = listener.accept()
        buffer = b""
        given = False
        while data := connection.recv(65536):
            buffer += data
            while len(buffer) >= 12 and len(buffer) >= 12 + struct.unpack_from("!I", buffer, 8)[0]:
                kind, size = struct.unpack_from("!II", buffer, 4)
                body, buffer = buffer[12 : 12 + size], buffer[12 + size :]
                if kind in (packets.GRAB_JOB_UNIQ, packets.PRE_SLEEP) and not given:
                    given = True
                    answer = b"H:1\0job\0u\0" + payload
                    connection.sendall(struct.pack("!4sII", b"\0RES", packets.JOB_ASSIGN_UNIQ, len(answer)) + answer)
                elif kind in (18, 36):
                    order.append(f"submit {body.split(bytes(1))[1].decode()}")
                    connection.sendall(struct.pack("!4sII", b"\0RES", packets.JOB_CREATED, 3) + b"H:2")
                elif kind == packets.WORK_FAIL:
                    order.append("fail")
                elif kind == packets.GRAB_JOB_UNIQ:
                    connection.sendall(struct.pack("!4sII", b"\0RES", packets.NO_JOB, 0))
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    worker = site.worker("--workers", "1")
    until(lambda: len(order) == 2)
    assert order == ["submit abc:2", "fail"]
    assert worker.stop() == 0
    thread.join(10)
    listener.close()


def test_a_delayed_task_waits_until_it_is_due(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    app = site.app()
    far = app.gearman.task("/good", {"n": "far"}, at=datetime.now(UTC) + timedelta(days=3))
    due = time.time() + 1
    app.gearman.task("/good", {"n": "soon"}, delay=1)
    app.gearman.task("/good", {"n": "now"}, delay=0)
    app.gearman.task("/good", {"n": "past"}, at=datetime.now(UTC) - timedelta(days=1))
    until(lambda: {"good now 1", "good past 1"} <= set(site.lines()))
    until(lambda: "good soon 1" in site.lines())
    assert time.time() >= due
    assert "good far 1" not in site.lines() and str(app.gearman.status(far)) == "queued"
    assert worker.stop() == 0


def test_a_time_without_a_zone_is_refused(embedded_site: Bench) -> None:
    with pytest.raises(InvalidTask, match="time zone"):
        embedded_site.app().gearman.task("/good", at=datetime.now())


def test_a_delayed_task_survives_the_job_server(embedded_site: Bench) -> None:
    embedded_site.app().gearman.task("/good", {"n": "later"}, delay=1)
    embedded_site.server.restart()
    embedded_site.worker("--workers", "1")
    until(lambda: "good later 1" in embedded_site.lines())


def _respond(app: Any, status: str, body: Iterable[bytes], *, read: int | None = None) -> list[Any]:
    """Call a middleware as a server does, reading `read` chunks or all; the tasks that its handler deferred."""
    tasks: list[Any] = []

    def handler(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        tasks.extend(environ["gearman"].task("/good", {"n": n}, after_response=True) for n in range(3))
        start_response(status, [])
        return body

    app.app = handler
    result = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}, lambda *a: None)
    try:
        for count, _ in enumerate(result):
            if read is not None and count + 1 >= read:
                break
    finally:
        result.close()
    return tasks


def test_after_response_submits_all_when_the_response_is_out(site: Bench) -> None:
    tasks = _respond(site.app(), "200 OK", [b"a", b"b"])
    assert len({task.handle for task in tasks}) == 3 and all(task.handle for task in tasks)
    assert site.server.queued() == 3


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "400 Bad"])
def test_after_response_submits_nothing_for_a_response_that_failed(embedded_site: Bench, status: str) -> None:
    tasks = _respond(embedded_site.app(), status, [b"a"])
    assert not any(task.handle for task in tasks) and embedded_site.server.queued() == 0


def test_after_response_submits_nothing_for_a_client_that_hangs_up(embedded_site: Bench) -> None:
    _respond(embedded_site.app(), "200 OK", [b"a", b"b"], read=1)
    assert embedded_site.server.queued() == 0


def test_after_response_submits_nothing_for_a_close_that_raises(embedded_site: Bench) -> None:
    class Body:
        def __iter__(self):
            return iter([b"a"])

        def close(self):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        _respond(embedded_site.app(), "200 OK", Body())
    assert embedded_site.server.queued() == 0


def test_after_response_works_in_a_body_that_is_made_while_it_is_sent(embedded_site: Bench) -> None:
    def handler(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"
        environ["gearman"].task("/good", after_response=True)
        yield b"b"

    app = embedded_site.app()
    app.app = handler
    result = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}, lambda *a: None)
    assert b"".join(result) == b"ab"
    assert embedded_site.server.queued() == 0
    result.close()  # type: ignore[attr-defined]
    assert embedded_site.server.queued() == 1


def test_dead_letters_are_retried_discarded_and_shown_as_curl(busy: Bench) -> None:
    app = busy.app()
    one = app.gearman.task("/status", {"status": "400 Bad", "n": "a"}, headers={"Cookie": "very=secret"})
    two = app.gearman.task("/status", {"status": "400 Bad", "n": "b"})
    assert len(busy.dead(2)) == 2
    shown = busy.run("dead", "show", one.id).stdout
    assert "very=secret" not in shown and "very=secret" in busy.run("dead", "show", one.id, "--secrets").stdout
    assert "very=secret" not in busy.run("dead", "curl", one.id).stdout
    table = busy.run("dead", "list").stdout
    assert one.id in table and two.id in table
    retried = busy.run("dead", "retry", one.id).stdout
    assert one.id in retried and "H:" in retried
    until(lambda: busy.runs()["status a 1"] == 2)
    assert {letter["id"] for letter in busy.dead(2)} == {one.id, two.id}
    assert busy.run("dead", "discard", two.id).stdout.strip() == f"{two.id} discarded"
    assert [letter["id"] for letter in busy.dead()] == [one.id]
    busy.run("dead", "retry", "--all", "--service", "/other", "--yes")
    assert len(busy.dead()) == 1
    busy.run("dead", "discard", "--all", "--yes")
    assert busy.dead() == []
    missing = busy.run("dead", "show", one.id, ok=False)
    assert missing.returncode == 3 and "no dead letter" in missing.stderr


def test_a_dead_letters_curl_command_reaches_the_application(embedded_site: Bench) -> None:
    import shlex
    import sys

    site = embedded_site
    site.worker("--workers", "1")
    from tests.support import free_port

    port = free_port()
    app = site.app()
    task = app.gearman.task("/status", {"status": "400 Bad"}, headers={"Host": f"127.0.0.1:{port}"})
    assert site.dead(1)
    command = shlex.split(site.run("dead", "curl", task.id).stdout)
    assert command[0] == "curl"
    code = (
        "from kitchen import application\nfrom waitress import serve\n"
        f"serve(lambda e, s: (s('200 OK', []), [e['wsgi.input'].read()])[1], host='127.0.0.1', port={port})"
    )
    web = subprocess.Popen([sys.executable, "-c", code], cwd=site.folder, env={**__import__("os").environ, **site.env})
    try:
        until(lambda: subprocess.run(command, capture_output=True).stdout.endswith(b'{"status":"400 Bad"}'))
    finally:
        web.terminate()
        web.wait()


def test_dead_letters_that_are_too_many_are_removed_and_the_log_says_so(embedded_site: Bench) -> None:
    site = embedded_site
    worker = site.worker("--workers", "1", env={"SETTINGS": json.dumps({"dead_max_count": 2})})
    for _ in range(4):
        site.app().gearman.task("/status", {"status": "400 Bad"})
    worker.wait_for("removed", 2)
    assert len(site.dead()) == 2


def test_the_outbox_is_relayed_in_order_when_a_server_is_back(site: Bench) -> None:
    site.server.stop()
    app = site.app()
    tasks = [app.gearman.task("/good", {"n": n}) for n in range(5)]
    assert [str(task) for task in tasks] == [""] * 5
    assert str(app.gearman.status(tasks[0])) == "queued"
    site.server.start()
    until(lambda: site.server.queued() == 5)
    until(lambda: not list(site.state_dir.glob("outbox/*.http")))
    site.worker("--workers", "1", "--burst")
    until(lambda: [line.split()[1] for line in site.lines()] == ["0", "1", "2", "3", "4"])


def test_the_supervisor_relays_what_a_web_process_left(site: Bench) -> None:
    site.server.stop()
    sent = site.run("send", "/good", '{"n": "left"}')
    assert "waits in" in sent.stderr
    assert "job" in site.run("outbox", "list").stdout
    worker = site.start_worker("--workers", "1")
    worker.wait_for("is gone, trying again")
    site.server.start()
    until(lambda: "good left 1" in site.lines())


def test_the_outbox_is_flushed_by_hand(site: Bench) -> None:
    site.server.stop()
    site.run("send", "/good", '{"n": "left"}')
    assert site.run("outbox", "flush", ok=False).returncode == 3
    site.server.start()
    assert site.run("outbox", "flush").stdout == "1 submitted, 0 left\n"
    assert site.server.queued() == 1


def test_a_bad_file_in_the_outbox_is_set_aside_and_blocks_nobody(site: Bench) -> None:
    site.server.stop()
    app = site.app()
    app.gearman.task("/good", {"n": "behind"})
    (site.state_dir / "outbox" / "0.http").write_bytes(b"rubbish")
    (site.state_dir / "outbox" / "1.http").write_bytes(
        b"### gearwsgi outbox\n# queue: job\n# ---\nGET / HTTP/1.1\r\n\r\n"
    )
    site.server.start()
    until(lambda: site.server.queued() == 1)
    until(
        lambda: sorted(path.name for path in (site.state_dir / "outbox" / "bad").glob("*.http")) == ["0.http", "1.http"]
    )
    assert (site.state_dir / "outbox" / "bad" / "0.reason").read_text()


def test_a_job_server_that_accepts_and_never_answers_costs_no_task(embedded_site: Bench) -> None:
    import socket

    site = embedded_site
    site.server.stop()
    with socket.create_server(("127.0.0.1", site.server.port)):
        task = site.app(connect_timeout=0.2).gearman.task("/good", {"n": "hung"})
    assert str(task) == "" and len(list(site.state_dir.glob("outbox/*.http"))) == 1
    site.server.start()
    until(lambda: site.server.queued() == 1)


def test_a_full_queue_sends_a_retry_through_the_outbox(site: Bench) -> None:
    worker = site.worker("--workers", "1", env={"SETTINGS": json.dumps({"backoff_min": 0.01, "backoff_max": 0.01})})
    app = site.app()
    file = site.folder / "go-on"
    app.gearman.task("/until", {"n": "first", "file": str(file)})
    until(lambda: "until first 1" in site.lines())
    app.gearman.task("/flaky", {"n": "second"})
    site.server.admin("maxqueue job 1")
    file.touch()
    worker.wait_for("goes to the outbox")
    site.server.admin("maxqueue job 0" if site.server.kind == "embedded" else "maxqueue job 100")
    until(lambda: "flaky second 2" in site.lines())
    until(lambda: site.server.queued() == 0)


def test_a_unique_goes_to_the_same_server_and_one_that_is_down_is_skipped(site: Bench) -> None:
    second = JobServer(site.server.kind, site.folder / "second").start()
    servers = [site.server.address, second.address]
    try:
        app = site.app(servers=servers)
        handles = {app.gearman.task("/good", unique="same").handle for _ in range(10)}
        assert len(handles) == 1
        for n in range(40):
            app.gearman.task("/good", {"n": n})
        assert site.server.queued() and second.queued()
        second.stop()
        for n in range(40):
            assert app.gearman.task("/good", {"n": n}).handle
        assert not list(site.state_dir.glob("outbox/*.http"))
    finally:
        second.stop()


def test_an_ids_story_is_in_the_logs_of_web_and_worker(embedded_site: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gearwsgi")
    task = embedded_site.app().gearman.task("/boom", max_attempts=1)
    assert re.search(rf"queued /boom in job as {task.handle} on .*, id {task.id}", caplog.text)
    worker = embedded_site.worker("--workers", "1")
    worker.wait_for(f", id {task.id}", 2)
    assert [line.split(" ")[4] for line in worker.log.splitlines() if f", id {task.id}" in line] == ["received", "dead"]
    assert f"{task.handle} id {task.id} | ValueError: boom on purpose" in worker.log


def test_the_middleware_needs_no_job_server_to_be_made() -> None:
    GearmanMiddleware(lambda environ, start: [], servers="192.0.2.1:4730")


def _queue_later_and(environ: dict[str, Any], start_response: Any, kind: str) -> Iterable[bytes]:
    environ["gearman"].task("/good", {"n": kind}, after_response=True)
    if kind == "raises":
        raise LookupError("on purpose")
    start_response("500 Oops" if kind == "fails" else "200 OK", [])
    return iter([b"a", b"b"] if kind != "halfway" else _halfway())


def _halfway() -> Iterable[bytes]:
    yield b"a"
    raise LookupError("on purpose")


@pytest.mark.parametrize(
    ("kind", "queued"), [("good", 1), ("fails", 0), ("raises", 0), ("halfway", 0), ("asks itself", 2)]
)
def test_after_response_in_a_replay(
    embedded_site: Bench, caplog: pytest.LogCaptureFixture, kind: str, queued: int
) -> None:
    app = embedded_site.app()

    def handler(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/":  # a handler may call its own application: both of them queue
            b"".join(app({**environ, "PATH_INFO": "/inner"}, lambda *given: None))
        return _queue_later_and(environ, start_response, kind)

    app.app = handler
    task = Message("POST", path="/" if kind == "asks itself" else "/outer")
    with caplog.at_level("INFO", "gearwsgi"):
        replay.run(app, task, Job.of(task, queue="job", handle="H", max_attempts=5), io.StringIO())
    assert embedded_site.server.queued() == queued
    assert caplog.text.count("is not queued: the response") == (not queued)

"""The main job: a handler queues a task, a worker replays it through the same application."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback

import pytest

from gearwsgi.errors import CallFailed, CallTimeout, InvalidTask, ServerUnavailable, UnknownService
from gearwsgi.wire import connection, packets
from gearwsgi.wire.payload import Submission
from tests.support import Bench, free_port, until

PHP_PAYLOAD = b'{"a":1,"name":"\\u4e2d\\u6587","nested":{"x":[1,2]},"service":"good"}'


def test_a_task_runs_once_and_its_handle_is_the_job_servers(busy: Bench) -> None:
    [worker] = busy.workers
    task = busy.app().gearman.task("/good", {"n": "one"})
    worker.wait_for("result 200 OK")
    assert str(task) == task.handle and task.handle in worker.log
    assert busy.lines() == ["good one 1"]
    until(lambda: busy.server.queued() == 0)


def test_a_handler_queues_in_a_replay_as_it_does_outside(busy: Bench) -> None:
    busy.app().gearman.task("/chain", {"n": "first"})
    until(lambda: "good chained 1" in busy.lines())


def test_the_bytes_that_php_sends_run_the_service(site: Bench) -> None:
    worker = site.worker("--workers", "1", env={"SETTINGS": json.dumps({"tasks": {"good": "POST /good"}})})
    submit = shutil.which("gearman")
    if submit is None:
        pytest.skip("the gearman command line tool is not installed")
    subprocess.run([submit, "-p", str(site.server.port), "-b", "-f", "job"], input=PHP_PAYLOAD, check=True, timeout=30)
    typed = '{"service":"/good","name":"x"}'
    subprocess.run([submit, "-p", str(site.server.port), "-b", "-f", "job", typed], check=True, timeout=30)
    worker.wait_for("result 200 OK", 2)
    assert '{"a": 1, "name": "\\u4e2d\\u6587", "nested": {"x": [1, 2]}}' in worker.log
    assert '{"name": "x"}' in worker.log


def test_an_unreadable_payload_runs_nothing_is_kept_and_the_worker_goes_on(busy: Bench) -> None:
    from gearwsgi.address import parse_address
    from gearwsgi.wire import connection

    [worker] = busy.workers
    connection = connection.Connection(parse_address(busy.server.address), 5)
    for payload in (b"rubbish", b"\x00\x01", b'{"service":', b'{"no":"service"}', b"GET / HTTP/9.9\r\n\r\n", b"\n"):
        connection.send(packets.pack_submit("job", "", payload), 5)
        connection.expect(packets.JOB_CREATED, 10)
    connection.close()
    busy.app().gearman.task("/good", {"n": "after"})
    until(lambda: "good after 1" in busy.lines())
    worker.wait_for(" dead ", 6)
    letters = busy.dead()
    assert len(letters) == 6 and all(letter["reason"] for letter in letters)
    assert busy.lines() == ["good after 1"]


def test_call_answers_the_whole_response(busy: Bench) -> None:
    gearman = busy.app().gearman
    headers = [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"], ["Location", "/relative"]]
    response = gearman.call("/status", {"status": "307 Odd Reason", "headers": headers}, timeout=60)
    assert response.status == "307 Odd Reason"
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert response.headers["Location"] == "/relative"
    assert response.body == b"the body of 307 Odd Reason"
    assert gearman.call("/boom", timeout=60).status_int == 500
    assert gearman.call("/exit", timeout=60).status_int == 502
    assert gearman.call("/good", {"n": 1}, timeout=60).json == {"n": 1}
    assert not list(busy.state_dir.glob("dead/*.http"))


def test_call_ends_with_its_timeout_where_nobody_works(site: Bench) -> None:
    with pytest.raises(CallTimeout) as raised:
        site.app().gearman.call("/good", timeout=0.1)
    # The traceback holds the frame that held the connection: closed, not left to a garbage collection.
    assert not _open_connections(raised.value)


def test_call_whose_message_is_refused_says_where_the_reason_is(site: Bench) -> None:
    site.worker("--workers", "1", env={"GEARWSGI_SECRET_KEYS": "k" * 32})
    with pytest.raises(CallFailed, match=r"refused by the worker; .*dead list") as raised:
        site.app().gearman.call("/good", timeout=60)
    assert not _open_connections(raised.value)
    assert "signature" in site.run("dead", "list").stdout
    assert not site.lines()


def _open_connections(error: BaseException) -> list[connection.Connection]:
    """The connections that an error's traceback still holds open."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    held = [value for frame in frames for value in frame.f_locals.values() if isinstance(value, connection.Connection)]
    assert held
    return [connection for connection in held if connection._socket.fileno() != -1]


def test_status_follows_a_task_from_the_queue_to_its_end(site: Bench) -> None:
    gearman = site.app().gearman
    file = site.folder / "go-on"
    task = gearman.task("/progress", {"file": str(file)})
    assert str(gearman.status(task)) == "queued"
    site.worker("--workers", "1")
    until(lambda: str(gearman.status(task)) == "running 3 of 10")
    assert str(gearman.status(task.handle)) == str(gearman.status(task.id)) == "running 3 of 10"
    file.touch()
    until(lambda: str(gearman.status(task)) == "done")


def test_status_by_id_knows_a_task_that_waits_for_its_next_attempt(site: Bench) -> None:
    gearman = site.app().gearman
    task = gearman.task("/retry", {"delay": 3600})
    assert str(gearman.status(task.id)) == "queued"
    site.worker("--workers", "1").wait_for("attempt 2 of 5 in 3600")
    until(lambda: str(gearman.status(task.handle)) == "unknown")
    assert str(gearman.status(task.id)) == "retrying"


def test_a_unique_is_dropped_while_the_first_one_is_queued_or_runs(site: Bench) -> None:
    gearman = site.app().gearman
    file = site.folder / "go-on"
    first = gearman.task("/until", {"n": "u", "file": str(file)}, unique="the-same")
    assert gearman.task("/until", {"n": "u", "file": str(file)}, unique="the-same").handle == first.handle
    site.worker("--workers", "2")
    until(lambda: "until u 1" in site.lines())
    assert gearman.task("/until", {"n": "u", "file": str(file)}, unique="the-same").handle == first.handle
    file.touch()
    until(lambda: site.server.queued() == 0)
    assert gearman.task("/until", {"n": "u", "file": str(file)}, unique="the-same").handle != first.handle
    until(lambda: site.runs()["until u 1"] == 2)


def test_high_runs_before_normal_before_low(site: Bench) -> None:
    gearman = site.app().gearman
    for n, priority in enumerate(["low", "normal", "high", "low", "normal", "high"]):
        gearman.task("/good", {"n": f"{priority}{n}"}, priority=priority)
    site.worker("--workers", "1", "--burst")
    until(lambda: len(site.lines()) == 6)
    assert [line.split()[1] for line in site.lines()] == ["high2", "high5", "normal1", "normal4", "low0", "low3"]


def test_a_job_server_started_again_between_two_tasks_costs_nothing(site: Bench) -> None:
    gearman = site.app().gearman
    site.server.stop()
    site.server.start()
    gearman.task("/good", {"n": "before"})
    site.server.stop()
    site.server.start()
    task = gearman.task("/good", {"n": "after"})
    assert task.handle
    site.worker("--workers", "1")
    until(lambda: "good after 1" in site.lines())
    assert site.runs()["good after 1"] == 1


BAD = [
    (("nowhere",), {}, UnknownService, "aliases"),
    (("http://elsewhere/x",), {}, UnknownService, "unknown service"),
    (("/x", {1, 2}), {}, InvalidTask, "JSON"),
    (("/x", float("nan")), {}, InvalidTask, "JSON"),
    (("/x\r\nA: b",), {}, InvalidTask, "control"),
    (("/x\x00",), {}, InvalidTask, "control"),
    (("GE T /x",), {}, InvalidTask, "unknown service"),
    (("/x",), {"method": "G\r\nET"}, InvalidTask, "token"),
    (("/x",), {"headers": {"A": "b\r\nC: d"}}, InvalidTask, "control"),
    (("/x",), {"headers": {"A b": "c"}}, InvalidTask, "token"),
    (("/x",), {"headers": {"Content-Length": "3"}}, InvalidTask, "Content-Length"),
    (("/x",), {"headers": {"transfer_encoding": "chunked"}}, InvalidTask, "transfer_encoding"),
    (("/x",), {"headers": {"X-Gearman-Attempt": "9"}}, InvalidTask, "reserved"),
    (("/x",), {"form": {"a": "b"}, "body": b"c"}, InvalidTask, "together"),
    (("/x",), {"body": "text"}, InvalidTask, "bytes"),
    (("/x",), {"body": b"x", "content_type": "a\nb"}, InvalidTask, "control"),
    (("/x",), {"unique": "u" * 64}, InvalidTask, "63"),
    (("/x",), {"unique": "a\0b"}, InvalidTask, "unique"),
    (("/x",), {"queue": "a\nb"}, InvalidTask, "queue"),
    (("/x",), {"priority": "urgent"}, InvalidTask, "high, normal, low"),
    (("/x",), {"delay": -1}, InvalidTask, "delay"),
    (("/x",), {"max_attempts": 0}, InvalidTask, "max_attempts"),
    (("/x",), {"after_response": True}, InvalidTask, "without a request"),
]


@pytest.mark.parametrize(("arguments", "keywords", "error", "says"), BAD)
def test_bad_input_is_a_clear_error_and_submits_nothing(
    embedded_site_for_bad_input: Bench, arguments: tuple[object, ...], keywords: dict, error: type, says: str
) -> None:
    site = embedded_site_for_bad_input
    with pytest.raises(error, match=says):
        site.app(tasks={"known": "/known"}).gearman.task(*arguments, **keywords)
    assert site.server.admin("status") == []
    assert not list(site.state_dir.rglob("*.http"))


@pytest.fixture(scope="module")
def embedded_site_for_bad_input():
    from tests.support import bench

    with bench("embedded") as made:
        yield made


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("nomodule:application", "importing nomodule failed"),
        ("kitchen:nothing", "has no 'nothing'"),
        ("kitchen:app", "no GearmanMiddleware"),
        ("not a path", "module:name"),
        ("broken:application", "ZeroDivisionError"),
    ],
)
def test_an_application_that_cant_be_loaded_stops_the_start(embedded_site: Bench, app: str, says: str) -> None:
    (embedded_site.folder / "broken.py").write_text("1/0\n")
    worker = embedded_site.start_worker(app=app)
    assert worker.process.wait(60) == 4
    assert says in worker.log


def test_several_slots_never_glue_two_lines_of_the_log(site: Bench) -> None:
    worker = site.worker("--workers", "4")
    gearman = site.app().gearman
    for n in range(400):
        gearman.task("/print", {"n": n})
    worker.wait_for("result 200 OK", 400)
    for line in worker.log.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} \S", line), line
        handle = line.split(" ")[3]
        assert handle == "worker" or handle.startswith("H:"), line
    assert worker.log.count("| printed by the handler\n") == 400
    assert worker.log.count("| half a lineto wsgi.errors\n") + worker.log.count("| to wsgi.errors\n") == 400


SERVE = """
import sys, threading
from kitchen import application
from waitress import serve
serve(application, host="127.0.0.1", port=int(sys.argv[1]), threads=8)
"""


def _fetch_all(port: int, count: int, threads: int) -> None:
    import http.client

    failures: list[BaseException] = []

    def fetch(share: int) -> None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for n in range(share, count, threads):
                connection.request("GET", f"/queue?{n}")
                response = connection.getresponse()
                assert response.status == 200 and response.read()
            connection.close()
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=fetch, args=(share,)) for share in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failures, failures[0]


def _port_answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Each job server, and each server of the web: neither knows of the other.
@pytest.mark.parametrize(("site", "web"), [("embedded", "waitress"), ("gearmand", "gunicorn")], indirect=["site"])
def test_thousands_of_tasks_from_threads_and_forks_run_exactly_once(site: Bench, web: str) -> None:
    count = 2500
    port = free_port()
    if web == "waitress":
        command = [sys.executable, "-c", SERVE, str(port)]
    else:
        command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "--threads", "4"]
        command += ["-b", f"127.0.0.1:{port}", "kitchen:application"]
    with (site.folder / "web.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=site.folder, env={**os.environ, **site.env}, stdout=log, stderr=log)
    try:
        until(lambda: _port_answers(port), (site.folder / "web.log").read_text())
        site.worker("--workers", "2", "--log-level", "warning")
        _fetch_all(port, count, 8)
        until(lambda: len(site.lines()) >= count)
    finally:
        server.terminate()
        server.wait(30)
    until(lambda: site.server.queued() == 0)
    assert site.runs() == {f"good {n} 1": 1 for n in range(count)}


def test_without_a_job_server_the_outbox_takes_it_or_an_error_is_raised(embedded_site: Bench) -> None:
    embedded_site.server.stop()
    task = embedded_site.app().gearman.task("/good")
    assert str(task) == "" and len(list(embedded_site.state_dir.glob("outbox/*.http"))) == 1
    with pytest.raises(ServerUnavailable):
        embedded_site.app(on_unavailable="raise").gearman.task("/good")


def test_closing_waits_for_the_relay_and_leaves_no_connection_open(embedded_site: Bench) -> None:
    server = embedded_site.server
    client = embedded_site.app(connect_timeout=30).client
    client.outbox.put(Submission("job", "u", b"GET /good HTTP/1.1\r\n\r\n", id="a" * 32))
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    closing = threading.Thread(target=client.close)
    try:
        client._start_relay()
        relay = client._relay
        assert relay is not None
        until(lambda: "_created" in _frames(relay._thread))  # sent, and waiting for its JOB_CREATED
        closing.start()
        until(relay._stop.is_set)
    finally:
        server.process.send_signal(signal.SIGCONT)
    closing.join()
    assert server.queued() == 1
    assert not client.servers._all[0].idle


def _frames(thread: threading.Thread | None) -> list[str]:
    """The functions that a thread is in."""
    assert thread is not None and thread.ident is not None
    frame = sys._current_frames().get(thread.ident)
    return [each.f_code.co_name for each, _ in traceback.walk_stack(frame)] if frame else []


def test_send_and_status_work_from_a_shell(site: Bench) -> None:
    handle = site.run("send", "default.index", '{"name":"x"}').stdout.strip()
    assert handle.startswith("H:")
    site.run("send", "/good", "-", "--queue", "mail", input='{"n": "stdin"}')
    shown = site.run("status").stdout
    assert "job" in shown and "mail" in shown and site.server.address in shown
    site.worker("--workers", "1", "--queues", "mail")
    until(lambda: "good stdin 1" in site.lines())
    until(lambda: "idle" in site.told())
    assert "idle" in site.run("status").stdout
    failed = site.run("send", "nowhere", ok=False)
    assert failed.returncode == 3 and "unknown service" in failed.stderr and "Traceback" not in failed.stderr


def test_the_supervisor_starts_the_embedded_server_and_ends_it(embedded_site: Bench) -> None:
    site = embedded_site
    port = free_port()
    env = {"GEARMAN_SERVERS": f"embedded://127.0.0.1:{port}"}
    worker = site.worker("--workers", "1", env=env)
    site.app(servers=env["GEARMAN_SERVERS"]).gearman.task("/good", {"n": "embedded"})
    until(lambda: "good embedded 1" in site.lines())
    assert worker.stop() == 0
    until(lambda: not _port_answers(port))


def test_something_else_on_the_embedded_servers_port_is_said(embedded_site: Bench) -> None:
    import socket

    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        worker = embedded_site.start_worker(env={"GEARMAN_SERVERS": f"embedded://127.0.0.1:{port}"})
        assert worker.process.wait(60) == 3
    assert "does not speak Gearman" in worker.log and "Traceback" not in worker.log


def test_a_gearman_server_on_the_embedded_servers_port_is_used(site: Bench) -> None:
    worker = site.worker("--workers", "1", env={"GEARMAN_SERVERS": f"embedded://{site.server.address}"})
    assert "embedded job server started" not in worker.log
    site.app().gearman.task("/good", {"n": "used"})
    until(lambda: "good used 1" in site.lines())
    assert worker.stop() == 0
    assert site.server.answers()

"""`gearwsgi worker --metrics`: numbers that are equal to what was run, whatever happens meanwhile."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter

import pytest

from tests.integration.telemetry.scrape import Scraper
from tests.support import Bench, Worker, free_port, until


def kill_one(worker: Worker) -> bool:
    """SIGKILL to a worker process; False where those that are known are gone."""
    for pid in worker.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


FAST = json.dumps({"backoff_min": 0, "backoff_max": 0.1, "tasks": {"welcome": "/good"}})


def test_numbers_are_those_of_what_was_run_over_reloads_kills_and_restarts(site: Bench) -> None:
    app = site.app(tasks={"welcome": "/good"})
    task = app.gearman.task
    scraper = Scraper(site, "--workers", "2", SETTINGS=FAST)
    for number in range(30):
        task("welcome", {"n": number})
    task("flaky.app", {"good": 3}, method="POST")
    task("/boom", {}, max_attempts=2)
    task("/kill", {}, max_attempts=2)
    task("/status", {"status": "400 Bad Request"})
    scraper.until(30, "gearwsgi_jobs_total", service="welcome", outcome="done")
    scraper.until(1, "gearwsgi_jobs_total", service="flaky.app", outcome="dead")
    scraper.until(3, "gearwsgi_jobs_total", service="other", outcome="dead")
    assert scraper.sum("gearwsgi_jobs_total", service="other", outcome="retried") == 2
    assert scraper.sum("gearwsgi_worker_exits_total", reason="killed") == 2
    scraper.until(4, "gearwsgi_dead_letters")

    scraper.worker.signal(signal.SIGHUP)
    scraper.worker.wait_for("worker ready", 2)
    site.server.restart()
    task("welcome", {"n": "after"})
    scraper.until(31, "gearwsgi_jobs_total", service="welcome", outcome="done")
    scraper.until(2, "gearwsgi_worker_exits_total", reason="stopped")
    # What the status file says of them may be a second old: until it was one of those that work now.
    until(lambda: kill_one(scraper.worker) and scraper.sum("gearwsgi_worker_exits_total", reason="killed") > 2)

    attempts = scraper.sum("gearwsgi_jobs_total")
    assert attempts == len(site.lines())
    assert scraper.sum("gearwsgi_job_duration_seconds_count") == attempts
    assert scraper.sum("gearwsgi_job_wait_seconds_count") == attempts
    runs = Counter(line.split()[0] for line in site.lines())
    assert runs == {"good": 31, "flaky_app": 1, "boom": 2, "kill": 2, "status": 1}


def test_queues_are_told_as_the_job_server_has_them(site: Bench) -> None:
    gate = site.folder / "gate"
    app = site.app()
    scraper = Scraper(site, "--workers", "1")
    app.gearman.task("/until", {"file": str(gate)})
    scraper.until(1, "gearwsgi_jobs_running")
    app.gearman.task("/good")
    app.gearman.task("/good", queue="nobody")
    app.gearman.task("/good", delay=3600)
    scraper.until(1, "gearwsgi_queue_jobs", queue="job", state="running")
    scraper.until(1, "gearwsgi_queue_jobs", queue="nobody", state="waiting")
    # gearmand does not tell a delayed job from one that waits.
    own = site.server.kind == "embedded"
    scraper.until(1 if own else 2, "gearwsgi_queue_jobs", queue="job", state="waiting")
    assert scraper.sum("gearwsgi_queue_jobs", queue="job", state="delayed") == (1 if own else 0)
    until(lambda: scraper.sum("gearwsgi_queue_oldest_seconds", queue="job") > 1, pause=0.1)
    until(lambda: scraper.sum("gearwsgi_queue_oldest_seconds", queue="nobody") > 1, pause=0.1)
    assert scraper.sum("gearwsgi_workers", state="busy") == 1
    assert scraper.sum("gearwsgi_queue_paused", queue="job") == 0
    gate.touch()
    scraper.until(0, "gearwsgi_jobs_running")
    # An idle worker shows that what is left is delayed.
    scraper.until(0, "gearwsgi_queue_oldest_seconds", queue="job")
    site.run("pause", "job")
    scraper.until(1, "gearwsgi_queue_paused", queue="job")
    app.gearman.task("/good")
    scraper.until(2, "gearwsgi_queue_jobs", queue="job")
    until(lambda: scraper.sum("gearwsgi_queue_oldest_seconds", queue="job") > 1, pause=0.1)
    site.run("resume", "job")
    scraper.until(0, "gearwsgi_queue_paused", queue="job")
    scraper.until(3, "gearwsgi_jobs_total", outcome="done")


def test_a_job_server_that_is_away_or_hangs_is_told_and_holds_no_scrape_up(site: Bench) -> None:
    scraper = Scraper(site, "--workers", "1")
    scraper.until(1, "gearwsgi_server_up", server=site.server.address)
    until(lambda: scraper.get("/readyz") == (200, "ok\n"))
    assert site.server.process is not None
    site.server.process.send_signal(signal.SIGSTOP)
    try:
        scraper.until(0, "gearwsgi_server_up", server=site.server.address)
        until(lambda: scraper.get("/readyz")[0] == 503)
    finally:
        site.server.process.send_signal(signal.SIGCONT)
    scraper.until(1, "gearwsgi_server_up", server=site.server.address)
    site.server.kill()
    scraper.until(0, "gearwsgi_server_up", server=site.server.address)
    site.app().gearman.task("/good")
    scraper.until(1, "gearwsgi_outbox_messages")
    assert scraper.get("/livez") == (200, "ok\n")
    assert scraper.get("/readyz") == (503, "no job server answers\n")
    site.server.start()
    scraper.until(1, "gearwsgi_jobs_total", outcome="done")
    scraper.until(0, "gearwsgi_outbox_messages")


def test_a_scraper_that_never_reads_holds_nobody_up_and_the_names_pass_promtool(embedded_site: Bench) -> None:
    gate = embedded_site.folder / "gate"
    scraper = Scraper(embedded_site, "--workers", "1", "--graceful-timeout", "60")
    slow = [socket.create_connection(("127.0.0.1", scraper.port)) for _ in range(20)]
    for each in slow:
        each.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"\r\n" * (each is slow[0]))
    assert scraper.get("/livez") == (200, "ok\n")
    assert scraper.get("/other")[0] == 404
    shown = scraper.get("/metrics")[1]
    for each in slow:
        each.close()
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = subprocess.run([promtool, "check", "metrics"], input=shown, capture_output=True, text=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    embedded_site.app().gearman.task("/until", {"file": str(gate)})
    scraper.until(1, "gearwsgi_jobs_running")
    scraper.worker.signal(signal.SIGTERM)
    until(lambda: scraper.get("/readyz") == (503, "the workers are not ready\n"))
    assert scraper.get("/livez")[0] == 200
    gate.touch()
    assert scraper.worker.process.wait(60) == 0


FLASK = """
import flask, os, signal
from gearwsgi import GearmanMiddleware
app = flask.Flask(__name__)
app.wsgi_app = GearmanMiddleware(app.wsgi_app)

@app.post("/orders/<int:order>")
def order(order):
    if order == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return "ok"
"""


def test_a_path_is_told_by_the_pattern_of_its_route_in_the_framework(embedded_site: Bench) -> None:
    (embedded_site.folder / "shop.py").write_text(FLASK)
    scraper = Scraper(embedded_site, "--workers", "1", app="shop:app")
    gearman = embedded_site.app().gearman
    for order in range(4):
        gearman.task(f"/orders/{order}?paid=1", max_attempts=1)
    gearman.task("/nowhere/7", max_attempts=1)
    scraper.until(3, "gearwsgi_jobs_total", service="/orders/<int:order>", outcome="done")
    scraper.until(1, "gearwsgi_jobs_total", service="/orders/<int:order>", outcome="dead")
    scraper.until(1, "gearwsgi_jobs_total", service="other", outcome="dead")
    assert {said["service"] for _, said, _ in scraper.samples() if "service" in said} == {
        "/orders/<int:order>",
        "other",
    }


def test_metrics_that_cant_be_served_end_the_command_and_say_why(embedded_site: Bench) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        done = embedded_site.run("worker", "kitchen:application", "--metrics", str(port), ok=False)
    assert done.returncode == 3
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
    (embedded_site.folder / "prometheus_client.py").write_text("raise ImportError('no prometheus_client here')\n")
    done = embedded_site.run("worker", "kitchen:application", "--metrics", "127.0.0.1:0", ok=False)
    assert done.returncode == 3
    assert "pip install 'gearwsgi[metrics]'" in done.stderr


@pytest.mark.parametrize("given", ["nonsense:port", "127.0.0.1", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused_by_the_command(embedded_site: Bench, given: str) -> None:
    assert embedded_site.run("worker", "kitchen:application", "--metrics", given, ok=False).returncode == 2

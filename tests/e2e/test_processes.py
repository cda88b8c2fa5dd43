"""Workers that nothing can break: a job's death, time limits, signals, recycling. Real processes, real signals."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import kinds, require
from tests.support import Bench, JobServer, Spares, free_port, until

POISONS = ["exit", "kill", "segfault", "sysexit", "corrupt", "scribble", "closefds", "boom"]


@pytest.fixture(scope="module", params=kinds("poison"))
def poisoned(request: pytest.FixtureRequest, spares: Spares) -> Iterator[Bench]:
    """A bench with a worker of two processes, which each poison has to leave as it was."""
    require(request.param)
    with spares.bench(request.param) as made:
        made.worker("--workers", "2", "--log-level", "warning")
        yield made


@pytest.mark.parametrize("poison", POISONS)
def test_a_poison_job_runs_max_attempts_times_and_good_jobs_beside_it_once(poisoned: Bench, poison: str) -> None:
    site = poisoned
    gearman = site.app().gearman
    for n in range(100):
        gearman.task("/good", {"n": f"{poison}{n}"})
        if n % 20 == 0:
            gearman.task(f"/{poison}", {"n": f"p{n}"}, max_attempts=3)
    until(lambda: [letter["service"] for letter in site.dead()].count(f"/{poison}") == 5)
    until(lambda: site.server.queued() == 0)
    runs = site.runs()
    assert {line: times for line, times in runs.items() if line.startswith(f"good {poison}")} == {
        f"good {poison}{n} 1": 1 for n in range(100)
    }
    poisons = {line: times for line, times in runs.items() if line.startswith(poison)}
    assert poisons == {f"{poison} p{n} {attempt}": 1 for n in range(0, 100, 20) for attempt in (1, 2, 3)}


def test_a_death_is_told_in_words(busy: Bench) -> None:
    for service in ("/exit", "/kill", "/segfault", "/sysexit"):
        busy.app().gearman.task(service, max_attempts=1)
    letters = busy.dead(4)
    assert len(letters) == 4
    reasons = {letter["service"]: letter["reason"] for letter in letters}
    assert reasons["/exit"].startswith("exited with code 3 after")
    assert reasons["/kill"].startswith("killed by SIGKILL (out of memory?) after")
    assert reasons["/segfault"].startswith("killed by SIGSEGV after")
    assert reasons["/sysexit"].startswith("SystemExit: 3 from POST /sysexit")


def test_the_copy_of_a_handler_that_forks_answers_nothing(busy: Bench) -> None:
    [worker] = busy.workers
    for n in range(20):
        busy.app().gearman.task("/fork", {"n": n})
    worker.wait_for("result 200 OK", 20)
    until(lambda: busy.server.queued() == 0)
    assert busy.runs() == {f"fork {n} 1": 1 for n in range(20)}


def test_a_time_limit_lets_finally_run_and_counts_as_a_failed_attempt(site: Bench) -> None:
    site.worker("--workers", "1", "--timeout", "0.3")
    site.app().gearman.task("/finally", {"n": "f"}, max_attempts=2)
    [letter] = site.dead(1)
    assert site.lines() == ["finally f 1", "finally f", "finally f 2", "finally f"]
    assert "timed out after 0.3 s" in letter["reason"]


def test_a_handler_that_uses_the_alarm_itself_has_its_time_limit_all_the_same(site: Bench) -> None:
    site.worker("--workers", "1", "--timeout", "0.3")
    site.app().gearman.task("/alarm", {"n": "a"}, max_attempts=1)
    [letter] = site.dead(1)
    assert site.lines() == ["alarm a 1", "finally a"]
    assert letter["reason"].startswith("timed out after 0.3 s")


@pytest.mark.parametrize("service", ["/deaf", "/ccode"])
def test_what_does_not_end_at_its_time_limit_is_killed(busy: Bench, service: str) -> None:
    busy.app().gearman.task(service, {"n": "d"}, max_attempts=1, timeout=0.2)
    busy.app().gearman.task("/good", {"n": "after"})
    [letter] = busy.dead(1)
    until(lambda: "good after 1" in busy.lines())
    assert "killed by SIGKILL: it did not end at its time limit" in letter["reason"]


def test_a_call_that_runs_over_its_time_gets_504(site: Bench) -> None:
    site.worker("--workers", "1", env={"SETTINGS": '{"tasks": {"slow": {"target": "/finally", "timeout": 0.2}}}'})
    assert site.app(tasks={"slow": "/finally"}).gearman.call("slow").status_int == 504


def test_a_call_gets_no_response_that_is_longer_than_a_message_may_be(site: Bench) -> None:
    worker = site.worker("--workers", "1", env={"SETTINGS": '{"max_body": 100000}'})
    gearman = site.app(max_body=100000).gearman
    response = gearman.call("/big", {"megabytes": 1})
    assert response.status_int == 502 and "bytes is over max_body=100000" in response.text
    gearman.task("/good", {"n": "after"})
    until(lambda: "good after 1" in site.lines())
    assert worker.stop() == 0


def test_term_finishes_what_runs_and_leaves_the_rest_in_the_queue(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    gearman = site.app().gearman
    file = site.folder / "go-on"
    gearman.task("/until", {"n": "running", "file": str(file)})
    until(lambda: "until running 1" in site.lines())
    for n in range(20):
        gearman.task("/good", {"n": n})
    worker.signal(signal.SIGTERM)
    worker.wait_for("draining")
    file.touch()
    assert worker.process.wait(60) == 0
    assert site.lines() == ["until running 1", "until-done running"]
    assert site.server.queued() == 20
    assert not site.dead()


def test_term_amid_short_jobs_runs_each_once_all_told(site: Bench) -> None:
    gearman = site.app().gearman
    for n in range(3000):
        gearman.task("/good", {"n": n})
    worker = site.worker("--workers", "2", "--log-level", "warning")
    until(lambda: len(site.lines()) > 100)
    assert worker.stop() == 0
    ran = len(site.lines())
    until(lambda: site.server.queued() == 3000 - ran)
    assert site.worker("--workers", "2", "--burst", "--log-level", "warning").process.wait(60) == 0
    assert site.runs() == {f"good {n} 1": 1 for n in range(3000)}


@pytest.mark.parametrize("how", ["second signal", "graceful time-out"])
def test_a_stop_by_force_leaves_its_job_in_the_queue_and_makes_no_dead_letter(site: Bench, how: str) -> None:
    worker = site.worker("--workers", "1", "--graceful-timeout", "0.5" if how == "graceful time-out" else "60")
    site.app().gearman.task("/until", {"n": "cut", "file": "/nonexistent"})
    until(lambda: "until cut 1" in site.lines())
    worker.signal(signal.SIGTERM)
    worker.wait_for("draining")
    if how == "second signal":
        worker.signal(signal.SIGTERM)
    assert worker.process.wait(60) == 5
    until(lambda: site.server.queued() == 1)
    assert not site.dead() and not list(site.state_dir.glob("outbox/*.http"))


def test_hup_brings_new_code_to_all_slots_and_loses_and_doubles_nothing(site: Bench) -> None:
    version = site.folder / "version.py"
    version.write_text("VERSION = 1\n")
    kitchen = site.folder / "kitchen.py"
    kitchen.write_text("import version\n" + kitchen.read_text())
    worker = site.worker("--workers", "2", "--log-level", "warning", env={"PYTHONDONTWRITEBYTECODE": "1"})
    gearman = site.app().gearman
    for n in range(600):
        gearman.task("/version", {"n": n})
        if n == 300:
            version.write_text("VERSION = 22\n")
            worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    until(lambda: site.server.queued() == 0)
    ran = [line.split()[1:] for line in site.lines() if line.startswith("ran-version")]
    assert Counter(n for _, n in ran) == {str(n): 1 for n in range(600)}
    assert {code for code, _ in ran} <= {"1", "22"}
    until(lambda: site.server.workers() == 2)
    gearman.task("/version", {"n": "new"})
    until(lambda: "ran-version 22 new" in site.lines())
    assert worker.stop() == 0


def test_hup_amid_the_first_load_loads_the_new_code(embedded_site: Bench) -> None:
    folder = embedded_site.folder
    (folder / "version.py").write_text("VERSION = 1\n")
    kitchen = folder / "kitchen.py"
    wait = f"""
import pathlib, time, version
pathlib.Path({str(folder)!r}, f"loading-{{version.VERSION}}").touch()
while not pathlib.Path({str(folder)!r}, "go-on").exists():
    time.sleep(0.01)
"""
    kitchen.write_text(wait + kitchen.read_text())
    worker = embedded_site.start_worker("--workers", "1", env={"PYTHONDONTWRITEBYTECODE": "1"})
    until((folder / "loading-1").exists)
    (folder / "version.py").write_text("VERSION = 22\n")
    worker.signal(signal.SIGHUP)
    until((folder / "loading-22").exists)
    (folder / "go-on").touch()
    worker.ready()
    embedded_site.app().gearman.task("/version", {"n": "new"})
    until(lambda: "ran-version 22 new" in embedded_site.lines())
    assert worker.log.count("worker ready") == 1
    assert worker.stop() == 0


def test_hup_before_the_supervisor_listens_does_not_end_it() -> None:
    code = """
import os, signal, sys
from gearwsgi.cli import cli
cli.get_command(None, "worker")
os.kill(os.getpid(), signal.SIGHUP)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_hup_amid_a_long_job_lets_it_end_on_the_old_code(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    gearman = site.app().gearman
    file = site.folder / "go-on"
    gearman.task("/until", {"n": "old", "file": str(file)})
    until(lambda: "until old 1" in site.lines())
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    gearman.task("/good", {"n": "new"})
    until(lambda: "good new 1" in site.lines())
    file.touch()
    until(lambda: "until-done old" in site.lines())
    until(lambda: site.server.queued() == 0)
    assert site.runs()["until old 1"] == 1
    until(lambda: site.server.workers() == 1)
    assert worker.stop() == 0


def test_hup_with_code_that_cant_be_imported_keeps_the_old_code(site: Bench) -> None:
    worker = site.worker("--workers", "1", env={"PYTHONDONTWRITEBYTECODE": "1"})
    kitchen = site.folder / "kitchen.py"
    code = kitchen.read_text()
    kitchen.write_text("1/0  # broken on purpose\n" + code)
    worker.signal(signal.SIGHUP)
    worker.wait_for("reload failed, the old code goes on")
    assert "ZeroDivisionError" in worker.log
    site.app().gearman.task("/good", {"n": "still"})
    until(lambda: "good still 1" in site.lines())
    kitchen.write_text(code)
    worker.signal(signal.SIGHUP)
    worker.wait_for("worker ready", 2)
    assert worker.stop() == 0


def test_ttin_and_ttou_add_and_take_a_worker(site: Bench) -> None:
    worker = site.worker("--workers", "2")
    until(lambda: site.server.workers() == 2)
    worker.signal(signal.SIGTTIN)
    until(lambda: site.server.workers() == 3)
    worker.signal(signal.SIGTTOU)
    until(lambda: site.server.workers() == 2)
    worker.signal(signal.SIGTTOU)
    until(lambda: site.server.workers() == 1)
    worker.signal(signal.SIGTTOU)
    worker.wait_for("1 worker wanted", 2)
    assert site.server.workers() == 1
    assert worker.stop() == 0


@pytest.mark.parametrize("service", ["/until", "/ccode"])
def test_a_supervisor_that_is_killed_takes_its_children_with_it(site: Bench, service: str) -> None:
    worker = site.worker("--workers", "2")
    site.app().gearman.task(service, {"n": "held", "file": "/nonexistent"})
    until(lambda: len(site.lines()) == 1)
    children = until(worker.children)
    os.kill(worker.pid, signal.SIGKILL)
    worker.process.wait()
    for child in children:
        until(lambda child=child: not os.path.exists(f"/proc/{child}"), f"the end of {child}")
    until(lambda: site.server.queued() == 1)


def test_a_fork_server_that_is_killed_is_replaced(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    [child] = until(worker.children)
    forkserver = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(forkserver, signal.SIGKILL)
    worker.wait_for("worker ready", 2)
    site.app().gearman.task("/good", {"n": "again"})
    until(lambda: "good again 1" in site.lines())
    assert worker.stop() == 0


def test_a_process_is_replaced_after_max_jobs(site: Bench) -> None:
    gearman = site.app().gearman
    for n in range(50):
        gearman.task("/pid", {"n": n})
    worker = site.worker("--workers", "1", "--max-jobs", "5")
    worker.wait_for("result 200 OK", 50)
    pids = Counter(line for line in site.lines() if line.startswith("pid ") and line.count(" ") == 1)
    assert len(pids) == 10 and set(pids.values()) == {5}
    assert {line: n for line, n in site.runs().items() if line.count(" ") == 2} == {f"pid {n} 1": 1 for n in range(50)}


def test_a_process_that_has_grown_over_max_rss_is_replaced_after_its_job(site: Bench) -> None:
    worker = site.worker("--workers", "1", "--max-rss", "300")
    for n in range(3):
        site.app().gearman.task("/grow", {"n": n, "megabytes": 300})
        site.app().gearman.task("/pid", {"n": n})
    worker.wait_for("result 200 OK", 6)
    worker.wait_for("over --max-rss 300, and is replaced", 2)
    pids = {line for line in site.lines() if line.startswith("pid ") and line.count(" ") == 1}
    assert len(pids) == 3


def test_without_preload_each_process_loads_the_application(site: Bench) -> None:
    kitchen = site.folder / "kitchen.py"
    kitchen.write_text(kitchen.read_text() + "\nrecord(f'loaded {os.getpid()}')\n")
    worker = site.worker("--workers", "2", "--no-preload")
    until(lambda: len({line for line in site.lines() if line.startswith("loaded")}) >= 3)
    site.app().gearman.task("/exit", max_attempts=1)
    site.app().gearman.task("/good", {"n": "x"})
    until(lambda: "good x 1" in site.lines())
    assert worker.stop() == 0


def test_reserved_workers_keep_a_queue_served(site: Bench) -> None:
    worker = site.worker("--workers", "3", "--queues", "mail:2,reports:1")
    until(lambda: site.server.workers("mail") == 2 and site.server.workers("reports") == 1)
    gearman = site.app().gearman
    for n in range(4):
        gearman.task("/until", {"n": n, "file": str(site.folder / "go-on")}, "mail")
    gearman.task("/good", {"n": "report"}, "reports")
    until(lambda: "good report 1" in site.lines())
    (site.folder / "go-on").touch()
    worker.wait_for("result 200 OK", 5)


def test_gearmand_that_is_down_at_start_and_later_is_waited_for(site: Bench) -> None:
    site.server.stop()
    worker = site.start_worker("--workers", "2")
    worker.wait_for("is gone, trying again")
    site.server.start()
    worker.wait_for("is back")
    until(lambda: site.server.workers() == 2)
    site.app().gearman.task("/good", {"n": "one"})
    until(lambda: "good one 1" in site.lines())
    site.server.kill()
    worker.wait_for("is gone, trying again", 2)
    site.server.start()
    worker.wait_for("is back", 2)
    site.app().gearman.task("/good", {"n": "two"})
    until(lambda: "good two 1" in site.lines())
    assert worker.log.count("is gone, trying again") == 2 and worker.log.count("is back") == 2
    assert worker.stop() == 0


def test_every_slot_serves_all_servers_and_one_that_is_down_hurts_none(site: Bench) -> None:
    second = JobServer(site.server.kind, site.folder / "second").start()
    nobody = free_port()
    servers = f"127.0.0.1:{nobody},{site.server.address},{second.address}"
    try:
        worker = site.worker("--workers", "1", env={"GEARMAN_SERVERS": servers})
        until(lambda: site.server.workers() == 1 and second.workers() == 1)
        for n in range(30):
            site.app(servers=[site.server.address, second.address][n % 2]).gearman.task("/good", {"n": n})
        worker.wait_for("result 200 OK", 30)
        assert site.runs() == {f"good {n} 1": 1 for n in range(30)}
        gearman = site.app(servers=servers).gearman
        for n in range(30, 60):
            assert gearman.task("/good", {"n": n}).handle
        worker.wait_for("result 200 OK", 60)
        assert worker.stop() == 0
    finally:
        second.stop()


def test_a_server_that_falls_silent_is_noticed(embedded_site: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that stops passing anything on stands for a connection that has died without a word."""
    site = embedded_site
    proxy = _Proxy(site.server.port)
    code = (
        "from gearwsgi.worker import session; session.ECHO_AFTER, session.DEAD_AFTER = 1.0, 2.5\n"
        "from gearwsgi.cli import main; main()"
    )
    (site.folder / "quick.py").write_text(code)
    import subprocess
    import sys

    log = (site.folder / "worker-quick.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "quick.py", "worker", "kitchen:application", "--workers", "1"],
        cwd=site.folder, env={**os.environ, **site.env, "GEARMAN_SERVERS": f"127.0.0.1:{proxy.port}"},
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        until(lambda: site.server.workers() == 1)
        proxy.silent = True
        until(lambda: "no answer for" in (site.folder / "worker-quick.log").read_text())
        proxy.silent = False
        until(lambda: "is back" in (site.folder / "worker-quick.log").read_text())
    finally:
        process.terminate()
        process.wait(30)
        log.close()
        proxy.close()


class _Proxy:
    """Passes bytes to a port, or while `silent` takes them and does nothing."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        while True:
            try:
                data = source.recv(65536)
                if not data:
                    sink.shutdown(socket.SHUT_RDWR)
                    return
                if not self.silent:
                    sink.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        for each in self._open:
            each.close()


def test_a_job_that_waits_behind_a_long_one_is_handed_back_and_runs_once(site: Bench) -> None:
    # However busy the machine is, what comes first must count as short, so that the slot holds others ahead.
    (site.folder / "sitecustomize.py").write_text("import gearwsgi.worker.pace\ngearwsgi.worker.pace.SHORT = 60.0\n")
    worker = site.worker("--workers", "1", env={"PYTHONPATH": str(site.folder)})
    gearman = site.app().gearman
    file = site.folder / "go-on"
    # All are there before the first is grabbed.
    site.server.admin("status")
    worker.signal(signal.SIGSTOP)
    for n in range(30):
        gearman.task("/good", {"n": n})
    gearman.task("/until", {"n": "long", "file": str(file)})
    for n in range(30, 33):
        gearman.task("/good", {"n": n}, priority="low")
    worker.signal(signal.SIGCONT)
    worker.wait_for("handed back")
    second = site.worker("--workers", "1")
    until(lambda: {"good 30 1", "good 31 1", "good 32 1"} <= set(site.lines()))
    assert "until-done long" not in site.lines()
    file.touch()
    until(lambda: "until-done long" in site.lines())
    until(lambda: site.server.queued() == 0)
    assert {line: n for line, n in site.runs().items() if line.startswith("good")} == {
        f"good {n} 1": 1 for n in range(33)
    }
    assert worker.stop() == 0 and second.stop() == 0


def test_without_lookahead_nothing_is_held_ahead(site: Bench) -> None:
    worker = site.worker("--workers", "1", "--no-lookahead")
    gearman = site.app().gearman
    for n in range(30):
        gearman.task("/good", {"n": n})
    gearman.task("/until", {"n": "long", "file": str(site.folder / "go-on")})
    gearman.task("/good", {"n": "behind"})
    until(lambda: "until long 1" in site.lines())
    assert site.server.admin("status")[0].split("\t")[1:3] == ["2", "1"]
    (site.folder / "go-on").touch()
    worker.wait_for("result 200 OK", 32)


def test_what_the_application_prints_is_in_the_log_with_the_handle(busy: Bench) -> None:
    [worker] = busy.workers
    task = busy.app().gearman.task("/print")
    worker.wait_for("result 200 OK")
    assert f"{task.handle} id {task.id} | printed by the handler\n" in worker.log


def test_a_response_of_100_megabytes_costs_no_memory(site: Bench) -> None:
    worker = site.worker("--workers", "1", "--max-rss", "90")
    site.app().gearman.task("/big", {"n": "big"})
    worker.wait_for("result 200 OK")
    [child] = until(worker.children)
    site.app().gearman.task("/pid", {"n": "x"})
    worker.wait_for("result 200 OK", 2)
    assert f"pid {child}" in site.lines()


def test_threads_and_files_that_a_job_leaves_behind_do_not_stop_a_drain(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    site.app().gearman.task("/leak")
    worker.wait_for("result 200 OK")
    assert worker.stop() == 0


def test_progress_that_is_reported_after_the_job_harms_nobody(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    [child] = until(worker.children)
    for n in range(5):
        site.app().gearman.task("/late", {"n": n})
        site.app().gearman.task("/pid", {"n": n})
    worker.wait_for("result 200 OK", 10)
    until(lambda: site.server.queued() == 0)
    assert site.runs()[f"pid {child}"] == 5, worker.log


def test_status_shows_this_machines_workers(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    task = site.app().gearman.task("/until", {"file": str(site.folder / "go-on")})
    until(lambda: task.id in site.told())
    assert task.id[:12] in site.run("status").stdout
    shown = json.loads(site.run("status", "--json").stdout)["supervisors"][0]
    assert shown["pid"] == worker.pid
    [slot] = shown["workers"]
    assert slot["state"] == "busy" and slot["job"] == task.handle and slot["pid"] and slot["memory"]
    assert (slot["id"], slot["service"], slot["queue"], slot["attempt"]) == (task.id, "/until", "job", 1)
    (site.folder / "go-on").touch()
    worker.wait_for("result 200 OK")


def test_children_that_die_while_they_start_are_braked(site: Bench) -> None:
    kitchen = site.folder / "kitchen.py"
    kitchen.write_text(
        kitchen.read_text()
        + "\nos.register_at_fork(after_in_child=lambda: os._exit(9) if os.path.exists('die') else None)\n"
    )
    (site.folder / "die").touch()
    worker = site.worker("--workers", "1")
    worker.wait_for("a worker process did not start: exited with code 9", 2)
    (site.folder / "die").unlink()
    site.app().gearman.task("/good", {"n": "x"})
    until(lambda: "good x 1" in site.lines())
    assert worker.log.count("did not start") < 50
    assert worker.stop() == 0


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets another process's limits")
def test_too_few_file_descriptors_stop_nothing_that_runs(site: Bench) -> None:
    worker = site.worker("--workers", "1")
    until(worker.children)
    until(lambda: site.server.workers() == 1)
    _, most = before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (4, most))
    worker.signal(signal.SIGTTIN)
    worker.wait_for("a worker process did not start: [Errno 24]")
    worker.signal(signal.SIGHUP)
    worker.wait_for("the fork server did not start, trying again: [Errno 24]")
    site.app().gearman.task("/good", {"n": "x"})
    until(lambda: "good x 1" in site.lines())
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
    worker.wait_for("ready: 2 workers")
    assert worker.stop() == 0


@pytest.mark.parametrize("descriptors", [6, 8])
def test_a_worker_that_starts_with_too_few_descriptors_says_so_in_a_sentence(site: Bench, descriptors: int) -> None:
    command = f'ulimit -n {descriptors}; exec "$0" -m gearwsgi worker kitchen:application --workers 1'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        cwd=site.folder,
        env={**os.environ, **site.env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("gearwsgi: the worker can't ")
    assert "Too many open files" in done.stderr


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux sets another process's limits")
def test_an_embedded_job_server_that_cant_be_started_again_is_tried_again(embedded_site: Bench) -> None:
    site = embedded_site
    port = free_port()
    worker = site.worker("--workers", "1", env={"GEARMAN_SERVERS": f"embedded://127.0.0.1:{port}"})
    started = f"embedded job server started on 127.0.0.1:{port}, pid "
    until(lambda: started in worker.log)
    until(worker.children)
    _, most = before = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (4, most))
    os.kill(int(worker.log.partition(started)[2].split()[0]), signal.SIGKILL)
    worker.wait_for("the embedded job server does not start, trying again")
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, before)
    worker.wait_for(started, 2)
    site.app(servers=f"127.0.0.1:{port}").gearman.task("/good", {"n": "after"})
    until(lambda: "good after 1" in site.lines())
    assert worker.log.count("the embedded job server does not start, trying again") == 1, worker.log
    assert worker.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGQUIT])
def test_a_signal_that_asks_for_nothing_ends_a_worker_with_a_word_and_no_success(
    embedded_site: Bench, number: signal.Signals
) -> None:
    site = embedded_site
    worker = site.worker("--workers", "1")
    site.app().gearman.task("/until", {"n": "x", "file": str(site.folder / "go-on")})
    until(lambda: "until x 1" in site.lines())
    worker.signal(number)
    worker.wait_for(f"{number.name} received")
    worker.wait_for("draining")
    (site.folder / "go-on").touch()
    assert worker.process.wait(60) == 128 + number
    assert site.lines() == ["until x 1", "until-done x"]


FLOOD = """
def do_flood(environ, start_response, data):
    import gc
    from gearwsgi.worker import channel
    [child] = [each for each in gc.get_objects() if type(each).__name__ == "Child"]
    sequence = child._claim.started()
    if data["n"] == "announced":
        child._pipe.sendall(channel.frame(channel.DONE, sequence)[:-4] + (1 << 29).to_bytes(4, "big"))
    block = channel.progress_frame(sequence, 1, 2) * 4000
    while not os.path.exists("enough"):
        child._pipe.sendall(block)
    return do_good(environ, start_response, data)
"""


@pytest.mark.parametrize("frames", ["progress", "announced"])
def test_a_handler_that_floods_its_pipe_starves_nobody(embedded_site: Bench, frames: str) -> None:
    site = embedded_site
    kitchen = site.folder / "kitchen.py"
    kitchen.write_text(kitchen.read_text() + FLOOD)
    worker = site.worker("--workers", "2")
    gearman = site.app().gearman
    gearman.task("/flood", {"n": frames}, max_attempts=1)
    until(lambda: f"flood {frames} 1" in site.lines())
    for n in range(20):
        gearman.task("/good", {"n": n})
    until(lambda: len([line for line in site.lines() if line.startswith("good")]) == 20)
    assert "from /flood" not in worker.log
    status = Path(f"/proc/{worker.pid}/status")
    if status.exists():
        [peak] = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        assert peak < 150_000, "kilobytes"
    (site.folder / "enough").touch()
    if frames == "announced":
        assert len(site.dead(1)) == 1
    else:
        worker.wait_for("result 200 OK from /flood")
    assert worker.stop() == 0


def test_too_many_processes_stop_none_that_runs(site: Bench) -> None:
    kitchen = site.folder / "kitchen.py"
    kitchen.write_text(
        kitchen.read_text()
        + """
from gearwsgi.worker import forkserver
fork = forkserver.fork
def refused():
    if os.path.exists("full"):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
forkserver.fork = refused
"""
    )
    worker = site.worker("--workers", "2")
    until(lambda: len(worker.children()) == 2)
    gearman = site.app().gearman
    (site.folder / "full").touch()
    gearman.task("/exit", max_attempts=1)
    worker.wait_for("a worker process did not start: [Errno 11] Resource temporarily unavailable")
    gearman.task("/good", {"n": "x"})
    until(lambda: "good x 1" in site.lines())
    assert worker.log.count("worker ready") == 1, worker.log
    (site.folder / "full").unlink()
    until(lambda: len(worker.children()) == 2)
    assert worker.stop() == 0


def test_random_signals_amid_a_thousand_jobs_lose_none(site: Bench) -> None:
    """TERM, HUP and KILL to supervisors and children at random: each job runs, and KILL apart, once."""
    chaos = random.Random(site.server.kind)
    gearman = site.app().gearman
    for n in range(1000):
        gearman.task("/slow", {"n": n, "seconds": 0.001}, max_attempts=100)
    running = [site.worker("--workers", "2", "--log-level", "warning")]
    while len({line for line in site.lines() if line.startswith("slow-done")}) < 1000:
        seen = len(site.lines())
        until(lambda seen=seen: len(site.lines()) > seen + 80 or site.server.queued() == 0)
        worker = running[-1]
        what = chaos.choice(["hup", "child", "term", "kill"])
        if what == "hup":
            worker.signal(signal.SIGHUP)
        elif what == "child":
            for child in worker.children()[:1]:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        else:
            worker.stop() if what == "term" else worker.kill()
            running.append(site.worker("--workers", "2", "--log-level", "warning"))
    until(lambda: site.server.queued() == 0)
    assert {line.split()[1] for line in site.lines() if line.startswith("slow-done")} == {str(n) for n in range(1000)}
    assert not site.dead()

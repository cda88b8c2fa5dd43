"""Long work over deploys: a handler that sees a stop coming goes on in the next process, or the next worker."""

import os
import signal
from typing import Any

from tests.support import Bench, until

APP = """
import os, time
from gearwsgi import Continue, GearmanMiddleware

def record(*words):
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(fd, (" ".join(map(str, words)) + "\\n").encode())
    os.close(fd)

def app(environ, start_response):
    job = environ["gearwsgi.job"]
    step = job.cursor["step"] if job.cursor else 0
    while not os.path.exists("enough"):
        record(step, os.getpid(), job.attempt)
        step += 1
        job.progress(step, 1000)
        if job.stop_requested:
            raise Continue(cursor={"step": step})
        time.sleep(0.02)
    start_response("200 OK", [])
    return [str(step).encode()]

application = GearmanMiddleware(app, backoff_min=0.01, backoff_max=0.01, records="sqlite", secret_keys=["k" * 32])
"""


def steps(site: Bench) -> list[list[int]]:
    """Number, process and attempt of each step that was done."""
    return [[int(word) for word in line.split()] for line in site.lines()]


def next_process(site: Bench) -> None:
    """Wait until another process has gone on with the work."""
    last = steps(site)[-1][1]
    until(lambda: steps(site)[-1][1] != last, "another process that goes on")


def begin(site: Bench) -> tuple[Any, Any]:
    """A worker that has begun the work, and the task."""
    (site.folder / "long.py").write_text(APP)
    worker = site.worker("--workers", "1", app="long:application")
    app = site.app(records="sqlite", secret_keys=["k" * 32])
    task = app.gearman.task("/import")
    until(site.lines, "the first step")
    return worker, (app.gearman, task)


def test_an_import_lasts_over_ten_deploys_and_a_restart_with_each_step_done_once(site: Bench) -> None:
    worker, (gearman, task) = begin(site)
    for _ in range(10):
        worker.signal(signal.SIGHUP)
        next_process(site)
    assert worker.stop() == 0
    assert worker.log.count("continues, id") == 11
    record = gearman.record(task)
    assert (record.state, record.attempts, record.history) == ("queued", 1, ())
    assert record.progress[0] == len(site.lines())
    again = site.start_worker("--workers", "1", app="long:application")
    next_process(site)
    until(lambda: gearman.status(task).total == 1000, "progress, which is kept")
    (site.folder / "enough").touch()
    until(lambda: gearman.record(task).state == "done", "its end")
    done = steps(site)
    assert [number for number, _, _ in done] == list(range(len(done)))
    assert len({pid for _, pid, _ in done}) == 12
    assert {attempt for _, _, attempt in done} == {1}
    record = gearman.record(task)
    assert (record.attempts, record.progress[0], [each.outcome for each in record.history]) == (1, len(done), ["done"])
    assert not list((site.state_dir / "dead").glob("*")) and again.stop() == 0


def test_a_failed_attempt_goes_on_from_the_last_cursor_and_a_kill_repeats_one_piece(embedded_site: Bench) -> None:
    site = embedded_site
    worker, (gearman, task) = begin(site)
    worker.signal(signal.SIGHUP)
    next_process(site)
    first = next(number for number, pid, _ in steps(site) if pid == steps(site)[-1][1])
    os.kill(steps(site)[-1][1], signal.SIGKILL)
    next_process(site)
    number, _, attempt = next(each for each in steps(site) if each[2] == 2)
    assert (number, attempt) == (first, 2)  # it was not committed anywhere but in the cursor
    (site.folder / "enough").touch()
    until(lambda: gearman.record(task).state == "done", "its end")
    assert [each.outcome for each in gearman.record(task).history] == ["retried", "done"]

"""A worker whose log nobody reads, or somebody reads slowly."""

import os
import subprocess
import sys

from tests.support import PATIENCE, Bench, until


def test_a_log_that_nobody_reads_holds_up_neither_jobs_nor_the_end(site: Bench) -> None:
    read, write = os.pipe()
    command = [sys.executable, "-m", "gearwsgi", "worker", "kitchen:application", "--workers", "2"]
    worker = subprocess.Popen(
        command, cwd=site.folder, env={**os.environ, **site.env}, stdin=subprocess.DEVNULL, stdout=write, stderr=write
    )
    os.close(write)
    try:
        until(lambda: site.server.workers() == 2)
        gearman = site.app().gearman
        for n in range(1000):  # some 300 KB of log, and a pipe holds 64
            gearman.task("/good", {"n": n})
        until(lambda: len(site.lines()) == 1000)
        until(lambda: site.server.queued() == 0)
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
        assert site.runs() == {f"good {n} 1": 1 for n in range(1000)}
    finally:
        worker.kill()
        worker.wait()
        os.close(read)

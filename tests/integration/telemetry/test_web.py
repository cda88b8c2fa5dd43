"""What a web process queues, in the application's own registry of Prometheus's library."""

import subprocess
import sys
from pathlib import Path

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ConfigError
from tests.support import Bench, free_port

CODE = """
import os, sys
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    with environ["gearman"].batch():
        environ["gearman"].task("mail.welcome")
        environ["gearman"].task("/orders/7", queue="slow")
    environ["gearman"].task("any.thing", {"n": 1}, plain=True, after_response=True)
    start_response("200 OK", [])
    return [b"ok"]

application = GearmanMiddleware(app, metrics=True)
other = GearmanMiddleware(app, metrics=True)
children = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        body = application({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda status, headers: None)
        list(body)
        body.close()
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_each_queued_task_is_counted_in_the_mode_for_many_processes_too(site: Bench, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**site.env, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.splitlines())
    assert {
        'gearwsgi_tasks_queued_total{queue="job",service="mail.welcome"} 2.0',
        'gearwsgi_tasks_queued_total{queue="slow",service="other"} 2.0',
        'gearwsgi_tasks_queued_total{queue="job",service="any.thing"} 2.0',
        "gearwsgi_submit_seconds_count 4.0",
    } <= lines, done.stdout


def test_what_is_refused_is_not_counted_and_a_missing_library_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prometheus_client import REGISTRY

    server = f"127.0.0.1:{free_port()}"
    application = GearmanMiddleware(
        lambda environ, start: [], servers=server, state_dir=tmp_path, metrics=True, on_unavailable="raise"
    )
    with pytest.raises(ConnectionError):
        application.gearman.task("refused.one")
    labels = {"queue": "job", "service": "refused.one"}
    assert REGISTRY.get_sample_value("gearwsgi_tasks_queued_total", labels) is None
    monkeypatch.setitem(sys.modules, "gearwsgi.submit.counted", None)
    with pytest.raises(ConfigError, match=r"gearwsgi\[metrics\]"):
        GearmanMiddleware(lambda environ, start: [], metrics=True)

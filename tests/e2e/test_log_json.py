"""The log for a collector: a JSON object a line, with the fields of records; and what `ps` shows meanwhile."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import Bench, until

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_each_line_is_an_object_and_a_job_s_lines_have_its_record_s_fields(embedded_site: Bench) -> None:
    gate = embedded_site.folder / "gate"
    env = {"GEARWSGI_LOG": "json", "SETTINGS": json.dumps({"backoff_min": 0, "backoff_max": 0.1})}
    worker = embedded_site.start_worker("--workers", "1", env=env)
    worker.wait_for('"ready: 1 worker')
    gearman = embedded_site.app().gearman
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-ID": "r-7"}
    boom = gearman.task("/boom", {"n": 1}, max_attempts=2, headers=headers)
    waits = gearman.task("/until", {"file": str(gate)})

    def lines(**wanted: Any) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in worker.log.splitlines()]
        return [line for line in found if wanted.items() <= line.items()]

    assert until(lambda: lines(id=waits.id, state="running"))
    titles = {(Path(f"/proc/{pid}/cmdline")) for pid in until(worker.children)}
    if all(title.exists() for title in titles):
        pytest.importorskip("setproctitle")
        (shown,) = (title.read_bytes().replace(b"\0", b" ").strip() for title in titles)
        assert shown == b"gearwsgi: worker 1 kitchen /until"
    gate.touch()
    (done,) = until(lambda: lines(id=waits.id, state="done"))
    assert (done["service"], done["status"], done["queue"], done["source"]) == ("/until", 200, "job", "worker")
    assert done["seconds"] > 0
    (dead,) = until(lambda: lines(id=boom.id, state="dead"))
    (retried,) = lines(id=boom.id, state="retrying")
    for line in (retried, dead):
        assert (line["service"], line["method"], line["path"]) == ("/boom", "POST", "/boom")
        assert (line["trace_id"], line["request_id"]) == (TRACE, "r-7")
        assert line["reason"].startswith("ValueError: boom on purpose")
        assert line["handle"].startswith("H:")
    assert [(line["attempt"], line["level"]) for line in (retried, dead)] == [(1, "warning"), (2, "error")]
    printed = lines(id=boom.id, source="app", attempt=1)
    assert printed[-1]["message"] == "ValueError: boom on purpose"
    assert all(line["trace_id"] == TRACE for line in printed)
    assert worker.stop() == 0
    for line in lines():
        assert {"time", "level", "message", "source", "host", "pid"} <= line.keys()


def test_a_form_of_the_log_that_there_is_not_is_refused(embedded_site: Bench) -> None:
    worker = embedded_site.start_worker(env={"GEARWSGI_LOG": "xml"})
    assert worker.process.wait(60) == 3
    assert "GEARWSGI_LOG is 'xml': give text or json" in worker.log

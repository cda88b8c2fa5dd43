"""What `gearwsgi status` shows: lines that fit any terminal, whatever is in them; what matters comes first."""

from typing import Any

import pytest
from rich.cells import cell_len

from gearwsgi.cli.screen import lay_out
from gearwsgi.state.overview import warnings
from tests.hostile import HOSTILE, obeys_no_terminal


def _queue(name: str, **changes: Any) -> dict[str, Any]:
    usual = {"ready": 0, "later": 0, "running": 0, "workers": 1, "oldest": None, "per_minute": 0, "failed": 0,
             "paused": False, "paused_for": None, "paused_by": ""}  # fmt: skip
    return {"queue": name, **usual, **changes}


def _worker(slot: int, **changes: Any) -> dict[str, Any]:
    usual = {"slot": slot, "pid": 1000 + slot, "queues": ["job"], "state": "busy", "job": "H:a:1", "age": slot,
             "memory": "40 MB", "service": "report.daily", "id": "0123456789ab" * 2, "attempt": 2}  # fmt: skip
    return {**usual, **changes}


def _supervisor(*workers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"host": "here", "pid": 7, "fresh": True, "app": "app:app", "workers": list(workers), **changes}


def _known(**changes: Any) -> dict[str, Any]:
    usual = {
        "servers": [{"address": "a:1", "up": True, "version": "1", "queues": []}],
        "queues": [],
        "limits": [],
        "keys": [],
        "supervisors": [],
        "last_hour": {"dead": 0, "outbox": 0},
        "outbox": 0,
        "dead": 0,
        "records": {"on": True, "error": None},
        "state_dir": "var",
    }
    return {**usual, **changes}


@pytest.mark.parametrize("text", HOSTILE)
def test_status_shows_whatever_a_job_server_or_a_supervisor_says(text: str) -> None:
    worker = _worker(1, state=text, queues=[text], job=text, id=text, service=text, memory=text, attempt=text)
    known = _known(
        servers=[
            {"address": "a:1", "up": False, "error": text, "queues": []},
            {"address": "a:2", "up": True, "version": text, "queues": []},
        ],
        queues=[_queue(text, ready=1, workers=0), _queue(text, paused=True)],
        supervisors=[_supervisor(worker, host=text, fresh=False)],
        records={"on": True, "error": text},
        state_dir=text,
    )
    assert obeys_no_terminal("\n".join(lay_out(known)))
    assert all(cell_len(line) <= 60 for line in lay_out(known, 60, 20))


@pytest.mark.parametrize(("width", "height"), [(80, 23), (80, 24), (40, 10), (20, 5), (10, 1), (200, 60)])
def test_many_queues_and_workers_fit_a_screen_of_any_size(width: int, height: int) -> None:
    queues = [_queue(f"queue-{n}-with-a-long-name", ready=n, workers=n % 2) for n in range(30)]
    workers = [_worker(n) for n in range(40)]
    lines = lay_out(_known(queues=queues, supervisors=[_supervisor(*workers)]), width, height)
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


def test_a_screen_of_80_by_24_has_warnings_queues_and_workers_in_this_order() -> None:
    queues = [_queue(f"q{n}", ready=n) for n in range(30)] + [_queue("lonely", later=3, workers=0, oldest=90.0)]
    known = _known(queues=queues, supervisors=[_supervisor(*map(_worker, range(40)), pid=9, fresh=False)])
    lines = lay_out(known, 80, 23)
    assert lines[:2] == [
        "WARNING: not responding: supervisor here:9",
        "WARNING: no worker for queue lonely",
    ]
    header = lines.index(next(line for line in lines if line.startswith("queue ")))
    assert lines[header + 1].split() == ["lonely", "0", "3", "0", "0", "90s", "0", "0", "no", "worker"]
    assert lines[header + 2].startswith("q29 ")
    assert any(line.startswith("worker ") and "service" in line for line in lines[header:])
    assert "0123456789ab" in lines[-2] and "report.daily" in lines[-2]
    assert lines[-1].startswith("… and ") and lines[-1].endswith(" more workers")


def test_without_a_size_every_queue_and_worker_is_there() -> None:
    known = _known(queues=[_queue(f"q{n}") for n in range(30)], supervisors=[_supervisor(*map(_worker, range(40)))])
    assert len(lay_out(known)) == 2 + 1 + 31 + 1 + 41


def test_a_paused_queue_without_workers_is_shown_and_is_no_warning() -> None:
    known = _known(queues=[_queue("mail", ready=2, workers=0, paused=True, paused_for=600.0, paused_by="ann@x")])
    assert not warnings(known)
    assert lay_out(known, 80)[0] == "paused: mail (for 10m, by ann@x)"


def test_a_queue_without_jobs_needs_no_worker() -> None:
    assert not warnings(_known(queues=[_queue("old", workers=0)]))

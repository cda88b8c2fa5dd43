"""The schedule in the test kit."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gearwsgi import GearmanMiddleware
from gearwsgi.errors import UnknownEntry
from gearwsgi.testing import capture

DAY = 86400.0


def handler(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    job = environ["gearwsgi.job"]
    status = "503 Service Unavailable" if environ["PATH_INFO"] == "/flaky" and job.attempt < 3 else "200 OK"
    start_response(status, [])
    assert environ["HTTP_X_GEARMAN_SCHEDULED"] == job.scheduled_at.isoformat()
    return [f"{job.scheduled_at.isoformat()} {job.data} {environ['HTTP_HOST']}".encode()]


def application(folder: Path, **schedule: Any) -> GearmanMiddleware:
    return GearmanMiddleware(
        handler, schedule=schedule, state_dir=folder, base_url="https://shop.example.com", secret_keys="k" * 20
    )


def test_advance_runs_each_tick_at_its_time(tmp_path: Path) -> None:
    daily = {"service": "/daily", "cron": "0 6 * * *", "timezone": "Europe/Berlin", "data": {"n": 1}, "queue": "slow"}
    with capture(application(tmp_path, daily=daily, hourly={"service": "/hourly", "cron": "@hourly"})) as tasks:
        first = tasks.schedule.next("daily")
        assert (first.hour, first.minute) == (6, 0) and first.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
        assert first.timestamp() > tasks.clock.now()
        runs = tasks.advance(2 * DAY)
        assert len(tasks.of("/hourly")) == 48
        done = [run for run in runs if run.task.service == "/daily"]
        assert [run.task.queue for run in done] == ["slow", "slow"]
        shown, rest = done[0].body.decode().split(" ", 1)
        assert datetime.fromisoformat(shown) == first and rest == "{'n': 1} shop.example.com"
        assert tasks.schedule.next("daily") - first in (timedelta(days=2), timedelta(days=2, hours=1))
        with pytest.raises(UnknownEntry, match="did you mean 'daily'"):
            tasks.schedule.next("dayly")


def test_a_tick_is_left_out_while_an_earlier_one_is_tried_again(tmp_path: Path) -> None:
    every = {"service": "/flaky", "cron": "* * * * *", "backoff_min": 100.0, "backoff_max": 100.0}
    with capture(application(tmp_path, every={**every, "overlap": False})) as tasks:
        tasks.advance(3600)
        assert 10 <= len(tasks) <= 16  # each takes 200 seconds
    with capture(application(tmp_path, every=every)) as tasks:
        tasks.advance(3600)
        assert len(tasks) == 60

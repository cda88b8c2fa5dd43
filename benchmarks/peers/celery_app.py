"""Celery: JSON, no result backend (it would cost more)."""

import os

from celery import Celery

from benchmarks import work as job

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@app.task(name="work")
def work(number: int, wait: float = 0.0) -> None:
    job.work(number, wait)

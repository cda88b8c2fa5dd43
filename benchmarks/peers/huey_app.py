"""Huey: no results kept."""

import os

from huey import RedisHuey

from benchmarks import work as job

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=False)


@huey.task()
def work(number: int, wait: float = 0.0) -> None:
    job.work(number, wait)

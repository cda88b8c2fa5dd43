"""Dramatiq: its default middleware."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import work as job

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))


@dramatiq.actor(queue_name="bench")
def work(number: int, wait: float = 0.0) -> None:
    job.work(number, wait)

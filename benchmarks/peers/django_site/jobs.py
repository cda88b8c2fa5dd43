"""The task, and who queues it: `python -m benchmarks.peers.django_site.jobs START COUNT PAUSE` prints how it went."""

import json
import os
import sys
import time

import django

from benchmarks import work as job

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def work(number: int) -> int:
    """One task."""
    job.work(number)
    return number


def main() -> None:
    """Queue the tasks, PAUSE seconds apart; when each call began goes to standard output."""
    start, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    django.setup()
    from benchmarks.peers.django_site.jobs import work as queued

    cpu, began = time.process_time(), []
    for number in range(start, start + count):
        time.sleep(pause)
        began.append(time.monotonic_ns())
        queued.enqueue(number)
    seconds = (time.monotonic_ns() - began[0]) / 1e9
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "began": began}))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.peers.django_site.settings")
    main()

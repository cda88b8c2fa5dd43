"""Limits by key under load, kills and for long: `python -m tests.limits_soak gearmand 300`, or `embedded`.

Two supervisors with four workers each; keys with a concurrency of 1, 2 and 3, a rate, and tasks without a key. First
what 10,000 tasks of one key cost while they wait, and how many a second are done; then, for so many seconds, load with
`kill -9` of worker processes, supervisors and the job server. Was a key ever over its limit, by the handlers' own file?
"""

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from gearwsgi import GearmanMiddleware
from tests.limited import events, gone, is_alive, most, set_up, started, worker
from tests.support import Bench, Worker, bench, until

LIMITS = {
    "one": {"concurrency": 1}, "two": {"concurrency": 2}, "three": {"concurrency": 3}, "rare": {"rate": "10/second"},
    "waits": {"rate": "1/hour"}, "fast": {"concurrency": 1},
}  # fmt: skip
MANY = 10_000
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def ended(site: Bench, key: str) -> int:
    """How many of a key have ended."""
    return sum(event.what == "end" and event.key == key for event in events(site))


def cost(site: Bench, app: GearmanMiddleware, supervisors: list[Worker]) -> None:
    """What tasks of one key cost while they wait, and how many a second are done."""
    assert site.server.process is not None
    pids = {"job server": site.server.process.pid} | {f"supervisor {n}": each.pid for n, each in enumerate(supervisors)}

    def shares(seconds: float) -> str:
        before = {name: cpu(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        return ", ".join(f"{name} {(cpu(pid) - before[name]) / seconds:.1%}" for name, pid in pids.items())

    print("CPU with nothing to do:", shares(20))
    for n in range(MANY):
        app.gearman.task("/work", {"key": "waits", "n": n}, limit="waits")
    until(lambda: ended(site, "waits") == 1)
    print(f"CPU while {MANY} tasks of a key wait:", shares(20))
    for n in range(MANY):
        app.gearman.task("/work", {"key": "fast", "n": n}, limit="fast")
    until(lambda: ended(site, "fast") == MANY, patience=300)
    starts = started(events(site), "fast")
    print(f"{MANY} tasks of one key with a concurrency of 1: {MANY / (starts[-1] - starts[0]):.0f} a second")


def kill(what: str, site: Bench, supervisors: list[Worker]) -> None:
    """`kill -9` of something, which is started again."""
    if what == "job server":
        site.server.restart()
        return
    place = random.randrange(len(supervisors))
    pids = supervisors[place].children()
    if what == "process":
        pids = pids[:1]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    else:
        supervisors[place].process.kill()
        supervisors[place].process.wait()
    until(lambda: not any(map(is_alive, pids)), "it is gone")
    gone(site, pids, time.time())
    if what == "supervisor":
        supervisors[place] = worker(site, "--workers", "4")


def main(kind: str, seconds: float) -> None:
    """See the module."""
    with bench(kind, durable=True) as site:
        app = set_up(site, LIMITS)
        supervisors = [worker(site, "--workers", "4") for _ in range(2)]
        cost(site, app, supervisors)
        site.record.write_text("")
        kills: Counter[str] = Counter()
        end, kill_at, number = time.monotonic() + seconds, time.monotonic() + 10, 0
        while time.monotonic() < end:
            for key in ("one", "two", "three", "rare", None):
                data = {"key": key or "-", "n": number, "seconds": random.choice((0, 0.01, 0.1))}
                app.gearman.task("/work", data, limit=key)
            number += 1
            time.sleep(0.1)
            if time.monotonic() > kill_at:
                what = ("process", "job server", "supervisor")[kills.total() % 3]
                kill(what, site, supervisors)
                kills[what] += 1
                kill_at = time.monotonic() + random.uniform(3, 20)
        keys = ("one", "two", "three", "rare", "-")
        until(lambda: all(len({e.number for e in events(site) if e.what == "end" and e.key == key}) == number
                          for key in keys), "all are done", 300)  # fmt: skip
        found = events(site)
        at_once = most(found)
        starts = started(found, "rare")
        windows = Counter(max(sum(at <= other < at + 1 for other in starts[place : place + 25]) for at in [start])
                          for place, start in enumerate(starts))  # fmt: skip
        print(f"{kind}: {number} tasks of each of 5 kinds in {seconds:.0f} s, kills {dict(kills)}")
        print(f"at once, at most: {dict(at_once)}; most of the rate of 10 that began within a second: {max(windows)}")
        assert at_once["one"] == 1 and at_once["two"] <= 2 and at_once["three"] <= 3 and max(windows) <= 20


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))

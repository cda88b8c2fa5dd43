"""Limits by key under load, kills and for long: were they ever more than they may be, by the handlers' own file?

`python -m tests.limits_soak gearmand --load 300`, or `embedded`. Each with real supervisors:

- `--load SECONDS`: two with four workers each; keys with a concurrency of 1, 2 and 3, a rate, and tasks without a key.
  First what 10,000 tasks of one key cost while they wait, and how many a second are done; then load with `kill -9` of
  worker processes, supervisors and the job server.
- `--rate SECONDS`: rates by the second and by the minute, amid reloads, deploys and `kill -9` of supervisors.
- `--fleet SECONDS`: two with state directories of their own, and records in one PostgreSQL; one is killed at half-time.
- `--keys NUMBER`: a task of each of so many keys, and what is left of them in job server, supervisor and records.
"""

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gearwsgi import GearmanMiddleware
from tests import postgres
from tests.limited import events, gone, is_alive, most, set_up, started, worker
from tests.support import Bench, Worker, bench, until

LIMITS = {
    "one": {"concurrency": 1}, "two": {"concurrency": 2}, "three": {"concurrency": 3}, "rare": {"rate": "10/second"},
    "waits": {"rate": "1/hour"}, "fast": {"concurrency": 1},
}  # fmt: skip
MANY = 10_000
NEARLY = 0.9
"""A second, by the handlers' clock: each of them begins a little later than its job was taken."""
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
    if what == "supervisor":
        crash(site, supervisors[place])
        supervisors[place] = worker(site, "--workers", "4")
        return
    pid = supervisors[place].children()[0]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "it is gone")
    gone(site, [pid], time.time())


def crash(site: Bench, supervisor: Worker) -> list[int]:
    """`kill -9` of a supervisor; its processes, which are gone by then."""
    pids = supervisor.children()
    supervisor.process.kill()
    supervisor.process.wait()
    until(lambda: not any(map(is_alive, pids)), "its processes are gone")
    gone(site, pids, time.time())
    return pids


def within(starts: Sequence[float], window: float) -> int:
    """How many began within one window, at most."""
    starts = sorted(starts)
    return max((bisect_left(starts, at + window) - place for place, at in enumerate(starts)), default=0)


def load(kind: str, seconds: float) -> None:
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
        print(f"{kind}: {number} tasks of each of 5 kinds in {seconds:.0f} s, kills {dict(kills)}")
        print(
            f"at once, at most: {dict(at_once)}; of the rate of 10 a second began within one: {within(starts, NEARLY)}"
        )
        assert at_once["one"] == 1 and at_once["two"] <= 2 and at_once["three"] <= 3 and within(starts, NEARLY) <= 10


def rate(kind: str, seconds: float) -> None:
    """See the module."""
    limits = {"second": {"rate": "10/second"}, "minute": {"rate": "100/minute"}}
    with bench(kind, durable=True) as site:
        app = set_up(site, limits)
        supervisors = [worker(site, "--workers", "4") for _ in range(2)]
        began, number, minutes = time.monotonic(), 0, 0
        act_at, acts = began + 5, Counter[str]()
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(12 if number < 12 * (passed + 5) else 0):
                app.gearman.task("/work", {"key": "second", "n": number}, limit="second")
                number += 1
            for _ in range(12 if minutes < 2 * (passed + 60) else 0):  # more than its rate: some wait at any time
                app.gearman.task("/work", {"key": "minute", "n": minutes}, limit="minute")
                minutes += 1
            time.sleep(0.2)
            if time.monotonic() > act_at:
                what = ("reload", "reload", "deploy", "reload", "kill")[acts.total() % 5]
                place = acts.total() % 2
                if what == "reload":
                    supervisors[place].signal(signal.SIGHUP)
                elif what == "deploy":
                    new = worker(site, "--workers", "4")
                    supervisors[place].stop()
                    supervisors[place] = new
                else:
                    kill("supervisor", site, supervisors)
                acts[what] += 1
                act_at = time.monotonic() + random.uniform(4, 12)
        found = events(site)
        for key, most_of, window in (("second", 10, NEARLY), ("minute", 100, 60 - 0.1)):
            starts = started(found, key)
            print(f"{kind}: {limits[key]['rate']}: {len(starts)} in {starts[-1] - starts[0]:.0f} s, "
                  f"within one window at most {within(starts, window)}; {dict(acts)}")  # fmt: skip
            assert within(starts, window) <= most_of


def fleet(kind: str, seconds: float) -> None:
    """See the module."""
    postgres.require()
    server = postgres.PostgresServer()
    keys = [f"one:{n}" for n in range(12)] + [f"fast:{n}" for n in range(4)]
    with contextlib.closing(server), bench(kind, durable=True) as site:
        app = set_up(site, {"one:*": {"concurrency": 1}, "fast:*": {"rate": "5 per 10 second"}})
        url = server.make()
        supervisors = [
            site.worker("--workers", "4", app="limited:application",
                        env={"GEARWSGI_RECORDS": url, "GEARWSGI_STATE_DIR": str(site.folder / f"state{place}")})
            for place in range(2)
        ]  # fmt: skip
        end, number, killed_at, pids = time.monotonic() + seconds, 0, 0.0, list[int]()
        while time.monotonic() < end:
            for key in keys:
                app.gearman.task("/work", {"key": key, "n": number, "seconds": 0.05}, limit=key)
            number += 1
            time.sleep(0.25)
            if not killed_at and end - time.monotonic() < seconds / 2:
                killed_at = time.time()
                pids = crash(site, supervisors[0])
        found = events(site)
        both = {event.pid for event in found if event.at < killed_at}
        waits = {key: min(at for at in started(found, key) if at > killed_at) - killed_at for key in keys}
        at_once, windows = most(found), {key: within(started(found, key), 9.9) for key in keys if key[0] == "f"}
        killed = len(both & set(pids))
        print(f"{kind}, PostgreSQL: {len(found)} events; {killed} processes of the killed one had worked, "
              f"{len(both - set(pids))} of the other's; at once {max(at_once[key] for key in keys if key[0] == 'o')}, "
              f"of 5 in 10 s at most {max(windows.values())}")  # fmt: skip
        print("seconds until a key went on after the kill:", *(f"{key} {wait:.1f}" for key, wait in waits.items()))
        assert all(at_once[key] == 1 for key in keys if key[0] == "o") and max(windows.values()) <= 5
        assert max(wait for key, wait in waits.items() if key[0] == "o") < 15


def memory(pid: int) -> str:
    """What a process holds."""
    return f"{int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6:.1f} MB"


def keys(kind: str, number: int) -> None:
    """See the module."""
    limits = {"customer:*": {"concurrency": 1, "rate": "100/second"}}
    with bench(kind) as site:
        app = set_up(site, limits)
        supervisor = worker(site, "--workers", "4")
        assert site.server.process is not None
        pids = {"job server": site.server.process.pid, "supervisor": supervisor.pid}

        def show(when: str) -> None:
            before = {name: cpu(pid) for name, pid in pids.items()}
            time.sleep(10)
            began = time.monotonic()
            lines = site.server.admin("status")
            took = time.monotonic() - began
            with contextlib.closing(sqlite3.connect(site.state_dir / "records.sqlite3")) as records:
                rows = [records.execute(f"SELECT count(*) FROM gearwsgi_{table}").fetchone()[0]
                        for table in ("start", "lease", "task")]  # fmt: skip
            held = ", ".join(
                f"{name} {memory(pid)}, {(cpu(pid) - before[name]) / 10:.1%} of a core" for name, pid in pids.items()
            )
            print(f"{kind}, {when}: {held}; status has {len(lines)} lines, {sum(map(len, lines)) / 1e6:.1f} MB, "
                  f"read in {took:.3f} s; records: {rows[0]} starts, {rows[1]} leases, {rows[2]} tasks")  # fmt: skip

        show("at first")
        began = time.monotonic()
        for n in range(number):
            app.gearman.task("/work", {"key": f"customer:{n}", "n": n}, limit=f"customer:{n}")
        queued = time.monotonic() - began
        while site.record.read_bytes().count(b"\nend ") < number:
            time.sleep(1)
        print(
            f"{number} tasks of a key each: queued in {queued:.0f} s, all done after {time.monotonic() - began:.0f} s"
        )
        show("when all were done")
        time.sleep(120)
        show("two minutes later")
        app.gearman.task("/work", {"key": "customer:0", "n": number}, limit="customer:0")
        began = time.monotonic()
        until(lambda: len(started(events(site), "customer:0")) == 2)
        print(f"a task of a key that is there again began after {time.monotonic() - began:.2f} s")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("gearmand", "embedded"))
    scenarios = {"load": load, "rate": rate, "fleet": fleet, "keys": keys}
    for name in scenarios:
        parser.add_argument(f"--{name}", type=int, metavar="NUMBER" if name == "keys" else "SECONDS")
    given = vars(parser.parse_args())
    for name, run in scenarios.items():
        if given[name]:
            run(given["kind"], given[name])


if __name__ == "__main__":
    main()

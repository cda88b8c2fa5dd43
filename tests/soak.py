"""`python -m tests.soak [--tasks N] [--seconds S] [--kind KIND] [--records KIND] [--seed X]`: chaos, for minutes.

Three processes submit, two supervisors with two workers each run; meanwhile the job server (gearmand with libsqlite3,
or the embedded one), supervisors and worker processes are killed -9 at random, and once the outbox's disk is full. The
records' database is locked, filled, overwritten (SQLite) or killed (PostgreSQL). At the end no id may be missing, and
each id's story must be in the logs. What ran more than once, and what the records lack, is counted and printed.
"""

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import click
import psycopg

from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.store import Store
from tests.postgres import PostgresServer
from tests.support import Bench, Worker, bench, until

SUBMIT = """
import json, sys, time
from gearwsgi import GearmanMiddleware, GearwsgiError
start, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
app = GearmanMiddleware(lambda e, s: [], connect_timeout=1.0)
refused = 0
for n in range(start, start + count):
    while True:
        try:
            task = app.gearman.task("/flaky", {"n": n, "good": 2 if n % 5 == 0 else 1}, max_attempts=50)
            break
        except GearwsgiError as error:
            refused += 1
            time.sleep(0.05)
    print(json.dumps([n, task.id]), flush=True)
    time.sleep(pause)
app.client.close()
print("refused", refused, file=sys.stderr)
"""


class Records:
    """The records' database, and what happens to it.

    Args:
        site: whose workers write it; its state directory is a disk of its own where that can be.
        kind: `sqlite` or `postgres`.
    """

    def __init__(self, site: Bench, kind: str) -> None:
        self._path = site.state_dir / "records.sqlite3"
        self._disk = site.state_dir
        self._server = PostgresServer() if kind == "postgres" else None
        self.url = self._server.make() if self._server is not None else "sqlite"
        site.state_dir.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", str(self._disk)]
        self._is_mounted = subprocess.run(mount, capture_output=True).returncode == 0

    def harm(self, chance: random.Random) -> str:
        """Do something to it, for some seconds; what."""
        kinds = ["locked", "killed"] if self._server is not None else ["locked", "overwritten"]
        what = chance.choice([*kinds, "disk filled"] if self._is_mounted else kinds)
        seconds = chance.uniform(2, 12)
        if what == "locked":
            self._lock(seconds)
        elif what == "killed" and self._server is not None:
            self._server.stop(signal.SIGQUIT)
            time.sleep(seconds)
            self._server.start()
        elif what == "overwritten":
            with contextlib.suppress(FileNotFoundError), self._path.open("r+b") as file:
                file.write(b"no database" * 500)
        else:
            filler = self._disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            time.sleep(seconds)
            filler.unlink()
        return f"records {what}"

    def _lock(self, seconds: float) -> None:
        if self._server is not None:
            with contextlib.suppress(psycopg.Error), psycopg.connect(self.url) as client:
                client.execute("LOCK TABLE gearwsgi_task IN ACCESS EXCLUSIVE MODE")
                time.sleep(seconds)
        else:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(self._path)) as client:
                client.execute("BEGIN EXCLUSIVE")
                time.sleep(seconds)

    def report(self, site: Bench, submitted: dict[str, str]) -> None:
        """How many records there are, and what was said of the others."""
        database = open_database(site.app(records=self.url).settings)
        assert database is not None
        found = Store(database).find_many(list(submitted.values()))
        database.close()
        states = Counter(found[each].state if each in found else "no record" for each in submitted.values())
        log = "".join(path.read_text(errors="replace") for path in site.folder.glob("worker-*.log"))
        said = Counter(re.sub(r"[0-9]+|/[^ ]+", "…", line) for line in re.findall(r"records: [^\n]{0,70}", log))
        click.echo(f"states by the records: {dict(states)}")
        click.echo(f"dropped, as the log says: {sum(map(int, re.findall(r'again, ([0-9]+) were dropped', log)))}")
        for line, times in said.most_common():
            click.echo(f"{times:5} {line}")

    def close(self) -> None:
        """Give back the disk and the server."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", self._disk], check=True)
        if self._server is not None:
            self._server.close()


def _start_worker(site: Bench) -> Worker:
    return site.start_worker("--workers", "2", "--graceful-timeout", "20")


def _fill_disk(site: Bench) -> bool:
    """Put a file system of 64 KB, and full, in the outbox's place; whether that could be done."""
    box = site.state_dir / "outbox"
    box.mkdir(parents=True, exist_ok=True, mode=0o700)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", box], capture_output=True)
    if mounted.returncode:
        return False
    try:
        (box / "filler").write_bytes(b"x" * (1 << 20))
    except OSError:
        return True
    return True


def _empty_disk(site: Bench) -> None:
    """Give the space back, and wait until what is in the outbox has gone, before the disk goes."""
    box = site.state_dir / "outbox"
    (box / "filler").unlink(missing_ok=True)
    until(lambda: not list(box.glob("*.http")), "an empty outbox", 120)
    subprocess.run(["umount", "-l", box], check=True)


@click.command()
@click.option("--tasks", default=5000, show_default=True)
@click.option("--seconds", default=120.0, show_default=True, help="How long the submitting takes, about.")
@click.option("--kind", type=click.Choice(["gearmand", "embedded"]), default="gearmand", show_default=True)
@click.option("--records", "database", type=click.Choice(["sqlite", "postgres"]), default="sqlite", show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(tasks: int, seconds: float, kind: str, database: str, seed: int) -> None:  # noqa: PLR0915 - one story from top to bottom
    """Run the chaos and say what came of it; exit code 1 where an id is missing."""
    chance = random.Random(seed)
    events: Counter[str] = Counter()
    with bench(kind, durable=True) as site:
        share = tasks // 3
        records = Records(site, database)
        os.environ["GEARWSGI_RECORDS"] = records.url
        env = {**os.environ, **site.env}
        submitters = []
        for start in range(3):
            out = (site.folder / f"submitted-{start}.txt").open("wb")
            command = [sys.executable, "-c", SUBMIT, str(start * share), str(share), str(seconds / share * 0.8)]
            submitters.append(subprocess.Popen(command, env=env, cwd=site.folder, stdout=out))
            out.close()
        running = [_start_worker(site), _start_worker(site)]
        disk_was_full = False
        began = time.monotonic()
        while any(process.poll() is None for process in submitters):
            time.sleep(chance.uniform(0.3, 1.5))  # chaos is what happens meanwhile
            what = chance.choices(["server", "supervisor", "child", "hup", "term", "records"], [2, 2, 4, 1, 1, 2])[0]
            place = chance.randrange(2)
            if not disk_was_full and time.monotonic() - began > seconds / 3:
                disk_was_full = True
                if _fill_disk(site):
                    events["disk full"] += 1
                    site.server.kill()
                    time.sleep(3)
                    site.server.start()
                    _empty_disk(site)
                continue
            events[records.harm(chance) if what == "records" else what] += 1
            if what == "server":
                site.server.kill()
                time.sleep(chance.uniform(0, 2))
                site.server.start()
            elif what == "supervisor":
                os.kill(running[place].pid, signal.SIGKILL)
                running[place].process.wait()
                running[place] = _start_worker(site)
            elif what == "child":
                for child in running[place].children()[:1]:
                    try:
                        os.kill(child, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            elif what == "hup":
                running[place].signal(signal.SIGHUP)
            elif what == "term":
                running[place].process.terminate()
                running[place].process.wait(60)
                running[place] = _start_worker(site)
        submitted: dict[str, str] = {}
        for start in range(3):
            for line in (site.folder / f"submitted-{start}.txt").read_text().splitlines():
                n, task_id = json.loads(line)
                submitted[str(n)] = task_id
        click.echo(f"submitted {len(submitted)} in {time.monotonic() - began:.0f} s; {dict(events)}")
        assert len(submitted) == share * 3
        until(lambda: not list(site.state_dir.glob("outbox/*.http")), "an empty outbox", 120)
        until(lambda: site.server.queued() == 0, "an empty queue", 300)
        for worker in running:
            worker.process.terminate()
            worker.process.wait(60)
        records.report(site, submitted)
        try:
            _report(site, submitted)
        finally:
            records.close()


def _report(site: Bench, submitted: dict[str, str]) -> None:
    done: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for line in site.lines():
        _, n, attempt = line.split()
        runs[f"{n} {attempt}"] += 1
        if int(attempt) >= (2 if int(n) % 5 == 0 else 1):
            done[n] += 1
    log = "".join(path.read_text(errors="replace") for path in site.folder.glob("worker-*.log"))
    told = set(re.findall(r"id ([0-9a-f]{32})", log))
    missing = [n for n in submitted if not done[n]]
    dead = list(site.state_dir.glob("dead/*.http"))
    untold = [n for n, task_id in submitted.items() if task_id not in told]
    again = sum(1 for times in runs.values() if times > 1)
    click.echo(f"missing {len(missing)}, dead letters {len(dead)}, ids without a story in the log {len(untold)}")
    click.echo(f"attempts that ran more than once: {again} of {len(runs)}; runs in all {sum(runs.values())}")
    if missing or untold:
        keep = Path("soak-failure")
        subprocess.run(["cp", "-r", str(site.folder), str(keep)], check=False)
        click.echo(f"missing: {missing[:20]}; everything is in {keep}")
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`python -m tests.soak [--tasks N] [--seconds S] [--kind gearmand|embedded] [--seed X]`: chaos, for minutes.

Three processes submit, two supervisors with two workers each run; meanwhile the job server (gearmand with libsqlite3,
or the embedded one), supervisors and worker processes are killed -9 at random, and once the outbox's disk is full. At
the end no id may be missing, and each id's story must be in the logs. What ran more than once is counted and printed.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import click

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
@click.option("--seed", default=1, show_default=True)
def main(tasks: int, seconds: float, kind: str, seed: int) -> None:  # noqa: PLR0915 - one story from top to bottom
    """Run the chaos and say what came of it; exit code 1 where an id is missing."""
    chance = random.Random(seed)
    events: Counter[str] = Counter()
    with bench(kind, durable=True) as site:
        share = tasks // 3
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
            what = chance.choices(["server", "supervisor", "child", "hup", "term"], [2, 2, 4, 1, 1])[0]
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
            events[what] += 1
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
            else:
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
        _report(site, submitted)


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

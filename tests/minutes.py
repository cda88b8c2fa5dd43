"""Real minutes: `python -m tests.minutes [MINUTES] [gearmand|embedded]`.

Two supervisors with state directories of their own and one job server run an entry that is due each minute. The clock
of the second is 28 seconds late. One or the other is killed right at a tick, again and again, and is started again a
few seconds later. In the end each tick has to have run once, and none may be missing: the exit code says so.
"""

import json
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime

from tests.clock import Clock
from tests.support import Bench, Worker, bench, until

APP = """
import json, os
from gearwsgi import GearmanMiddleware

def app(environ, start_response):
    with open(os.environ["RECORD"], "a") as record:
        record.write(environ["gearwsgi.job"].scheduled_at.isoformat() + "\\n")
    start_response("204 No Content", [])
    return []

application = GearmanMiddleware(app, schedule={"every": {"service": "/every", "cron": "* * * * *"}}, records="sqlite")
"""
BEHIND = (0, 28)


def start(made: Bench, number: int, clock: Clock) -> Worker:
    env = {"GEARWSGI_STATE_DIR": str(made.folder / f"state-{number}"), **clock.env}
    return made.start_worker(app="minutes:application", env=env)


def main(minutes: int, kind: str) -> int:
    with bench(kind) as made:
        (made.folder / "minutes.py").write_text(APP)
        clocks = [Clock(made.folder / f"clock-{number}", -behind) for number, behind in enumerate(BEHIND)]
        workers = [start(made, number, clocks[number]).ready() for number in (0, 1)]
        until(made.lines, "the first tick", patience=130)
        first = datetime.fromisoformat(made.lines()[0])
        print(f"first tick {first:%H:%M}, {kind}", flush=True)
        for _ in range(minutes):
            tick = (time.time() // 60 + 1) * 60
            time.sleep(max(0.0, tick - time.time() + random.choice([-0.2, 0.0, 0.05, 0.5])))
            number = random.choice([0, 1])
            workers[number].kill()
            time.sleep(random.choice([2, 10]))
            workers[number] = start(made, number, clocks[number]).ready()
            print(
                f"{datetime.now(UTC):%H:%M:%S} killed {number} at {tick % 3600 / 60:.0f}, {made.lines()[-1]}",
                flush=True,
            )
        time.sleep(10)
        runs = Counter(made.lines())
        last = int(time.time() // 60) * 60
        due = {datetime.fromtimestamp(at, UTC).isoformat() for at in range(int(first.timestamp()), last + 1, 60)}
        print(json.dumps(runs, indent=2))
        twice, lost = {tick for tick in runs if runs[tick] > 1}, due - set(runs)
        print(f"{len(due)} ticks, {len(twice)} ran twice, {len(lost)} did not run")
        return 1 if twice or lost else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(int(arguments[0]) if arguments else 5, arguments[1] if len(arguments) > 1 else "gearmand"))

"""How long each page of the dashboard takes, with 100,000 records of a day and 10,000 dead letters in SQLite.

`python -m benchmarks.dashboard`; the exit code is 1 where a page takes more than 300 ms.
"""

import random
import statistics
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

from gearwsgi.dashboard import Dashboard
from gearwsgi.state.records.letters import Letters
from tests.dashboards import DAY, REASONS, TRACEBACK, beat, bury, fail, make_row, middleware, open_store, put
from tests.support import JobServer

RECORDS, DEAD, ROUNDS, LIMIT = 100_000, 10_000, 7, 300.0


def fill(settings: Any) -> str:
    """The store and the folder of dead letters; the id of one that is dead."""
    dice, now = random.Random(1), time.time()
    rows = []
    for number in range(RECORDS):
        row = make_row(dice, now - DAY * (1 - number / RECORDS) - 1, number)
        is_dead = number % (RECORDS // DEAD) == 0
        rows.append(fail(row, dice.choice(REASONS), traceback=TRACEBACK) if is_dead else row)
    dead = [row for row in rows if row.state == "dead"]
    path = settings.state_dir / "dead" / f"{bury(settings, dead[0])}.http"
    with open_store(settings) as store:
        put(store, rows)
        beat(store, now)
        letters = Letters(store, settings)
        with store.database.transaction(write=True) as transaction:
            for row in dead:
                content = path.read_bytes().replace(dead[0].id.encode(), row.id.encode())
                path.with_name(f"{row.id}.http").write_bytes(content)
                letters.keep(transaction, row.id, row.id)
    return dead[0].id


def ask(dashboard: Dashboard, path: str) -> tuple[float, float]:
    """Milliseconds of the clock, and of the processor."""
    path, _, query = path.partition("?")
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query,
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(),
    }  # fmt: skip
    got: list[str] = []
    began, ran = time.perf_counter(), time.process_time()
    b"".join(dashboard(environ, lambda status, headers: got.append(status)))
    took = (time.perf_counter() - began) * 1000, (time.process_time() - ran) * 1000
    assert got == ["200 OK"], (path, got)
    return took


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="gearwsgi-") as name:
        server = JobServer("embedded", Path(name)).start()
        shop = middleware(Path(name) / "state", server.address)
        try:
            dead = fill(shop.settings)
            dashboard = Dashboard(shop, lambda environ: "ada")
            pages = (
                "/", "/?span=day", "/tasks", "/tasks?state=done&service=mail.welcome",
                "/tasks?reason=nobody-died-of-this", "/tasks?state=dead&reason=time-out", "/tasks?id=ab",
                f"/task?id={dead}", "/dead",
                "/dead?service=mail.welcome", "/dead/ask?do=retry", "/services", "/queues", "/outbox",
            )  # fmt: skip
            slow = 0
            print(f"{RECORDS:,} records, {DEAD:,} dead letters; milliseconds, the median of {ROUNDS}")
            for page in pages:
                rounds = [ask(dashboard, page) for _ in range(ROUNDS)]
                wall, cpu = (statistics.median(each[at] for each in rounds) for at in (0, 1))
                slow += wall > LIMIT
                print(f"{wall:7.1f}  {cpu:7.1f} of the processor  {page.replace(dead, 'ID')}", flush=True)
        finally:
            shop.client.close()
            server.stop()
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())

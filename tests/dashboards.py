"""A dashboard with something to show: records, a fleet, dead letters and an outbox, served by waitress in a thread."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import waitress

from gearwsgi import GearmanMiddleware
from gearwsgi.message.model import Message
from gearwsgi.message.response import write_response
from gearwsgi.policy import Outcome
from gearwsgi.settings import Settings
from gearwsgi.state.dead import DeadLetters
from gearwsgi.state.outbox import Outbox
from gearwsgi.state.records.letters import Letters
from gearwsgi.state.records.model import write_attempt
from gearwsgi.state.records.opening import open_database
from gearwsgi.state.records.rows import ENDED, RUNNING, Row, place
from gearwsgi.state.records.store import Store
from gearwsgi.wire.payload import Grabbed, Submission

HOUR, DAY = 3600.0, 86400.0
SERVICES = (
    ("mail.welcome", "mail", 0.09), ("image.resize", "images", 0.4), ("invoice.send", "mail", 0.2),
    ("search.index", "job", 0.05), ("report.daily", "job", 3.0), ("webhook.deliver", "job", 0.3),
)  # fmt: skip
REASONS = (
    "ConnectionError: [Errno 111] Connection refused",
    "status 503 Service Unavailable",
    "SMTPServerDisconnected: Connection unexpectedly closed",
    "time-out after 30 s",
)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/mail.py", line 41, in welcome
    with smtplib.SMTP(settings.MAIL_HOST, timeout=10) as server:
         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.13/smtplib.py", line 255, in __init__
    (code, msg) = self.connect(host, port)
                  ^^^^^^^^^^^^^^^^^^^^^^^^
ConnectionRefusedError: [Errno 111] Connection refused"""


def no_application(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return [b""]


def make_row(random: random.Random, queued: float, number: int, **changes: Any) -> Row:
    """A task of one of the services, that was done."""
    service, queue, usual = SERVICES[number % len(SERVICES)]
    waited, seconds = random.expovariate(4), usual * random.lognormvariate(0, 0.7)
    row = Row(
        id=f"{random.getrandbits(128):032x}", service=service, method="POST", path="/" + service.replace(".", "/"),
        queue=queue, priority="normal", state="done", queued=queued, due=None, started=queued + waited,
        ended=queued + waited + seconds, attempts=1, max_attempts=5, done=None, total=None, status=200, reason=None,
        host=f"web{number % 2 + 1}", pid=4200 + number % 4, request_id=None, traceparent=None, owner="s1",
        place=place(1, ENDED), changed=queued + waited + seconds, began=queued + waited, history="",
    )  # fmt: skip
    return replace(row, **changes)


def fail(row: Row, reason: str, *, attempts: int = 5, traceback: str | None = None) -> Row:
    """The same task, as it died at its last attempt, ten seconds apart."""
    began = [row.queued + 10 * number + 0.4 for number in range(attempts)]
    history = "".join(
        write_attempt(
            number + 1, start, start + 0.21, "dead" if number == attempts - 1 else "retried", host=row.host,
            pid=row.pid, status=None if traceback else 503, reason=reason, traceback=traceback,
        )
        for number, start in enumerate(began)
    )  # fmt: skip
    end = began[-1] + 0.21
    return replace(
        row, state="dead", attempts=attempts, status=None if traceback else 503, reason=reason, started=began[0],
        began=began[-1], ended=end, changed=end, history=history, place=place(attempts, ENDED),
    )  # fmt: skip


def put(store: Store, rows: list[Row]) -> None:
    """Write rows."""
    for start in range(0, len(rows), 1000):
        with store.database.transaction(write=True) as transaction:
            store.put(transaction, rows[start : start + 1000])


def bury(settings: Settings, row: Row, **message: Any) -> str:
    """A dead letter for a task; its name."""
    task = Message(
        method=row.method, path=row.path, host="shop.example.com", scheme="https", id=row.id, service=row.service,
        attempt=row.attempts, max_attempts=row.max_attempts, queued=row.queued,
        failures=tuple(f"attempt {number + 1}: {row.reason}" for number in range(row.attempts)),
        **{"headers": (("Content-Type", "application/json"),), "body": b'{"to": "ada@example.com"}', **message},
    )  # fmt: skip
    job = Grabbed(b"H:web1:1", row.queue.encode(), row.id.encode(), task.to_bytes())
    outcome = Outcome("exception", traceback=TRACEBACK)
    return DeadLetters(settings).put(job, task, row.reason or "", outcome).name


@contextlib.contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    database = open_database(settings)
    assert database is not None
    try:
        yield Store(database)
    finally:
        database.close()


def beat(store: Store, now: float) -> None:
    """Two supervisors that live, one of which has something to do, and one that is silent."""

    def worker(pid: int, **more: Any) -> dict[str, Any]:
        idle = {"pid": pid, "state": "idle", "job": "", "id": "", "service": "", "attempt": 0, "age": 0.0, "done": 31,
                "memory": "48M", "queues": ["job", "mail"], "ready": True}  # fmt: skip
        return {**idle, **more}

    busy = worker(4200, state="working", job="H:1", id="b" * 32, service="report.daily", attempt=1, age=42.5)
    about = {"app": "shop.wsgi:application", "version": "0.1.0", "stopping": False, "at": now}
    with store.database.transaction(write=True) as transaction:
        store.hear(transaction, "s1", now, {**about, "host": "web1", "pid": 4100, "workers": [busy, worker(4201)]})
        store.hear(transaction, "s2", now, {**about, "host": "web2", "pid": 3100, "workers": [worker(3201)]})
        store.hear(transaction, "s3", now - 25, {**about, "host": "web3", "pid": 900, "workers": [worker(901)]})


def fill(settings: Settings, *, tasks: int = 2000, dead: int = 40) -> dict[str, str]:
    """A day of a small shop; the ids of the tasks that tests look at, by what they are."""
    dice = random.Random(7)
    now = time.time()
    rows = [make_row(dice, now - DAY * (1 - (number / tasks) ** 0.5) - 20, number) for number in range(tasks)]
    failed = [
        fail(make_row(dice, now - DAY * (number / dead) ** 3 - 60, number), REASONS[number % 7 % len(REASONS)])
        for number in range(dead)
    ]
    died = fail(
        make_row(dice, now - 400, 0, request_id="f3a1c0de", traceparent=TRACEPARENT),
        "ConnectionRefusedError: [Errno 111] Connection refused", traceback=TRACEBACK,
    )  # fmt: skip
    runs = make_row(
        dice, now - 44, 4, id="b" * 32, state="running", ended=None, status=None, done=17, total=40,
        place=place(1, RUNNING), changed=now,
    )  # fmt: skip
    waits = fail(make_row(dice, now - 30, 5), "status 502 Bad Gateway", attempts=2)
    waits = replace(waits, state="retrying", ended=None, due=now + 95, place=place(2, RUNNING))
    later = make_row(dice, now - 50, 2, state="scheduled", due=now + HOUR, started=None, ended=None, began=None,
                     attempts=0, status=None, host=None, pid=None)  # fmt: skip
    done = make_row(dice, now - 12, 0)
    cancelled = make_row(dice, now - 300, 3, state="cancelled", status=None, started=None, began=None, attempts=0)
    rows += [*failed, died, runs, waits, later, done, cancelled]
    with open_store(settings) as store:
        put(store, rows)
        beat(store, now)
        with store.database.transaction(write=True) as transaction:
            headers = [("Content-Type", "application/json"), ("Set-Cookie", "session=s3cr3t")]
            store.keep_result(transaction, done.id, now + DAY, write_response("200 OK", headers, b'{"sent": 1}'))
        letters = Letters(store, settings)
        names = [bury(settings, row) for row in [*failed, died]]
        with store.database.transaction(write=True) as transaction:
            for name in names:
                letters.keep(transaction, name, name)
    submission = Submission("job", "u1", Message("POST", path="/search/index", id="c" * 32).to_bytes(), id="c" * 32)
    Outbox(settings).put(submission)
    return {"dead": died.id, "running": runs.id, "retrying": waits.id, "scheduled": later.id, "done": done.id,
            "cancelled": cancelled.id, "queued": "c" * 32}  # fmt: skip


@contextlib.contextmanager
def served(application: Any) -> Iterator[str]:
    """An application served by waitress in a thread; its address, without a slash at its end."""
    server: Any = waitress.create_server(application, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def end() -> None:
        for channel in list(server.active_channels.values()):  # a browser keeps its connections
            channel.handle_close()
        server.close()

    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.trigger.pull_trigger(end)  # in the server's own thread, which ends with its last connection
        thread.join()
        server.task_dispatcher.shutdown()


def middleware(folder: Path, server: str, **settings: Any) -> GearmanMiddleware:
    """A middleware whose state is in a folder."""
    given = {"records": "sqlite", "schedule": SCHEDULE, **settings}
    return GearmanMiddleware(no_application, servers=server, state_dir=folder, **given)


SCHEDULE = {
    "report.daily": {"cron": "0 6 * * *", "timezone": "Europe/Berlin"},
    "sweep <old>": {"service": "POST /sweep", "cron": "*/5 * * * *", "queue": "slow"},
}
"""What the application runs by the clock."""


def below(prefix: str, application: Any) -> Any:
    """An application that is mounted below a prefix, as its text is."""
    prefix = prefix.encode().decode("latin-1")

    def mounted(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path != prefix and not path.startswith(prefix + "/"):
            return no_application(environ, start_response)
        moved = {**environ, "SCRIPT_NAME": environ["SCRIPT_NAME"] + prefix, "PATH_INFO": path[len(prefix) :]}
        return application(moved, start_response)

    return mounted

"""Who is measured: how each one's worker is started, and how many jobs make a drain of about a second."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.venv import ROOT

BIN = Path(sys.prefix) / "bin"
QUEUED_APP = "benchmarks.peers.queued_app:application"


@dataclass(frozen=True)
class Player:
    key: str
    label: str
    server: str  # what holds its queue: gearmand, redis, or nothing
    worker: Callable[[int], list[str]]
    submits: int  # tasks a round, one by one
    jobs: int  # jobs a round, drained by one worker
    probe: str  # who submits for it
    pushes: bool = False  # the submitter calls the worker itself


def _gearwsgi(workers: int) -> list[str]:
    # As quiet as the others are: none of them writes a line for each job.
    return [*_logging(workers), "--log-level", "warning"]


def _logging(workers: int) -> list[str]:
    return [str(BIN / "gearwsgi"), "worker", QUEUED_APP, "--workers", str(workers)]


def _bare(_workers: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.bare"]


def _php(_workers: int) -> list[str]:
    return ["php", str(ROOT / "benchmarks" / "peers" / "original_worker.php")]


def _celery(workers: int) -> list[str]:
    # Without the chatter between workers, which favours it.
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app = ["-A", "benchmarks.peers.celery_app:app"]
    return [str(BIN / "celery"), *app, "worker", "-P", "prefork", "-c", str(workers), *quiet]


def _rq(*worker: str) -> Callable[[int], list[str]]:
    return lambda _workers: [str(BIN / "rq"), "worker", "-q", *worker, "-u", "REDIS", "bench"]


def _huey(workers: int) -> list[str]:
    kind = ["-k", "process"] if workers > 1 else ["-k", "thread"]
    return [str(BIN / "huey_consumer"), "benchmarks.peers.huey_app.huey", "-w", str(workers), *kind, "-q"]


def _dramatiq(workers: int) -> list[str]:
    return [str(BIN / "dramatiq"), "benchmarks.peers.dramatiq_app", "-p", str(workers)]


def _http(_workers: int) -> list[str]:
    return [str(BIN / "waitress-serve"), "--listen", "127.0.0.1:HTTP", "benchmarks.peers.flask_app:app"]


ALL = (
    Player("gearwsgi", "gearwsgi", "gearmand", _gearwsgi, 2000, 6000, "gearwsgi"),
    Player("logging", "gearwsgi with its log, two lines a job", "gearmand", _logging, 0, 6000, "gearwsgi"),
    Player("bare", "bare socket", "gearmand", _bare, 2000, 4000, "bare"),
    Player("php", "PHP original", "gearmand", _php, 2000, 6000, "php"),
    Player("celery", "Celery", "redis", _celery, 500, 1200, "celery"),
    Player("rq", "RQ SimpleWorker", "redis", _rq("-w", "rq.SimpleWorker"), 500, 400, "rq"),
    Player("rqfork", "RQ forking", "redis", _rq(), 0, 60, "rq"),
    Player("huey", "Huey", "redis", _huey, 2000, 3000, "huey"),
    Player("dramatiq", "Dramatiq", "redis", _dramatiq, 1000, 2500, "dramatiq"),
    Player("http", "HTTP push", "", _http, 0, 1500, "http", pushes=True),
)
BY_KEY = {player.key: player for player in ALL}


def missing() -> dict[str, str]:
    """Player → why it is left out, and how to get it."""
    absent: dict[str, str] = {}
    if shutil.which("redis-server") is None:
        why = "redis-server is not installed (Debian: apt-get install redis-server)"
        absent |= {player.key: why for player in ALL if player.server == "redis"}
    if not _php_has_gearman():
        absent["php"] = "php with its gearman extension is not installed (Debian: apt-get install php-cli php-gearman)"
    return absent


def _php_has_gearman() -> bool:
    if shutil.which("php") is None:
        return False
    answer = subprocess.run(["php", "-m"], capture_output=True, text=True, check=False, timeout=20)
    return "gearman" in answer.stdout.split()

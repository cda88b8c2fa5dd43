"""An application whose tasks have keys: each handler writes when it begins and when it ends, in one file for all."""

import json
import os
import time
from pathlib import Path

from gearwsgi import GearmanMiddleware

LIMITS = Path(__file__).parent / "limits.json"
GO = Path(__file__).parent / "go"


def record(*what):
    file = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (" ".join(map(str, what)) + "\n").encode())
    os.close(file)


def app(environ, start_response):
    job, said = environ["gearwsgi.job"], json.loads(environ["wsgi.input"].read() or b"{}")
    key, number = said.get("key", "-"), said.get("n", 0)
    record("begin", key, os.getpid(), number, f"{time.time():.3f}")
    if said.get("dies") and job.attempt == 1:
        record("died", key, os.getpid(), number, f"{time.time():.3f}")
        os._exit(9)
    time.sleep(said.get("seconds", 0))
    while said.get("waits") and not GO.exists():
        time.sleep(0.02)
    failed = said.get("fails") and job.attempt == 1
    record("end", key, os.getpid(), number, f"{time.time():.3f}")
    start_response("500 Oops" if failed else "204 No Content", [])
    return []


application = GearmanMiddleware(
    app, limits=json.loads(LIMITS.read_text()), backoff_min=0.2, backoff_max=0.3, keep_result=0
)

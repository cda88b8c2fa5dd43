"""The shortest handler that there is, behind gearwsgi: what is measured with it is the queue alone."""

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.work import work
from gearwsgi import GearmanMiddleware


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Stamp the job's slot."""
    data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    work(data["number"], data["wait"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


application = GearmanMiddleware(app, servers=os.environ["BENCH_GEARMAN"], state_dir=os.environ["BENCH_STATE_DIR"])

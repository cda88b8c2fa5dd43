"""One handler at two addresses: called directly, and deferred with the true response awaited."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from gearwsgi import GearmanMiddleware


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


application = GearmanMiddleware(
    app,
    servers=os.environ["BENCH_GEARMAN"],
    state_dir=os.environ["BENCH_STATE_DIR"],
    defer=[{"route": "POST /deferred", "wait": 30}],
)

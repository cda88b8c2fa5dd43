"""An application whose routes are deferred; each run in a worker is one line in the file RECORD names."""

import json
import os
import time
from typing import Any

from webob import Request, Response
from webob.dec import wsgify
from webob.exc import HTTPNotFound

from gearwsgi import GearmanMiddleware

JOB = "gearwsgi.job"


def record(line: str) -> None:
    fd = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (line + "\n").encode())
    os.close(fd)


def report(request: Request) -> Response:
    """What a worker or a request gets, and who ran it."""
    response = Response(content_type="text/csv", charset="utf-8")
    response.text = (
        f"{request.method} {request.url} {len(request.body)} {'job' if JOB in request.environ else 'direct'}"
    )
    response.headers["X-Own"] = "yes"
    response.headers["Connection"] = "close"
    response.headers.add("Set-Cookie", "a=1")
    response.headers.add("Set-Cookie", "b=2")
    response.headers["Cache-Control"] = "public, max-age=60"
    return response


def steps(request: Request) -> Response:
    """Progress up to as far as a file says, until it says end."""
    path, total = request.environ["HTTP_X_FILE"], 4
    while True:
        with open(path) as file:
            text = file.read()
        if text == "end":
            return report(request)
        request.environ[JOB].progress(int(text or 0), total)
        time.sleep(0.02)


def headers(request: Request) -> Response:
    return Response(json=dict(request.headers.items()))


def fail(request: Request) -> Response:
    if request.GET.get("raise"):
        raise ValueError("a secret reason")
    return Response(f"it is {request.GET['status']}", status=int(request.GET["status"]))


def handler(request: Request) -> Any:
    """Looks at the request and then leaves the work to a worker."""
    if JOB in request.environ:
        return report(request)
    if request.GET.get("bad"):
        return Response("bad", status=422)
    options = json.loads(request.GET.get("options", "{}"))
    return request.environ["gearman"].defer(**options) or report(request)


def moved(request: Request) -> Response:
    return Response(status=303, headerlist=[("Location", "../made/7")])


ROUTES = {
    "reports": report, "forms": report, "prefer": report, "waits": report, "few": report, "mine": report,
    "steps": steps, "headers": headers, "fail": fail, "handler": handler, "moved": moved, "plain": report,
}  # fmt: skip


@wsgify
def site(request: Request) -> Any:
    name = request.path_info.strip("/").partition("/")[0]
    if JOB in request.environ:
        record(f"{name} {request.body[:100].decode('latin-1')}".strip())
    if name not in ROUTES:
        raise HTTPNotFound("the application's own")
    return ROUTES[name](request)


DEFER: list[Any] = [
    "POST /reports/*",
    "/forms",
    {"route": "POST /prefer", "prefer": True},
    {"route": "/waits", "wait": 20},
    {"route": "POST /few", "max_waiting": 2, "queue": "few"},
    "POST /steps",
    {"route": "POST /headers", "inherit": ["Cookie"], "priority": "high", "max_attempts": 3},
    {"route": "POST /fail", "max_attempts": 1},
    "POST /moved",
]


def make(**settings: Any) -> GearmanMiddleware:
    return GearmanMiddleware(site, **{"defer": DEFER, "max_body": 100_000, "records": "sqlite", **settings})


application = make()

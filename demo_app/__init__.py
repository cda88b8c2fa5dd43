"""The demo: pages that queue work, and the services that do it, in one plain WSGI application.

A page calls `environ["gearman"].task(service, data)` and answers at once. The worker (`gearman-server.py`)
takes it from the queue and calls this very application with a POST request, the data as JSON in its body.
"""

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication

from webob import Request, Response
from webob.dec import wsgify
from webob.exc import HTTPBadRequest, HTTPNotFound

from gearwsgi import GearmanMiddleware
from gearwsgi.webhooks import hmac_header

FRONT_PAGE = Path(__file__).with_name("front.html").read_text(encoding="utf-8")
REPORT_PAGE = Path(__file__).with_name("report.html").read_text(encoding="utf-8")


def answer(data: dict[str, Any]) -> Response:
    text = json.dumps(data, ensure_ascii=False) + "\n"
    return Response(text.encode(errors="backslashreplace"), content_type="application/json")


def given(request: Request) -> dict[str, Any]:
    """Return what the request brings: a JSON object in the body, or else its parameters."""
    try:
        body = request.body
        if not body.startswith(b"{") and not (body and "json" in request.content_type):
            return dict(request.params.mixed())
        data = json.loads(body)
    except UnicodeDecodeError:
        raise HTTPBadRequest("The parameters are not UTF-8.") from None
    except ValueError as error:
        raise HTTPBadRequest(f"The body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise HTTPBadRequest("The body is JSON, but no object.")
    return data


# Pages: they queue a task and don't wait for it.


def front(request: Request) -> Response:
    return Response(FRONT_PAGE)


def queue(request: Request, service: str) -> Response:
    """Queue a service with the parameters of this request."""
    task = request.environ["gearman"].task(service, given(request))
    return answer({"queued": service, "task": task.id, "status": f"{request.application_url}/status?task={task.id}"})


def index(request: Request) -> Response:
    return queue(request, "default.index")


def test(request: Request) -> Response:
    return queue(request, "testTask")  # the alias below leads to Test.task, and that to /Test/task


def slow(request: Request) -> Response:
    return queue(request, "slow.count")


def flaky(request: Request) -> Response:
    return queue(request, "flaky.index")


def report(request: Request) -> Response:
    """A page whose form is deferred: the worker gets the same request, and makes the report in five seconds."""
    if request.method != "POST":
        return Response(REPORT_PAGE)
    lines = []
    for done in range(1, 21):
        time.sleep(0.25)  # the work
        lines.append(f"line {done:2}: {done * done:3}\n")
        if job := request.environ.get("gearwsgi.job"):
            job.progress(done, 20)
    return Response("".join(lines), content_type="text/plain", charset="utf-8")


def status(request: Request) -> Response:
    """Say how far a task is: the same address from its queueing to its end."""
    task = str(given(request).get("task", ""))
    return answer({"task": task, "status": str(request.environ["gearman"].status(task))})


# Services: the worker calls them, each with the task's data as the request's JSON body.


def default_index(request: Request) -> Response:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return answer({**given(request), "hello": "world", "timestamp": now})


def test_task(request: Request) -> Response:
    return answer({**given(request), "test": "done"})


def slow_count(request: Request) -> Response:
    """Take some seconds and say how far it is; /status shows it."""
    seconds = min(int(given(request).get("seconds", 5)), 60)
    for done in range(1, seconds + 1):
        time.sleep(1)  # the work
        request.environ["gearwsgi.job"].progress(done, seconds)
    return answer({"counted": seconds})


def flaky_index(request: Request) -> Response:
    """Fail twice, then succeed: a 503 is tried again, here after the two seconds that it asks for."""
    attempt = request.environ["gearwsgi.job"].attempt
    if attempt < 3:
        return Response(f"not yet: attempt {attempt}\n", status=503, retry_after=2, content_type="text/plain")
    return answer({**given(request), "attempt": attempt})


def demo_hook(request: Request) -> Response:
    """A webhook: its sender was answered when it was queued, and found genuine before that."""
    return answer({**given(request), "verified": request.environ["gearwsgi.job"].verified})


ROUTES = {
    "/": front,
    "/index/index": index,
    "/index/test": test,
    "/index/slow": slow,
    "/index/flaky": flaky,
    "/report": report,
    "/status": status,
    "/default/index": default_index,
    "/Test/task": test_task,
    "/slow/count": slow_count,
    "/flaky/index": flaky_index,
    "/hooks/demo": demo_hook,
}


def route(request: Request) -> Response:
    handler = ROUTES.get(request.environ["PATH_INFO"])
    if handler is None:
        raise HTTPNotFound()
    return handler(request)


pages: WSGIApplication = wsgify(route)  # for an application of yours, whatever framework it is made with

application = GearmanMiddleware(
    pages,
    # Without GEARMAN_SERVERS the worker brings a job server of its own, on 127.0.0.1:4730.
    servers=os.environ.get("GEARMAN_SERVERS") or "embedded",
    tasks={"testTask": "Test.task"},
    # The report is queued and answered 202; what becomes of it is told below /-/tasks.
    defer=["POST /report"],
    # Webhooks whose header X-Signature has the HMAC of their body; the front page shows how to send one.
    inbox=[{"route": "POST /hooks/demo", "verify": hmac_header("X-Signature", "the secret of the demo")}],
    # These read gearwsgi.job, which only a task has: from outside they answer 404.
    tasks_only=["/slow/*", "/flaky/*", "/hooks/*"],
)

"""A replay: calls the application once, as WSGI (PEP 3333) says, with a message, and judges what came of it."""

import contextvars
import functools
import io
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from .. import log
from ..environ import JOB_KEY, WSGIApplication
from ..errors import JobTimeout
from ..message.model import MAX_HEAD, Message, one_line, path_info
from ..message.response import write_response
from ..policy import Outcome, succeeded
from ..submit.frameworks import host_trouble
from .job import Continue, Course, Job, Retry, running

KEPT_BODY = 1 << 20
"""Bytes of a response's body that are kept; a longer body is read to its end and dropped."""
MAX_REASON = 500
"""Characters of an exception's text that are passed on; the log has its traceback."""
MAX_TRACEBACK = 16 * 1024
"""Characters of a traceback that go into the record and the dead letter; all of it is in the log."""
KEPT_OF_FAILURE = 4096
"""Bytes of a failed response's body that are shown in a dead letter."""


_STATUS = re.compile(r"[0-9]{3}(?: [^\x00-\x1f\x7f]*)?")
_PAIR = (tuple, list)
_ENDS_LINE = re.compile(r"[\x00\r\n]")


@dataclass(slots=True)
class Result:
    """What came of one attempt: the outcome, WORK_COMPLETE's data if it succeeded, its seconds, and what it raised.

    Attributes:
        error: the exception that the application raised, or that its framework turned into a failed response.
        kept: the whole response as a message, if it was to be kept and is short enough.
    """

    outcome: Outcome
    data: bytes
    seconds: float
    error: BaseException | None = None
    kept: bytes = b""


class _Response:
    """Collects what the application answers."""

    def __init__(self, keep_all: bool) -> None:
        self.status = ""
        self.code = 0
        self.headers: list[tuple[str, str]] = []
        self.size = 0
        self.sent = False
        self._keep_all = keep_all
        self._kept = bytearray()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """`start_response` of PEP 3333."""
        if exc_info:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise AssertionError("start_response called a second time without exc_info")
        if not isinstance(status, str) or not _STATUS.fullmatch(status):
            raise ValueError(f"start_response called with the status {status!r}, such as '200 OK' is wanted")
        pairs = list(headers)
        _check_headers(pairs)
        self.status, self.code, self.headers = status, int(status[:3]), pairs
        return self.write

    def write(self, chunk: bytes) -> None:
        """Add a part of the body."""
        if not isinstance(chunk, bytes):
            raise TypeError(f"the application's body holds {type(chunk).__name__}, not bytes")
        if chunk and not self.status:
            raise AssertionError("the application sent a body before it called start_response")
        if chunk:
            self.sent = True
            self.size += len(chunk)
            if self._keep_all or self.size <= KEPT_BODY:
                self._kept += chunk
            elif len(self._kept) > KEPT_OF_FAILURE:
                del self._kept[KEPT_OF_FAILURE:]

    @property
    def body(self) -> bytes:
        """The body; empty if it is too long to be kept."""
        return bytes(self._kept) if self._keep_all or self.size <= KEPT_BODY else b""

    def whole(self) -> bytes:
        """Status, headers and body as a message; empty if that is too long to be kept."""
        if self.size > KEPT_BODY:
            return b""
        message = write_response(self.status, self.headers, bytes(self._kept))
        return message if len(message) <= KEPT_BODY + MAX_HEAD else b""

    def beginning(self) -> bytes:
        """Status, headers and the first kilobytes of the body."""
        return write_response(self.status, self.headers, bytes(self._kept[:KEPT_OF_FAILURE]))

    def header(self, name: str) -> str:
        return next((str(value) for key, value in self.headers if key.lower() == name), "")


def _check_headers(pairs: list[Any]) -> None:
    """Refuse headers that a web server would refuse, so that a job fails where a request would."""
    for pair in pairs:
        if not (isinstance(pair, _PAIR) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str)):
            raise TypeError(f"start_response called with the header {pair!r}, such as ('Content-Type', 'text/plain')")
        text = pair[0] + pair[1]
        if not text.isprintable() and _ENDS_LINE.search(text):
            raise ValueError(f"start_response called with the header {pair!r}, which has a control character")


def make_environ(task: Message, job: Job, errors: Any) -> dict[str, Any]:
    """The environ of a replay: as a web server would make it, and the job; nothing of the submitting process."""
    path, query = path_info(task.path)
    task_id = job.id
    service, queue = job.service, job.queue
    if not (task_id.isascii() and service.isascii() and queue.isascii()):
        task_id, service, queue = _native(task_id), _native(service), _native(queue)
    server, port = _server(task.host)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": task.method,
        "SCRIPT_NAME": unquote_to_bytes(task.script_name).decode("latin-1") if task.script_name else "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": task.script_name + task.path or "/",
        "SERVER_NAME": server,
        "SERVER_PORT": port or ("443" if task.scheme == "https" else "80"),
        "SERVER_PROTOCOL": task.protocol,
        "REMOTE_ADDR": task.remote_addr or "127.0.0.1",
        "HTTP_HOST": task.host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": task.scheme,
        "wsgi.input": io.BytesIO(task.body),
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.errors": errors,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "HTTP_X_GEARMAN_TASK": task_id,
        "HTTP_X_GEARMAN_SERVICE": service,
        "HTTP_X_GEARMAN_QUEUE": queue,
        "HTTP_X_GEARMAN_ATTEMPT": str(job.attempt),
        "HTTP_X_GEARMAN_MAX_ATTEMPTS": str(job.max_attempts),
        "HTTP_IDEMPOTENCY_KEY": task_id,
        JOB_KEY: job,
    }
    if task.remote_user is not None:
        environ["REMOTE_USER"] = task.remote_user
    if task.scheduled is not None:
        environ["HTTP_X_GEARMAN_SCHEDULED"] = task.scheduled.isoformat()
    if task.body or task.has_length:
        environ["CONTENT_LENGTH"] = str(len(task.body))
    seen: set[str] = set()
    for name, value in task.headers:
        if "_" in name:
            continue  # as web servers do: in the environ it could not be told from the name with hyphens
        key = _environ_key(name)
        if key in seen:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ", ") + value  # noqa: PLW2901
        seen.add(key)
        environ[key] = value
    if "HTTP_USER_AGENT" not in seen:
        environ["HTTP_USER_AGENT"] = "gearwsgi"
    return environ


@functools.lru_cache(maxsize=64)
def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key == "CONTENT_TYPE" else "HTTP_" + key


@functools.lru_cache(maxsize=64)
def _server(host: str) -> tuple[str, str]:
    """SERVER_NAME, and the port if the Host names one."""
    if host.endswith("]"):
        return host.strip("[]"), ""
    name, _, port = host.rpartition(":")
    return (name or port or "localhost").strip("[]"), name and port


def _native(text: str) -> str:
    """Text as PEP 3333 wants it in an environ: a character for each byte of its UTF-8."""
    return text.encode("utf-8", "replace").decode("latin-1")


def run(
    app: WSGIApplication,
    task: Message,
    job: Job,
    errors: Any,
    context: contextvars.Context | None = None,
    *,
    keep: bool = False,
) -> Result:
    """Call `app` once with `task`, in a context of its own; returns what came of it. Raises nothing but `JobTimeout`.

    Args:
        app: the wrapped application.
        task: the message.
        job: what its handler may know about the job.
        errors: `wsgi.errors`, a text stream.
        context: what the job gets a copy of; None: an empty one.
        keep: whether the response is kept whole.

    Raises:
        JobTimeout: the caller's alarm went off, in the application or in this function.
    """
    began = time.perf_counter()
    response = _Response(keep_all=task.wants_reply)
    course = job.course
    error: BaseException | None = None
    try:
        own = contextvars.Context() if context is None else context.copy()
        own.run(_run, app, make_environ(task, job, errors), response, course)
    except JobTimeout:
        raise
    except BaseException as caught:  # even SystemExit: whatever the application does is the outcome of this attempt
        error = caught
        if task.wants_reply or not isinstance(caught, Continue):
            _show_traceback(errors, caught)
    outcome, data = _judge(app, task, course, response, error)
    if outcome.kind == "continued":
        return Result(outcome, data, time.perf_counter() - began)
    if error is None and course.error is not None and (task.wants_reply or not succeeded(outcome)):
        error = course.error
    if error is not None:
        outcome.traceback = format_traceback(error)
        outcome.raised = f"{type(error).__module__}.{type(error).__qualname__}"
    kept = response.whole() if keep and response.status and error is None and not task.wants_reply else b""
    return Result(outcome, data, time.perf_counter() - began, error, kept)


def _run(app: WSGIApplication, environ: dict[str, Any], response: _Response, course: Course) -> None:
    running.set(course)
    finishers: list[Callable[[bool, int], None]] = []
    course.finishers = finishers
    sent = False
    try:
        body = app(environ, response.start)
        try:
            if body is None:
                raise TypeError("the application returned None, not an iterable of bytes")
            for chunk in body:
                response.write(chunk)
            if not response.status:
                raise AssertionError("the application never called start_response")
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        sent = True
    finally:
        course.finishers = None
        for finish in finishers:
            finish(sent, response.code)


def _judge(
    app: WSGIApplication, task: Message, course: Course, response: _Response, error: BaseException | None
) -> tuple[Outcome, bytes]:
    if task.wants_reply:
        return _reply(response, error)
    if course.refused:
        return Outcome("refused", course.refused), b""
    retry = course.retry
    if error is not None or course.goes_on is not None:
        goes_on = _goes_on(course, response.code, error)
        if goes_on is not None:
            return goes_on.outcome(), b""
    if error is not None:
        delay = error.delay if isinstance(error, Retry) else retry.delay if retry else None
        return Outcome("exception", _in_words(error), retry_in=delay), b""
    status = response.code
    outcome = Outcome("response", response.status, status=status)
    if succeeded(outcome):
        return outcome, response.body
    if retry is not None and status >= 500:
        return Outcome(
            "exception", f"Retry: {retry}", status=status, retry_in=retry.delay, response=response.beginning()
        ), b""
    location = response.header("location") if 300 <= status < 400 else ""
    if course.accepts is not None and course.accepts(task, status, location):
        outcome.accepted = True
        return outcome, response.body
    caught = course.error if status >= 500 else None
    why = host_trouble(task.host, app) if status == 400 else _in_words(caught) if caught is not None else ""
    return Outcome(
        "response",
        response.status,
        status=status,
        caught=why,
        location=location,
        retry_after=response.header("retry-after"),
        never=response.header("x-gearman-retry").strip().lower() == "never",
        response=response.beginning(),
    ), b""


def _goes_on(course: Course, status: int, error: BaseException | None) -> Continue | None:
    """The `Continue` that the handler has raised, if the response or the exception comes from it."""
    if isinstance(error, Continue):
        return error
    asked = course.goes_on
    if asked is None or error is not None:
        return None
    is_why = asked.is_caught or (status >= 500 and course.error in (None, asked))
    return asked if is_why else None


def _in_words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # raised by the exception's own `__str__`: that must not matter here
        text = "<exception str() failed>"
    return one_line(f"{name}: {text}" if text else name, MAX_REASON)


def notice_exceptions() -> None:
    """Listen to Flask's and Django's signals for exceptions that they turn into a 500, so that reasons can name them.

    Only frameworks that the application has imported are asked: nothing depends on one. To be called when the
    application was loaded; calling it again does no harm.
    """
    for name in ("flask.signals", "django.core.signals"):
        module: Any = sys.modules.get(name)
        if module is not None:
            module.got_request_exception.connect(_notice)


def _notice(*arguments: Any, **keywords: Any) -> None:
    course = running.get(None)
    if course is not None:
        course.error = sys.exc_info()[1]


def _reply(response: _Response, error: BaseException | None) -> tuple[Outcome, bytes]:
    """The outcome of a `call()`: the whole response, whatever its status is: the caller decides what it means."""
    if error is not None:
        name = type(error).__name__
        data = error_reply(500, f"{name}: the worker's log has the traceback")
        return Outcome("response", f"500 after {name}", status=500), data
    whole = write_response(response.status, response.headers, response.body)
    return Outcome("response", response.status, status=response.code), whole


def error_reply(status: int, text: str) -> bytes:
    """A response that the queue makes for a `call()`, where the application gave none."""
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    return write_response(f"{status} {HTTPStatus(status).phrase}", headers, text.encode() + b"\n")


def _show_traceback(errors: Any, error: BaseException) -> None:
    errors.write("".join(_lines(error)))


def _lines(error: BaseException) -> list[str]:
    # The first frames are of this module.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return traceback.format_exception(type(error), error, trace)


def format_traceback(error: BaseException) -> str:
    """The traceback of an exception for records and dead letters; a long one without its middle."""
    return log.cut_middle("".join(_lines(error)), MAX_TRACEBACK)


def describe(task: Message, result: Result) -> str:
    """The log's line about what came of an attempt: status, service, milliseconds, the beginning of the body."""
    body = result.data.partition(b"\r\n\r\n")[2] if task.wants_reply else result.data
    return f"{result.outcome.reason} from {task.service} in {result.seconds * 1000:.1f} ms {log.excerpt(body)}".rstrip()

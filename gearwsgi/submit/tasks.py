"""`environ["gearman"]`: from a handler's `task()` and `call()` to a message, with the request's surroundings."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..environ import JOB_KEY, KEYS
from ..errors import InvalidTask
from ..message import targets
from ..message.bodies import encode_body
from ..message.model import Message, check_headers, safe_host
from ..message.plain import write_plain
from ..message.response import response_class
from ..settings import Settings
from ..wire.payload import Submission, make_unique, seal
from . import request as inhand
from .checks import _attempts, _check_priority, _checked_queue, _due, _positive, _seconds, _unique
from .client import Client, Receipt, Status
from .request import _FORWARDED, _header_safe

if TYPE_CHECKING:
    from webob import Response

_log = logging.getLogger("gearwsgi")

USER_AGENT = f"gearwsgi/{__version__}"
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})

Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]
After = Callable[[Callable[[], None]], object]
"""Takes a function and calls it when the time has come, or never."""


class Task:
    """A task that was queued.

    Attributes:
        id: the same in all attempts; a handler sees it as `Idempotency-Key`.
        handle: the job server's; empty while the task waits in the outbox, for `after_response` or for `after`.
        service: what was called.
        queue: the queue (Gearman function).
        server: the job server that has it, as `host:port`.
    """

    __slots__ = ("handle", "id", "max_attempts", "queue", "server", "service", "unique")

    def __init__(self, id: str, service: str, queue: str, unique: str, max_attempts: int) -> None:
        self.id = id
        self.service = service
        self.queue = queue
        self.unique = unique
        self.max_attempts = max_attempts
        self.handle = ""
        self.server = ""

    def __str__(self) -> str:
        return self.handle

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.service} in {self.queue} {self.handle or 'in the outbox'}>"


class Gearman:
    """What a handler queues its tasks with, and a script too (`application.gearman`).

    Args:
        client: the middleware's.
        environ: the request's; None where there is no request.
    """

    __slots__ = (
        "_client", "_count", "_environ", "_host", "_method", "_path_info", "_query", "_scheme", "_script_name",
        "_settings", "deferred",
    )  # fmt: skip

    def __init__(self, client: Client, environ: dict[str, Any] | None) -> None:
        self._client = client
        self._settings: Settings = client.settings
        self._environ = environ
        self._count = 0
        self.deferred: list[tuple[Task, Submission]] | None = None
        # Taken now: frameworks that mount applications change these in place.
        if environ is None:
            self._scheme: str | None = "http"
            self._host: str | None = "localhost"
            self._script_name: str | None = ""
            self._method = self._path_info = self._query = ""
        else:
            self._scheme = environ.get("wsgi.url_scheme")
            self._host = environ.get("HTTP_HOST")
            self._script_name = environ.get("SCRIPT_NAME")
            self._method = environ.get("REQUEST_METHOD", "GET")
            self._path_info = environ.get("PATH_INFO", "")
            self._query = environ.get("QUERY_STRING", "")

    def task(
        self,
        service: str,
        data: Any = None,
        queue: str | None = None,
        *,
        form: Pairs | None = None,
        files: Pairs | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        method: str | None = None,
        priority: str = "normal",
        unique: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        max_attempts: int | None = None,
        backoff_min: float | None = None,
        backoff_max: float | None = None,
        timeout: float | None = None,
        keep_result: float | None = None,
        after_response: bool = False,
        after: After | None = None,
        plain: bool | None = None,
    ) -> Task:
        """Queue a request for `service`, to be run by a worker through this same application.

        Args:
            service: an alias, `/path?query`, `METHOD /path`, or a dotted name.
            data: sent as JSON; with GET, HEAD and DELETE as the query.
            queue: the Gearman function; the middleware's `queue` where it is not given.
            form: sent as a form (a dict or pairs; a list repeats its key).
            files: sent as an upload, beside `form`: bytes, open files, or (file name, bytes[, content type]).
            body: sent as it is.
            content_type: of the body.
            params: added to the query string.
            headers: added to the request.
            method: instead of the service's.
            priority: `high`, `normal` or `low`.
            unique: while a task with this key is queued or running, another is dropped, and its answer is the first
                one's handle. At most 63 bytes.
            delay: seconds to wait.
            at: when to run, with a time zone.
            max_attempts: how often it is tried.
            backoff_min: as the setting, for this task.
            backoff_max: as the setting, for this task.
            timeout: seconds that one attempt may take.
            keep_result: seconds that its response is kept for `result()`; as the setting where it is not given.
            after_response: submit when this request's response was sent, with a status under 400.
            after: called at once with a function that submits, to be called later: `transaction.on_commit`, say.
            plain: send the plain JSON call that PhalApi's workers run.

        Returns:
            The task: a job server has it, or the outbox has it on disk.

        Raises:
            InvalidTask: something given can't be a request; nothing is queued. `UnknownService` is one.
            ServerUnavailable: `on_unavailable="raise"` and no job server answers.
            ServerError: the job server refused it.
            SpoolError: no job server answers and the outbox can't be written.
        """
        settings = self._settings
        queue = settings.queue if queue is None else _checked_queue(queue)
        due = _due(delay, at) if delay is not None or at is not None else 0.0
        if priority != "normal":
            _check_priority(priority)
        if plain is None:
            plain = queue in settings.plain_queues
        task_id = os.urandom(16).hex()
        if plain:
            self._refuse_with_plain(form, files, body, content_type, params, headers, method)
            task = Task(task_id, service, queue, _unique(unique, task_id), 1)
            payload = write_plain(self._plain_name(service), data)
            if len(payload) > settings.max_body:
                raise InvalidTask(f"a plain call of {len(payload)} bytes is over max_body={settings.max_body}")
        else:
            message = self._message(
                task_id, service, data, form, files, body, content_type, params, headers, method, timeout
            )
            if backoff_min is not None or backoff_max is not None:
                message.backoff = self._backoff(service, backoff_min, backoff_max)
            if keep_result is not None:
                message.keep_result = _seconds(keep_result, "keep_result")
            task, payload = self._seal(message, queue, priority, unique, max_attempts, due)
        submission = Submission(queue, task.unique, payload, priority, due, task_id)
        self._submit(task, submission, after_response, after)
        return task

    def call(
        self,
        service: str,
        data: Any = None,
        queue: str | None = None,
        *,
        form: Pairs | None = None,
        files: Pairs | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        method: str | None = None,
        priority: str = "normal",
        unique: str | None = None,
        timeout: float | None = None,
    ) -> "Response":
        """Have `service` run by a worker and wait for its response, whatever its status. Nothing is retried.

        Args:
            timeout: seconds to wait; the middleware's `job_timeout` where it is not given.

        The other arguments are `task()`'s.

        Returns:
            The application's response, untouched; 500 where it raised, 502 where its worker died, 504 where it ran
            over its time limit.

        Raises:
            InvalidTask: as `task()`.
            CallTimeout: no response in time.
            CallFailed: the worker refused the message.
            ServerUnavailable: no job server answers.
        """
        queue = self._settings.queue if queue is None else _checked_queue(queue)
        _check_priority(priority)
        seconds = self._settings.job_timeout if timeout is None else _positive(timeout, "timeout")
        task_id = os.urandom(16).hex()
        message = self._message(
            task_id, service, data, form, files, body, content_type, params, headers, method, timeout
        )
        message.priority, message.wants_reply, message.max_attempts = priority, True, 1
        message.queued = time.time()
        payload = seal(message, queue, self._settings, message.queued)
        submission = Submission(queue, _unique(unique, task_id), payload, priority, id=task_id)
        status, pairs, content = self._client.call(submission, seconds)
        return response_class()(status=status, headerlist=pairs, app_iter=[content])

    def replay(
        self,
        queue: str | None = None,
        *,
        body: bytes | None = None,
        priority: str = "normal",
        unique: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: float | None = None,
        keep_result: float | None = None,
        after_response: bool = False,
        after: After | None = None,
    ) -> Task:
        """Queue the request in hand itself, to be run again by a worker: method, target, headers and body.

        They are taken as they entered the middleware. Cookies and Authorization stay behind unless `inherit=` names
        them.

        Args:
            body: the request's, where something has read it before: `request.get_data()` in Flask, `request.body` in
                Django. Else it is read here, and put back for who reads it next.

        The other arguments are `task()`'s.

        Raises:
            InvalidTask: there is no request in hand, it is a replay already, or its body can't be read any more.
        """
        environ = self._environ
        if environ is None:
            raise InvalidTask("replay() needs a request: use environ['gearman'] in a handler")
        if JOB_KEY in environ:
            raise InvalidTask("this request is a replay already; look for environ['gearwsgi.job'] first")
        queue = self._settings.queue if queue is None else _checked_queue(queue)
        due = _due(delay, at)
        _check_priority(priority)
        path = inhand.target(environ, self._script_name or "", self._path_info, self._query)
        content = inhand.read_body(environ, self._settings.max_body) if body is None else bytes(body)
        self._check_size(content)
        task_id = os.urandom(16).hex()
        message = self._assemble(
            task_id, path or "/", targets.Target(self._method, path), check_headers(inhand.headers(environ)), content,
            environ.get("CONTENT_TYPE") or None, bool(content or environ.get("CONTENT_LENGTH")), timeout,
        )  # fmt: skip
        if keep_result is not None:
            message.keep_result = _seconds(keep_result, "keep_result")
        task, payload = self._seal(message, queue, priority, unique, max_attempts, due)
        submission = Submission(queue, task.unique, payload, priority, due, task_id)
        self._submit(task, submission, after_response, after)
        return task

    def status(self, task: Task | str) -> Status:
        """What the job servers know of a task, or of the job with this handle: queued, running n of m, or unknown.

        Raises:
            ServerUnavailable: no job server answers.
        """
        if isinstance(task, str):
            return self._client.status(task, "")
        if self._client.outbox.holds(task.id) or any(task is waiting for waiting, _ in self.deferred or ()):
            return Status("queued")
        attempts = [make_unique(task.id, attempt) for attempt in range(2, min(task.max_attempts, 20) + 1)]
        if not task.handle:
            attempts.insert(0, task.unique)
        return self._client.status(task.handle, task.server, attempts)

    # -- from what was given to a message ----------------------------------------------------------------------------

    def _message(
        self,
        task_id: str,
        service: str,
        data: Any,
        form: Pairs | None,
        files: Pairs | None,
        body: bytes | None,
        content_type: str | None,
        params: Pairs | None,
        headers: Pairs | None,
        method: str | None,
        timeout: float | None,
    ) -> Message:
        settings = self._settings
        target = targets.resolve(service, settings.tasks, settings.resolver, method)
        if data is not None and targets.takes_query(target.method) and form is None and body is None:
            target, data = target._replace(path=targets.add_query(target.path, data)), None
        if params is not None:
            target = target._replace(path=targets.add_query(target.path, params))
        content, kind = encode_body(data=data, form=form, files=files, body=body, content_type=content_type)
        self._check_size(content)
        own = check_headers(headers) if headers is not None else []
        if content_type is not None and any(name.lower() == "content-type" for name, _ in own):
            raise InvalidTask("Content-Type is given twice: as content_type= and in headers=")
        # RFC 9110, section 8.6: with these a client says a length even where there is nothing; some frameworks insist.
        has_length = kind is not None or target.method in _WITH_LENGTH
        return self._assemble(task_id, service, target, own, content, kind, has_length, timeout)

    def _check_size(self, content: bytes) -> None:
        if len(content) > self._settings.max_body:
            raise InvalidTask(f"a body of {len(content)} bytes is over max_body={self._settings.max_body}")

    def _assemble(
        self,
        task_id: str,
        service: str,
        target: targets.Target,
        own: list[tuple[str, str]],
        content: bytes,
        kind: str | None,
        has_length: bool,
        timeout: float | None,
    ) -> Message:
        """The message to `target`: the request's surroundings, the caller's `own` headers over them, the body."""
        settings = self._settings
        pairs = self._surroundings()
        host = self._safe_host()
        given: set[str] = set()
        if own:
            given = {name.lower() for name, _ in own}
            if "host" in given:
                host = next(value for name, value in own if name.lower() == "host")
                own = [pair for pair in own if pair[0].lower() != "host"]
                if not safe_host(host):
                    raise InvalidTask(f"Host {host!r} can't be one")
            pairs = [pair for pair in pairs if pair[0].lower() not in given] + own
        if kind is not None and "content-type" not in given:
            pairs.append(("Content-Type", kind))
        if "idempotency-key" not in given:
            pairs.append(("Idempotency-Key", task_id))
        environ = self._environ
        message = Message(
            target.method, "https" if self._scheme == "https" else "http", host, self._mount(),
            target.path, pairs, content, has_length, task_id, service,
        )  # fmt: skip
        if timeout is not None:
            message.timeout = _positive(timeout, "timeout")
        if environ is not None:
            message.remote_addr = _header_safe(environ.get("REMOTE_ADDR"))
            if "remote-user" in settings.inherit:
                message.remote_user = _header_safe(environ.get("REMOTE_USER")) or None
        return message

    def _mount(self) -> str:
        """SCRIPT_NAME, percent-encoded."""
        return inhand.quote_path(self._script_name).rstrip("/") if self._script_name else ""

    def _seal(
        self, message: Message, queue: str, priority: str, unique: str | None, max_attempts: int | None, due: float
    ) -> tuple[Task, bytes]:
        """The task that `message` is, and its bytes."""
        settings = self._settings
        message.priority = priority
        message.max_attempts = _attempts(max_attempts) or settings.retry_limits(message).max_attempts
        message.queued, message.due = time.time(), due
        task = Task(message.id, message.service, queue, _unique(unique, message.id), message.max_attempts)
        return task, seal(message, queue, settings, due or message.queued)

    def _surroundings(self) -> list[tuple[str, str]]:
        """The headers of the request in hand that travel: what correlates, and what `inherit=` names."""
        pairs = [("User-Agent", USER_AGENT)]
        environ = self._environ
        if environ is None:
            return pairs
        for key, name in _FORWARDED:
            value = environ.get(key)
            if value is not None:
                pairs.append((name, _header_safe(value)))
        for name in self._settings.inherit:
            value = environ.get("HTTP_" + name.upper().replace("-", "_"))
            if value is not None and name != "remote-user":
                pairs = [pair for pair in pairs if pair[0].lower() != name]
                pairs.append((name.title(), _header_safe(value)))
        return pairs

    def _safe_host(self) -> str:
        """The request's host; where a client sent one that can't be, the server's own name."""
        host = self._host
        if host is not None and safe_host(host):
            return host
        environ = self._environ or {}
        port = str(environ.get("SERVER_PORT", ""))
        default = "443" if self._scheme == "https" else "80"
        host = str(environ.get("SERVER_NAME", "localhost")) + (f":{port}" if port not in ("", default) else "")
        return host if safe_host(host) else "localhost"

    def _backoff(self, service: str, low: float | None, high: float | None) -> tuple[float, float]:
        limits = self._settings.retry_limits(Message("POST", service=service))
        low = limits.backoff_min if low is None else _positive(low, "backoff_min")
        return low, max(low, limits.backoff_max if high is None else _positive(high, "backoff_max"))

    def _plain_name(self, service: str) -> str:
        """What a PHP worker knows a service by: an alias stands for its value, as in the original."""
        if not isinstance(service, str) or not service or not service.isprintable():
            raise InvalidTask(f"service {service!r} can't be one")
        entry = self._settings.tasks.get(service)
        return entry.target if entry is not None else service

    @staticmethod
    def _refuse_with_plain(*given: Any) -> None:
        names = ("form", "files", "body", "content_type", "params", "headers", "method")
        for name, value in zip(names, given, strict=True):
            if value is not None:
                raise InvalidTask(f"{name} is given for a plain call, which carries a service's name and data only")

    # -- to the job server -------------------------------------------------------------------------------------------

    def _submit(self, task: Task, submission: Submission, after_response: bool, after: After | None) -> None:
        if self._environ is not None:
            self._count += 1
            if self._count > self._settings.max_tasks_per_request:
                raise InvalidTask(
                    f"this request has queued max_tasks_per_request={self._settings.max_tasks_per_request} tasks; "
                    "queue one task that does them all"
                )
        if after is not None:
            if after_response:
                raise InvalidTask("after_response and after are given together: give one")
            after(lambda: self._submit_now(task, submission))
            return
        if after_response:
            if self.deferred is None:
                raise InvalidTask("after_response=True after the response, or without a request: call it in a handler")
            self.deferred.append((task, submission))
            return
        self._submit_now(task, submission)

    def _submit_now(self, task: Task, submission: Submission) -> None:
        (receipt,) = self._client.submit((submission,))
        _note(task, receipt)

    def finish(self, sent: bool, status: int) -> None:
        """The response is over: submit what waits for it, in one write, or forget it.

        Args:
            sent: whether it went out to its end and was closed without an exception.
            status: its number; 0: there is none.
        """
        waiting, self.deferred = self.deferred, None
        if self._environ is not None:
            # A copy without this object: no circle that would keep each request until a garbage collection.
            self._environ = environ = self._environ.copy()
            for key in KEYS:
                environ.pop(key, None)
        if not waiting:
            return
        if sent and 0 < status < 400:
            receipts = self._client.submit([submission for _, submission in waiting])
            for (task, _), receipt in zip(waiting, receipts, strict=True):
                _note(task, receipt)
            return
        why = f"the response's status is {status}" if sent else "the response was not sent to its end and closed"
        for task, _ in waiting:
            _log.info("id %s %s is not queued: %s", task.id, task.service, why)


def _note(task: Task, receipt: Receipt) -> None:
    task.handle, task.server = receipt
    if _log.isEnabledFor(logging.INFO):
        where = f"as {task.handle} on {task.server}" if task.handle else "in the outbox: no job server answers"
        _log.info("queued %s in %s %s, id %s", task.service, task.queue, where, task.id)

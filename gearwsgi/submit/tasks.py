"""`environ["gearman"]`: from a handler's `task()` and `call()` to a message, with the request's surroundings."""

import os
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from ..errors import ConfigError, InvalidTask
from ..kinds import BaseURL
from ..message.followups import FollowUp
from ..message.limits import split_queue
from ..message.model import Message
from ..message.plain import write_plain
from ..message.response import response_class
from ..rules import Given as DeferGiven
from ..rules import Options, read_options
from ..settings import Settings
from ..telemetry import tracing
from ..wire.payload import Submission, seal
from . import checks
from .asking import Asking
from .client import Client
from .compose import Given, Pairs, Wanted, backoff, compose, plain_name, refuse_with_plain, surround
from .frameworks import known_base_url
from .request import BodyError, InHand
from .sending import After, drop
from .task import Task

if TYPE_CHECKING:
    from webob import Response

_NO_REQUEST = "%s needs a request: use environ['gearman'] in a handler"


class Gearman(Asking):
    """What a handler queues its tasks with, and a script too (`application.gearman`).

    Args:
        client: the middleware's.
        environ: the request's; None where there is no request.
        sees_response: whether `finish` is called at the response's end.
        base: what the application's URLs begin with where there is no request; the setting `base_url` where it is not
            given.
    """

    __slots__ = ("_base", "_entered", "_settings")
    traces = True
    """Whether what it queues is a span, where the application has OpenTelemetry."""

    def __init__(
        self,
        client: Client,
        environ: dict[str, Any] | None,
        sees_response: bool = False,
        *,
        base: BaseURL | None = None,
    ) -> None:
        self._client = client
        self._environ = environ
        self._in_hand = None
        if environ is not None:
            method, scheme, host, mount, path, query = InHand.ENTERED
            get = environ.get
            self._entered = get(method), get(scheme), get(host), get(mount), get(path), get(query)
        self._count = 0
        self._waiting = []
        self._sees_response = sees_response
        self._settings: Settings = client.settings
        self._base = base

    @property
    def client(self) -> Client:
        """What it queues with."""
        return self._client

    def use(self, client: Client) -> None:
        """Queue with this client from now on: the test kit's, say."""
        self._client, self._settings = client, client.settings

    @property
    def _request(self) -> InHand | None:
        """The request in hand, once it is asked for."""
        if self._in_hand is None and self._environ is not None:
            self._in_hand = InHand(self._environ, self._entered)
        return self._in_hand

    @property
    def base(self) -> BaseURL:
        """What the application's URLs begin with: the request's, or that of `base_url`."""
        if self._base is None:
            request = self._request
            self._base = request.base() if request is not None else self._settings.base_url or known_base_url()
        return self._base

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
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        max_attempts: int | None = None,
        backoff_min: float | None = None,
        backoff_max: float | None = None,
        timeout: float | None = None,
        keep_result: float | None = None,
        succeeds: Iterable[int] = (),
        then: Wanted | None = None,
        on_dead: Wanted | None = None,
        identity: str | None = None,
        limit: str | None = None,
        json: Any = None,
        target: str | None = None,
        recorded: bool = False,
        after_response: bool = False,
        after: After | None = None,
        plain: bool | None = None,
    ) -> Task:
        """Queue a request for `service`, to be run by a worker through this same application.

        Args:
            service: an alias, `/path?query`, `METHOD /path`, or a dotted name.
            data: sent as JSON; with GET, HEAD and DELETE as the query. Dates and times go in ISO 8601, UUID and Decimal
                as text, a dataclass as its fields.
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
            delay: seconds to wait, or a timedelta.
            at: when to run, with a time zone.
            max_attempts: how often it is tried.
            backoff_min: as the setting, for this task.
            backoff_max: as the setting, for this task.
            timeout: seconds that one attempt may take.
            keep_result: seconds that its response is kept for `result()`; as the setting where it is not given.
            succeeds: statuses beside 2xx that mean that the work is done: `(302, 303)` for a form's handler.
            then: what is queued when it has gone well: a service, or a dict with what `task()` takes. Its data is
                `{"id", "service", "status", "reason", "data"}`: of this task, with this task's data where that is JSON.
            on_dead: what is queued when it is dead; as `then`.
            identity: `user`: it runs as the user whose request is in hand (Django, Flask-Login); empty: as nobody; as
                the setting where it is not given.
            limit: its key (`stripe:42`), of which no more run at once, or start in a time, than the setting `limits`
                says for it: more of them wait.
            json: what writes `data`, as the setting `json`.
            target: `/path` or `METHOD /path`, where `service` is only what log and records are to call it.
            recorded: write its record, with its message, as soon as it is queued: it is known before a worker sees it.
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
        queue = settings.queue if queue is None else checks.checked_queue(queue)
        due = checks.due(delay, at) if delay is not None or at is not None else 0.0
        if priority != "normal":
            checks.check_priority(priority)
        if plain is None:
            plain = queue in settings.plain_queues
        if limit is not None or settings.limits:
            queue = checks.limited_queue(queue, limit, service, settings)
        task_id = os.urandom(16).hex()
        given = Given(service, data, form, files, body, content_type, params, headers, method, target)
        if plain:
            refuse_with_plain(given)
            if identity:
                raise InvalidTask("identity is given for a plain call, which carries a service and data only")
            if then is not None or on_dead is not None:
                raise InvalidTask("then or on_dead is given for a plain call, which carries a service and data only")
            task = Task(task_id, service, split_queue(queue)[0], checks.unique(unique, task_id), 1)
            payload = write_plain(plain_name(service, settings), data, checks.encoder(json) or settings.json)
            if len(payload) > settings.max_body:
                raise InvalidTask(f"a plain call of {len(payload)} bytes is over max_body={settings.max_body}")
            if tracing.MODULE in sys.modules and self.traces:
                task.span = tracing.begin_send(task, None)
        else:
            message = compose(given, task_id, settings, self._request, self.base, json)
            if identity is not None or settings.identity is not None:
                self._identify(message, identity)
            if then is not None or on_dead is not None:
                message.then, message.on_dead = self._follow_ups(then, on_dead)
            if backoff_min is not None or backoff_max is not None:
                message.backoff = backoff(settings, service, backoff_min, backoff_max)
            if keep_result is not None:
                message.keep_result = checks.seconds(keep_result, "keep_result")
            if succeeds:
                message.succeeds = checks.statuses(succeeds)
            task, payload = self._seal(message, queue, priority, unique, max_attempts, timeout, due)
        submission = Submission(queue, task.unique, payload, priority, due, task_id, recorded=recorded)
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
        limit: str | None = None,
        json: Any = None,
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
        settings = self._settings
        queue = settings.queue if queue is None else checks.checked_queue(queue)
        checks.check_priority(priority)
        seconds = settings.job_timeout if timeout is None else checks.positive(timeout, "timeout")
        if limit is not None or settings.limits:
            queue = checks.limited_queue(queue, limit, service, settings)
        task_id = os.urandom(16).hex()
        given = Given(service, data, form, files, body, content_type, params, headers, method)
        message = compose(given, task_id, settings, self._request, self.base, json)
        self._identify(message, None)
        message.wants_reply = True
        task, payload = self._seal(message, queue, priority, unique, 1, timeout, 0.0)
        submission = Submission(queue, task.unique, payload, priority, id=task_id)
        try:
            status, pairs, content = self._client.call(submission, seconds)
        except BaseException as error:
            drop((task,), error)
            raise
        if task.span is not None:
            task.span.end()
        return response_class()(status=status, headerlist=pairs, app_iter=[content])

    def replay(
        self,
        queue: str | None = None,
        *,
        body: bytes | None = None,
        priority: str = "normal",
        unique: str | None = None,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        max_attempts: int | None = None,
        backoff_min: float | None = None,
        backoff_max: float | None = None,
        timeout: float | None = None,
        keep_result: float | None = None,
        then: Wanted | None = None,
        on_dead: Wanted | None = None,
        identity: str | None = None,
        limit: str | None = None,
        verified: bool = False,
        after_response: bool = False,
        after: After | None = None,
    ) -> Task:
        """Queue the request in hand itself, to be run again by a worker: method, target, headers and body.

        They are taken as they entered the middleware. Cookies and Authorization stay behind unless `inherit=` names
        them.

        Args:
            body: the request's, where something has read it before: `request.get_data()` in Flask, `request.body` in
                Django. Else it is read here, and put back for who reads it next.
            verified: you have found its sender genuine: `job.verified` says so in the replay.

        The other arguments are `task()`'s.

        Raises:
            InvalidTask: there is no request in hand, it is a replay already, or its body can't be read any more.
        """
        settings = self._settings
        queue = settings.queue if queue is None else checks.checked_queue(queue)
        if limit is not None:
            queue = checks.limited_queue(queue, limit, "", settings)
        due = checks.due(delay, at)
        checks.check_priority(priority)
        message = self._message_of_request("replay()", os.urandom(16).hex(), body)
        message.then, message.on_dead = self._follow_ups(then, on_dead)
        self._identify(message, identity)
        message.verified = verified
        if backoff_min is not None or backoff_max is not None:
            message.backoff = backoff(settings, message.service, backoff_min, backoff_max)
        if keep_result is not None:
            message.keep_result = checks.seconds(keep_result, "keep_result")
        task, payload = self._seal(message, queue, priority, unique, max_attempts, timeout, due)
        submission = Submission(queue, task.unique, payload, priority, due, task.id)
        self._submit(task, submission, after_response, after)
        return task

    def defer(self, *, body: bytes | None = None, **options: Unpack[DeferGiven]) -> "Response | None":
        """Queue the request in hand, and answer `202 Accepted` with the address that tells what becomes of it.

        For a handler that has looked at the request and leaves the work to a worker, which calls it again with the
        same request: `if "gearwsgi.job" not in environ: return environ["gearman"].defer()`.

        Args:
            body: the request's, as `replay()` has it.
            options: what a rule of the setting `defer` takes beside its route and owner: `wait`, `queue`,
                `keep_result` (an hour where it is not given), `max_waiting` and the others.

        Returns:
            The answer, a WSGI application. Where the request is not queued, it says why: 413 for a body over
            `max_body`, 503 for a queue that is full or can't be reached. With `wait` it may be the handler's own
            response. None where `prefer=True` is given and the client did not ask for it.

        Raises:
            InvalidTask: an option can't work, there is no request in hand, or it is a replay already.
        """
        from .deferral import queueing  # where it is used

        if self._environ is None:
            raise InvalidTask(_NO_REQUEST % "defer()")
        try:
            read = read_options(options)
        except ConfigError as error:
            raise InvalidTask(f"defer(): {error}") from None
        self._client.show_status()
        answer = queueing.defer(self, self._environ, read, None, body)
        return answer.response() if answer is not None else None

    def queue_request(
        self, options: Options, task_id: str, body: bytes | None = None, awaited: tuple[str, float] | None = None
    ) -> Task:
        """Queue the request in hand, as a rule says.

        Args:
            options: how.
            task_id: the id that it gets.
            body: as `replay()` has it.
            awaited: the mailbox where its response is waited for, and until when (Unix time).

        Raises:
            InvalidTask, ServerUnavailable, ServerError, SpoolError: as `replay()`.
        """
        settings = self._settings
        message = self._message_of_request("defer()", task_id, body, options.inherit)
        self._identify(message, options.identity)
        message.keep_result, message.succeeds, message.awaited = options.keep_result, options.succeeds, awaited
        if options.backoff_min is not None or options.backoff_max is not None:
            message.backoff = backoff(settings, message.service, options.backoff_min, options.backoff_max)
        queue = options.queue or settings.queue
        if options.limit is not None:
            queue = checks.limited_queue(queue, options.limit, "", settings)
        due = checks.due(options.delay, None)
        task, payload = self._seal(message, queue, options.priority, None, options.max_attempts, options.timeout, due)
        self._submit(task, Submission(queue, task.unique, payload, options.priority, due, task_id), False, None)
        return task

    def _identify(self, message: Message, identity: str | None) -> None:
        """Have it run as the user whose request is in hand, where that is asked for.

        Raises:
            InvalidTask: others could do so too, or there is nobody who knows the user.
        """
        wanted = self._settings.identity if identity is None else identity
        if wanted not in (None, "", "user"):
            raise InvalidTask(f"identity is {wanted!r}: give 'user', or '' for nobody")
        if wanted and self._environ is not None:
            from .identity import check_safe, find_user  # where it is used

            check_safe(self._settings)
            message.identity = find_user(self._environ)

    def _message_of_request(
        self, caller: str, task_id: str, body: bytes | None, inherit: tuple[str, ...] | None = None
    ) -> Message:
        """The request in hand as the message of a task.

        Raises:
            InvalidTask: there is none, it is a replay already, or it can't be read any more.
        """
        request = self._request
        if request is None:
            raise InvalidTask(_NO_REQUEST % caller)
        if request.is_replay:
            raise InvalidTask("this request is a replay already; look for environ['gearwsgi.job'] first")
        message = request.message(body, self._settings.max_body)
        message.id = task_id
        message.service = message.path if message.path.startswith("/") else f"/{message.path}"
        return surround(message, list(message.headers), None, self._settings, request, inherit)

    def _follow_ups(self, then: Wanted | None, on_dead: Wanted | None) -> tuple[FollowUp | None, FollowUp | None]:
        if then is None and on_dead is None:
            return None, None
        from .followups import compose_follow_up  # few tasks have one

        return (
            None if then is None else compose_follow_up(then, "then", self._settings),
            None if on_dead is None else compose_follow_up(on_dead, "on_dead", self._settings),
        )

    # -- to the job server -------------------------------------------------------------------------------------------

    def _seal(
        self,
        message: Message,
        queue: str,
        priority: str,
        unique: str | None,
        max_attempts: int | None,
        timeout: float | None,
        due: float,
    ) -> tuple[Task, bytes]:
        """The task that `message` is, and its bytes."""
        settings = self._settings
        if len(message.body) > settings.max_body:
            raise BodyError(413, f"a body of {len(message.body)} bytes is over max_body={settings.max_body}")
        message.priority = priority
        message.queued, message.due = time.time(), due
        if timeout is not None:
            message.timeout = checks.positive(timeout, "timeout")
        message.max_attempts = settings.attempts_of(message) if max_attempts is None else checks.attempts(max_attempts)
        task = Task(
            message.id, message.service, split_queue(queue)[0], checks.unique(unique, message.id), message.max_attempts
        )
        if tracing.MODULE in sys.modules and self.traces:
            task.span = tracing.begin_send(task, message)
        return task, seal(message, queue, settings, due or message.queued)

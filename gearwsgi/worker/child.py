"""The worker process: takes a job from its pipe, replays it through the application, answers the outcome."""

import contextvars
import math
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

from .. import log
from ..app import replay
from ..app.context import ready_context
from ..app.hooks import run_start_hooks
from ..app.job import Job
from ..app.patterns import find_patterns
from ..app.replay import Result, describe, error_reply, format_traceback, notice_exceptions
from ..environ import WSGIApplication
from ..errors import BadMessage, JobTimeout, ProtocolError
from ..message.model import MAX_HEAD, Message
from ..policy import Outcome, succeeded
from ..settings import Settings
from ..state.records.facts import log_fields
from ..telemetry import tracing
from ..wire.payload import Grabbed, open_payload
from . import channel, titles
from .loop import READ_SIZE
from .posix import resident_megabytes

_RUNNING = {"state": "running"}


class Child:
    """One worker process's life, from its first job to the end of its pipe.

    Args:
        app: the wrapped application.
        settings: the middleware's.
        pipe: the socket to the supervisor, blocking.
        claim: memory shared with the supervisor: who has the jobs that are held ahead.
        stream: where what the application prints is logged.
        title: what `ps` shows of this process, where it can; empty: as it is.
        tells_route: whether the supervisor wants the patterns of paths, for its metrics.
        max_rss: megabytes after which it wants to be replaced.
        verbose: whether jobs that go well are logged.
    """

    def __init__(
        self,
        app: WSGIApplication,
        settings: Settings,
        pipe: socket.socket,
        claim: channel.Claim,
        stream: log.LogStream,
        *,
        title: str = "",
        tells_route: bool = False,
        max_rss: float | None,
        verbose: bool,
    ) -> None:
        self._app = app
        self._settings = settings
        self._pipe = pipe
        self._claim = claim
        self._stream = stream
        self._max_rss = max_rss
        self._verbose = verbose
        self._find_pattern = find_patterns(app) if tells_route else None
        self._title = title
        self._show_title = titles.find() if title else None
        self._sending = threading.Lock()
        self._pid = os.getpid()
        self._deadline = math.inf
        self._late = False
        self._context = contextvars.Context()

    def run(self) -> None:
        """Work until the supervisor closes the pipe.

        Raises:
            ProtocolError: what comes from the supervisor is no job.
            Exception: what a hook of `on_worker_start` raises.
        """
        signal.signal(signal.SIGALRM, self._on_alarm)
        if self._show_title is not None:
            self._show_title(self._title)
        self._claim.write_stack_here()
        notice_exceptions()
        run_start_hooks()
        self._context = ready_context()
        reader = channel.FrameReader()
        self._send(channel.frame(channel.READY, 0))
        while data := self._pipe.recv(READ_SIZE):
            for kind, sequence, payload in reader.feed(data):
                if kind != channel.JOB:
                    raise ProtocolError("bytes from the supervisor are missing: has the application read them?")
                self._take(sequence, channel.read_job(payload))

    def _send(self, frame: bytes) -> None:
        """Write a whole frame; under a lock, for a thread of the handler's may report progress at the same time."""
        with self._sending:
            self._pipe.sendall(frame)

    def _take(self, sequence: int, grabbed: Grabbed) -> None:
        if not self._claim.start(sequence):
            self._send(channel.frame(channel.SKIPPED, sequence))
            return
        answer = self._work(sequence, grabbed)
        if log.is_json:
            log.about({})
        if os.getpid() != self._pid:
            # The application has forked, and the copy has come back here: the job is its parent's to answer.
            os._exit(0)
        if self._claim.started() != sequence:
            # It wrote to descriptors that are not its own, most likely to the pipe too. End, so that the jobs ahead do
            # not suffer from it.
            log.write(grabbed.handle_name, "the application has written to file descriptors that are not its own")
            os._exit(os.EX_SOFTWARE)
        if self._max_rss is not None and resident_megabytes() > self._max_rss:
            answer = channel.frame(channel.RETIRING, sequence) + answer
        self._send(answer)

    def _work(self, sequence: int, grabbed: Grabbed) -> bytes:
        """Run one job; the frame that answers it."""
        handle = grabbed.handle_name
        try:
            task = open_payload(grabbed, self._settings, time.time())
        except BadMessage as error:
            return channel.failed_frame(sequence, Outcome("refused", str(error)))
        if task.plain is not None:
            self._send(channel.frame(channel.TRANSLATED, sequence, task.to_bytes()))
        max_attempts = task.max_attempts or self._settings.attempts_of(task)
        job = Job.of(
            task,
            queue=grabbed.queue_name,
            handle=handle,
            max_attempts=max_attempts,
            report=lambda done, total: self._send(channel.progress_frame(sequence, done, total)),
            stops=self._claim.is_stop_requested,
        )
        if task.progress is not None:
            job.progress(*task.progress)
        if self._find_pattern is not None and "/" in task.service:
            route = self._find_pattern(task.method, task.path).encode("utf-8", "replace")
            self._send(channel.frame(channel.ROUTE, sequence, route[: channel.MAX_ROUTE]))
        if log.is_json:
            log.about({"handle": handle, **log_fields(grabbed)})
        if self._verbose:
            log.write(
                handle,
                f"received {task.service} {task.target} attempt {task.attempt} of {max_attempts}, "
                f"{len(grabbed.payload)} bytes, id {task.id}",
                _RUNNING,
            )
        self._stream.handle = f"{handle} id {task.id[:100]}"
        if self._show_title is not None:
            # Everybody on the machine may see it: no query, which may hold a secret.
            self._show_title(f"{self._title} {task.service.partition('?')[0][:100]}")
        span = None
        if tracing.MODULE in sys.modules:
            span = tracing.begin_process(task, job.queue, trace_parent=self._settings.trace_parent)
        result = self._run_in_time(task, job, self._context if span is None else span.inside(self._context))
        self._stream.end_line()
        self._stream.handle = "app"
        if self._show_title is not None:
            self._show_title(self._title)
        outcome = result.outcome
        if span is not None:
            span.end(outcome, result.error)
        # Who waits for an answer gets it as it is, and decides what it means.
        if succeeded(outcome) or (task.wants_reply and outcome.kind == "response"):
            if self._verbose:
                ended = {"state": "done", "status": outcome.status, "seconds": round(result.seconds, 6)}
                log.write(handle, f"result {describe(task, result)}, id {task.id}", ended)
            answer = channel.frame(channel.DONE, sequence, result.data)
            if outcome.status == 200 and not result.kept and task.awaited is None:
                return answer
        else:
            answer = channel.failed_frame(sequence, outcome)
            if not result.kept:
                return answer
        return channel.response_frame(sequence, outcome.status, result.kept) + answer

    def _run_in_time(self, task: Message, job: Job, context: contextvars.Context) -> Result:
        limit = self._settings.time_limit(task)
        self._late = False
        self._deadline = time.monotonic() + limit
        try:
            try:
                keep = task.awaited is not None or self._settings.keeps_result(task) > 0
                result = replay.run(self._app, task, job, self._stream, context, keep=keep)
            finally:
                self._deadline = math.inf
        except JobTimeout as error:
            result = Result(Outcome("timeout", traceback=format_traceback(error)), b"", limit)
        if not self._late:
            return self._cut(task, result)
        # Even where the handler caught the exception and answered: that was not the work that was asked for.
        if self._claim.is_cancelled():
            return Result(Outcome("timeout", "cancelled", traceback=result.outcome.traceback), b"", result.seconds)
        reason = f"timed out after {limit:g} s"
        if task.wants_reply:
            return Result(Outcome("response", reason, status=504), error_reply(504, reason), result.seconds)
        return Result(Outcome("timeout", reason, traceback=result.outcome.traceback), b"", result.seconds)

    def _cut(self, task: Message, result: Result) -> Result:
        """The result of a `call()`, or that it is too long for those who pass it on to the caller."""
        if not task.wants_reply or len(result.data) <= self._settings.max_body + MAX_HEAD:
            return result
        reason = f"a response of {len(result.data)} bytes is over max_body={self._settings.max_body}"
        return Result(Outcome("response", reason, status=502), error_reply(502, reason), result.seconds)

    def _on_alarm(self, signum: int, stack: FrameType | None) -> None:
        """Handle the signal that a job's time is over. It may have been meant for the job before: our clock decides.

        A job whose task was cancelled ends at once.
        """
        is_cancelled = self._claim.is_cancelled()
        if time.monotonic() >= self._deadline or (is_cancelled and self._deadline < math.inf):
            self._deadline = math.inf
            self._late = True
            raise JobTimeout("the task is cancelled" if is_cancelled else "the job's time limit is over")

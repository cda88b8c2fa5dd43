"""Traces, where the application has OpenTelemetry: a span for what is sent, and one for each attempt to process it.

This module imports nothing of OpenTelemetry that the application has not imported already. Callers look at `is_loaded`
first, which costs one look into a dict. Names and attributes are those of the semantic conventions for messaging.
"""

import contextvars
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from .._version import __version__
from ..message.model import Message
from ..message.targets import TOKEN
from ..policy import Outcome, succeeded

MODULE = "opentelemetry.trace"
"""The module that is imported wherever an application has OpenTelemetry."""

_tracers: dict[int, tuple[Any, Any]] = {}


def _tracer() -> Any:
    """The tracer of the provider that the application has set; None where it has set none."""
    trace: Any = sys.modules[MODULE]
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    known = _tracers.get(0)
    if known is None or known[0] is not provider:
        known = _tracers[0] = provider, trace.get_tracer("gearwsgi", __version__)
    return known[1]


def _attributes(operation: str, queue: str, task_id: str, service: str) -> dict[str, Any]:
    return {
        "messaging.system": "gearman",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": queue,
        "messaging.message.id": task_id,
        "messaging.gearman.service": service,
    }


class Sent:
    """The span of a task that is being queued.

    Args:
        span: the span, which has begun.
    """

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, server: str = "", error: BaseException | str | None = None) -> None:
        """End the span: the task is queued, or could not be.

        Args:
            server: the job server that has taken it.
            error: why it is not queued.
        """
        host, _, port = server.rpartition(":")
        if port.isdecimal():
            self._span.set_attributes({"server.address": host.strip("[]"), "server.port": int(port)})
        if error is not None:
            _fail(self._span, error if isinstance(error, BaseException) else None, str(error), "not queued")
        self._span.end()


class Task(Protocol):
    """What is needed of a task that is sent."""

    id: str
    service: str
    queue: str


def begin_send(task: Task, message: Message | None) -> Sent | None:
    """Begin the span of a task, and have its context travel in the message; None where the application does not trace.

    Args:
        task: the task.
        message: the message, whose headers are changed; None: a plain call, which can't carry any.
    """
    tracer = _tracer()
    if tracer is None:
        return None
    from opentelemetry import propagate, trace

    attributes = _attributes("send", task.queue, task.id, task.service)
    if message is not None:
        attributes["messaging.message.body.size"] = len(message.body)
    span = tracer.start_span(f"send {task.queue}", kind=trace.SpanKind.PRODUCER, attributes=attributes)
    if message is not None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        carried = {name: value for name, value in carrier.items() if _is_safe(name, value)}
        names = {name.lower() for name in carried}
        if "traceparent" in names:
            names.add("tracestate")  # the one from the request belongs to the trace that this replaces
        message.headers = [pair for pair in message.headers if pair[0].lower() not in names] + list(carried.items())
    return Sent(span)


def _is_safe(name: str, value: str) -> bool:
    """Whether a header that a propagator wants to add can stand in a message."""
    return bool(TOKEN.fullmatch(name)) and value.isascii() and value.isprintable()


class Processed:
    """The span of an attempt.

    Args:
        span: the span, which has begun.
        around: the context in which it is the current span.
        is_call: whether somebody waits for the response, and decides what it means.
    """

    __slots__ = ("_around", "_is_call", "_span")

    def __init__(self, span: Any, around: Any, *, is_call: bool) -> None:
        self._span = span
        self._around = around
        self._is_call = is_call

    def inside(self, base: contextvars.Context) -> contextvars.Context:
        """A copy of `base` in which this span is the current one."""
        from opentelemetry import context, trace

        own = base.copy()
        own.run(context.attach, trace.set_span_in_context(self._span, self._around))
        return own

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """End the span: the attempt has ended.

        Args:
            outcome: how it ended.
            error: the exception that its handler raised.
        """
        if outcome.status:
            self._span.set_attribute("http.response.status_code", outcome.status)
        is_answer = self._is_call and outcome.kind == "response" and outcome.status < 500
        if not (succeeded(outcome) or is_answer or outcome.kind == "continued"):
            _fail(self._span, error, outcome.reason, str(outcome.status or outcome.kind))
        self._span.end()


def begin_process(task: Message, queue: str, *, trace_parent: bool) -> Processed | None:
    """Begin the span of an attempt; None where the application does not trace.

    Args:
        task: the message.
        queue: the queue that it came through.
        trace_parent: whether it is a child of the span of the submission; else it begins a trace with a link to that.
    """
    tracer = _tracer()
    if tracer is None:
        return None
    from opentelemetry import propagate, trace
    from opentelemetry.context import Context

    around = propagate.extract(_carrier(task), context=Context())
    sender = trace.get_current_span(around).get_span_context()
    links = [trace.Link(sender)] if sender.is_valid else []
    span = tracer.start_span(
        f"process {queue}",
        context=around if trace_parent else Context(),
        kind=trace.SpanKind.CONSUMER,
        links=links,
        attributes={
            **_attributes("process", queue, task.id, task.service),
            "messaging.message.body.size": len(task.body),
            "messaging.gearman.delivery_attempt": task.attempt,
        },
    )
    return Processed(span, around, is_call=task.wants_reply)


def _carrier(task: Message) -> Mapping[str, str]:
    """The message's headers, by their names as written and in lower case, as most propagators look for them."""
    return {key: value for name, value in task.headers for key in (name, name.lower())}


def _fail(span: Any, error: BaseException | None, reason: str, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    if error is not None:
        span.record_exception(error)
        kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, reason))

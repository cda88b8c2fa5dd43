"""The trace of a request goes on in its tasks: with the true exporter, to a collector that runs here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.telemetry.collector import Collector, Span
from tests.support import APPS, Bench, until

INCOMING = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def run_request(site: Bench, collector: Collector, **settings: object) -> None:
    """A worker and a web process of an application that traces; the web process answers one request and ends."""
    shutil.copy(APPS / "traced.py", site.folder / "traced.py")
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "SETTINGS": json.dumps({"backoff_min": 0, "backoff_max": 0.1, **settings}),
    }
    worker = site.worker("--workers", "2", app="traced:application", env=env)
    web = subprocess.run(
        [sys.executable, "traced.py", "web"],
        cwd=site.folder, env={**os.environ, **site.env, **env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (web.returncode, web.stdout) == (0, "400\n"), web.stderr
    try:
        until(lambda: len([span for span in collector.spans if span.kind == "consumer"]) == 7)
    except AssertionError:
        raise AssertionError(f"{collector.draw()}\n{worker.log[-4000:]}") from None


def test_a_request_and_all_attempts_of_its_tasks_are_linked_traces(site: Bench, collector: Collector) -> None:
    run_request(site, collector)
    print(collector.draw())
    (saved,) = collector.named("save the order")
    (sent,) = collector.named("send job", messaging__gearman__service="mail.welcome")
    # The current context travels, and not what came with the request.
    assert (saved.trace, sent.trace, sent.parent, sent.kind) == (INCOMING, INCOMING, saved.id, "producer")
    host, port = site.server.address.split(":")
    assert sent.attributes == {
        "messaging.system": "gearman", "messaging.operation.name": "send", "messaging.operation.type": "send",
        "messaging.destination.name": "job", "messaging.message.id": sent.attributes["messaging.message.id"],
        "messaging.message.body.size": 12, "messaging.gearman.service": "mail.welcome",
        "server.address": host, "server.port": int(port),
    }  # fmt: skip
    attempts = collector.named("process job", messaging__gearman__service="mail.welcome")
    assert [span.attributes["messaging.gearman.delivery_attempt"] for span in attempts] == [1, 2, 3]
    assert [span.is_error for span in attempts] == [True, True, False]
    assert attempts[0].message == "ConnectionError: the mail server is away"
    assert attempts[0].attributes["error.type"] == "ConnectionError"
    for span in attempts:
        assert (span.kind, span.parent, span.links) == ("consumer", "", ((sent.trace, sent.id),))
        assert span.attributes["messaging.operation.type"] == "process"
        assert span.attributes["messaging.message.id"] == sent.attributes["messaging.message.id"]
    assert len({span.trace for span in attempts} | {INCOMING}) == 4
    # The application's own spans are inside, whichever instrumentation makes them.
    for rendered, span in zip(collector.named("render the mail"), attempts, strict=True):
        assert (rendered.trace, parent_of(parent_of(rendered, collector), collector)) == (span.trace, span)

    for service in ("later.on", "after.it", "/boom"):
        (sent,) = collector.named("send job", messaging__gearman__service=service)
        (processed,) = collector.named("process job", messaging__gearman__service=service)
        assert processed.links == ((sent.trace, sent.id),)
        assert not (sent.is_error or processed.is_error)
    # A plain call has no place for a context.
    (sent,) = collector.named("send job", messaging__gearman__service="plain.one")
    (processed,) = collector.named("process job", messaging__gearman__service="plain.one")
    assert processed.links == ()


def test_with_trace_parent_a_job_is_in_the_trace_of_who_sent_it(embedded_site: Bench, collector: Collector) -> None:
    run_request(embedded_site, collector, trace_parent=True)
    (sent,) = collector.named("send job", messaging__gearman__service="mail.welcome")
    for span in collector.named("process job", messaging__gearman__service="mail.welcome"):
        assert (span.trace, span.parent, span.links) == (INCOMING, sent.id, ((sent.trace, sent.id),))


def parent_of(span: Span, collector: Collector) -> Span:
    return next(each for each in collector.spans if each.id == span.parent)


def test_what_the_outbox_keeps_and_a_dead_letter_that_is_retried_stay_linked(
    embedded_site: Bench, collector: Collector, tmp_path: Path
) -> None:
    shutil.copy(APPS / "traced.py", embedded_site.folder / "traced.py")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "SETTINGS": json.dumps({"max_attempts": 1})}
    embedded_site.server.kill()
    code = (
        "import traced; traced.trace_here(); task = traced.application.gearman.task('mail.welcome'); "
        "traced.trace.get_tracer_provider().shutdown(); print(task.id)"
    )
    web = subprocess.run(
        [sys.executable, "-c", code], cwd=embedded_site.folder, env={**os.environ, **embedded_site.env, **env},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert web.returncode == 0, web.stderr
    embedded_site.server.start()
    worker = embedded_site.worker("--workers", "1", app="traced:application", env=env)
    worker.wait_for(f"from POST /mail/welcome; all 1 attempts used, id {web.stdout.strip()}")
    embedded_site.run("dead", "retry", web.stdout.strip())
    until(lambda: len(collector.named("process job")) == 2)
    (sent,) = collector.named("send job")
    assert "server.address" not in sent.attributes
    for span in collector.named("process job"):
        assert span.links == ((sent.trace, sent.id),)


def test_what_is_not_queued_after_all_is_a_span_that_says_so(tmp_path: Path) -> None:
    code = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from gearwsgi import GearmanMiddleware
from gearwsgi.errors import ServerUnavailable
kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
def app(environ, start_response):
    environ["gearman"].task("a.b", after_response=True)
    start_response("500 Oh no", [])
    return []
application = GearmanMiddleware(app, servers="127.0.0.1:1", on_unavailable="raise", state_dir="state")
body = application({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda status, headers: None)
list(body)
body.close()
for ask in (application.gearman.task, application.gearman.call):
    try:
        ask("a.b")
    except ServerUnavailable:
        pass
try:
    with application.gearman.batch():
        application.gearman.task("a.b")
        raise KeyError
except KeyError:
    pass
for span in kept.get_finished_spans():
    print(span.name, span.status.status_code.name, span.status.description)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    away = "no job server answers"
    said = done.stdout.splitlines()
    assert said[0] == "send job ERROR the response's status is 500"
    assert all(line.startswith(f"send job ERROR {away}") or "127.0.0.1:1" in line for line in said[1:3])
    assert said[3:] == ["send job ERROR its batch has raised"]

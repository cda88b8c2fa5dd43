"""An application that traces as its vendors say: a provider, a batch processor and an exporter over OTLP and HTTP."""

import json
import os
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from gearwsgi import GearmanMiddleware, on_worker_start


@on_worker_start
def trace_here():
    """A batch processor sends from a thread, and threads don't outlive a fork: each process makes its own."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100))
    trace.set_tracer_provider(provider)


tracer = trace.get_tracer("shop")


def app(environ, start_response):
    path, job = environ["PATH_INFO"], environ.get("gearwsgi.job")
    task = environ["gearman"].task
    if path == "/order" and job is None:
        with tracer.start_as_current_span("save the order"):
            task("mail.welcome", {"to": "Ada"})
            task("later.on", delay=1)
            task("after.it", after_response=True)
    elif path == "/mail/welcome":
        with tracer.start_as_current_span("render the mail"):
            if job.attempt < 3:
                raise ConnectionError("the mail server is away")
    elif path == "/boom":
        start_response("400 Bad Request", [])
        return [b"no"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


application = GearmanMiddleware(OpenTelemetryMiddleware(app), **json.loads(os.environ.get("SETTINGS", "{}")))

if "web" in sys.argv:
    trace_here()
    body = application(
        {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/order",
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "HTTP_HOST": "shop.example.com",
            "SERVER_NAME": "shop.example.com",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "HTTP_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
        lambda status, headers, exc_info=None: None,
    )
    list(body)
    body.close()
    print(str(application.gearman.call("/boom", timeout=30).status_code))
    application.gearman.task("plain.one", {"n": 1}, plain=True)
    trace.get_tracer_provider().shutdown()

"""One application with one of the usual WSGI middlewares, inside or outside of ours: ORDER says which, and where."""

import json
import os
from wsgiref.util import request_uri

from gearwsgi import GearmanMiddleware

NAME, PLACE = os.environ["ORDER"].split(":")
HERE = os.path.dirname(os.path.abspath(__file__))


def record(**what):
    with open(os.environ["RECORD"], "a") as file:
        file.write(json.dumps(what) + "\n")


def app(environ, start_response):
    path = environ["PATH_INFO"]
    job = environ.get("gearwsgi.job")
    session = environ.get("beaker.session")
    if job is not None:
        record(
            run=path,
            url=request_uri(environ),
            client=environ["REMOTE_ADDR"],
            user=session and session.get("user"),
            attempt=job.attempt,
        )
    if path == "/boom":
        raise LookupError("boom on purpose")
    if path == "/login":
        session["user"] = "alice"
        session.save()
    if path == "/queue":
        environ["gearman"].task("/work", {"n": 1})
    if path == "/later":
        environ["gearman"].task("/work", {"n": 2}, after_response=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page ", path.encode()]


def whitenoise(inner):
    from whitenoise import WhiteNoise

    return WhiteNoise(inner, root=os.path.join(HERE, "static"), prefix="static/")


def proxyfix(inner):
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(inner, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)


def beaker(inner):
    from beaker.middleware import SessionMiddleware

    return SessionMiddleware(inner, {"session.type": "file", "session.data_dir": os.path.join(HERE, "sessions")})


def sentry(inner):
    import sentry_sdk
    from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
    from sentry_sdk.transport import Transport

    class Recording(Transport):
        def capture_envelope(self, envelope):
            event = envelope.get_event()
            if event is not None:
                raised = event["exception"]["values"][-1]
                record(sentry=raised["type"], url=event["request"]["url"], method=event["request"]["method"])

    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=Recording, default_integrations=False)
    return SentryWsgiMiddleware(inner)


def opentelemetry(inner):
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

    class Recording(SpanExporter):
        def export(self, spans):
            for span in spans:
                record(span=span.name, trace=f"{span.context.trace_id:032x}", path=os.getpid())
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Recording()))
    return OpenTelemetryMiddleware(inner, tracer_provider=provider)


ALL = [whitenoise, proxyfix, beaker, sentry, opentelemetry]


def wrap(inner):
    for middleware in ALL:
        if NAME in (middleware.__name__, "all"):
            inner = middleware(inner)
    return inner


def gearman(inner):
    return GearmanMiddleware(
        inner, queue=f"{NAME}-{PLACE}", inherit=["cookie"], max_attempts=2, backoff_min=0.01, backoff_max=0.02
    )


application = gearman(wrap(app)) if PLACE == "inside" else wrap(gearman(app))

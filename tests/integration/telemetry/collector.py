"""A collector of traces: takes OTLP over HTTP on loopback, and draws what it got as text."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = ("", "internal", "server", "client", "producer", "consumer")


class Span(NamedTuple):
    """A span as it came."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    is_error: bool
    message: str
    began: int


class Collector:
    """See the module."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                spans.extend(_read(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def named(self, name: str, **attributes: Any) -> list[Span]:
        """The spans of that name, and with these attributes (`__` for a dot), the first begun first."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        found = [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]
        return sorted(found, key=lambda span: span.began)

    def draw(self) -> str:
        """All traces, their spans indented below their parents, links as arrows."""
        names = {span.id: f"{span.name} {span.id[:4]}" for span in self.spans}
        lines = []
        for span in sorted(self.spans, key=lambda span: span.began):
            if span.parent not in names:
                lines += [f"trace {span.trace[:8]}", *self._draw(span, "  ", names)]
        return "\n".join(lines)

    def _draw(self, span: Span, indent: str, names: dict[str, str]) -> Iterator[str]:
        attempt = span.attributes.get("messaging.gearman.delivery_attempt")
        yield (
            f"{indent}{names[span.id]} ({span.kind})"
            + (f" {span.attributes.get('messaging.gearman.service')}" if span.kind in ("producer", "consumer") else "")
            + (f" attempt {attempt}" if attempt else "")
            + (f" ERROR {span.message}" if span.is_error else "")
            + "".join(f" -> {names.get(link, link[:4])}" for _, link in span.links)
        )
        for child in sorted(self.spans, key=lambda each: each.began):
            if child.parent == span.id:
                yield from self._draw(child, indent + "  ", names)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _read(body: bytes) -> Iterator[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name, KINDS[span.kind], span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
                    span.status.code == 2, span.status.message, span.start_time_unix_nano,
                )  # fmt: skip

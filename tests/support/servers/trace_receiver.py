"""Receives traces over OTLP/HTTP, like a collector."""

from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


@dataclass
class Collector:
    """Keeps every received span with the name of its service."""

    spans: list[tuple[str, Span]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert scope["path"] == "/v1/traces"
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope_spans in resource.scope_spans:
                self.spans += [(service, span) for span in scope_spans.spans]
        await Response(b"", media_type="application/x-protobuf")(scope, receive, send)

    def trace(self, trace_id: str) -> list[tuple[str, Span]]:
        """Return the spans of one trace, ordered by start time."""
        spans = [(service, span) for service, span in self.spans if span.trace_id.hex() == trace_id]
        return sorted(spans, key=lambda pair: pair[1].start_time_unix_nano)


def attributes(span: Span) -> dict[str, str | int]:
    """Return the attributes of a span."""
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}

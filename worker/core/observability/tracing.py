"""OpenTelemetry tracing, off unless `DREAMERY_OTEL_ENDPOINT` is set. No other module imports the library.

When tracing is off, nothing is imported and a span costs one comparison. Spans contain only explicit attributes: no
bodies, no URLs with secrets, no exception messages. The SDK reads the standard `OTEL_*` variables (exporter headers,
resource attributes, sampler).
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol

from worker.core.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool

_INSTALL_HINT = (
    "DREAMERY_OTEL_ENDPOINT is set, but OpenTelemetry is not installed. Install it (pip install 'dreamery[otel]') or "
    "unset the setting."
)


class SpanHandle(Protocol):
    """Operations on an open span."""

    def set(self, **attributes: Value) -> None:
        """Set attributes; `__` in names becomes `.`."""

    def rename(self, name: str) -> None:
        """Change the name of the span."""

    def fail(self, code: str) -> None:
        """Mark the span as failed with this error code."""


class _NullSpan:
    """The span when tracing is off."""

    def set(self, **attributes: Value) -> None:
        """Do nothing."""

    def rename(self, name: str) -> None:
        """Do nothing."""

    def fail(self, code: str) -> None:
        """Do nothing."""


class _RecordingSpan:
    """A span of OpenTelemetry."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_dotted(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, code))


_NULL_SPAN: AbstractContextManager[SpanHandle] = nullcontext(_NullSpan())
_tracer: "Tracer | None" = None
_provider: Any = None


def configure(service: str) -> None:
    """Start tracing in this process if it is enabled in the settings. A second call has no effect.

    Raises SystemExit if the library is missing, so tracing is never silently off.
    """
    global _tracer, _provider  # noqa: PLW0603 - one per process
    endpoint = get_settings().otel_endpoint
    if not endpoint or _tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SystemExit(_INSTALL_HINT) from error
    # `create` also reads OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME. The provider flushes at exit.
    _provider = TracerProvider(resource=Resource.create({"service.name": service, "service.namespace": "dreamery"}))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    _tracer = _provider.get_tracer("dreamery")


def stop() -> None:
    """Flush the spans and turn tracing off in this process."""
    global _tracer, _provider  # noqa: PLW0603 - one per process
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


def span(
    name: str,
    *,
    parent: str | None = None,
    links: Iterable[str] = (),
    kind: Kind = "internal",
    **attributes: Value,
) -> AbstractContextManager[SpanHandle]:
    """Open a span around a block, as a child of the current span or of `parent` (a `traceparent` value).

    `links` are further `traceparent` values. An exception marks the span as failed with its `code` or its type.
    """
    return (
        _NULL_SPAN if _tracer is None else _open(_tracer, name, parent, links=links, kind=kind, attributes=attributes)
    )


@contextmanager
def _open(
    tracer: "Tracer", name: str, parent: str | None, *, links: Iterable[str], kind: Kind, attributes: dict[str, Value]
) -> Iterator[SpanHandle]:
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(
        name,
        context=_context_of(parent) if parent else None,
        kind=SpanKind[kind.upper()],
        links=[link for text in links if (link := _link_to(text)) is not None],
        attributes=_dotted(attributes),
        # Exception messages may contain request data.
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        handle = _RecordingSpan(opened)
        try:
            yield handle
        except Exception as error:
            handle.fail(str(getattr(error, "code", "") or type(error).__name__))
            raise


def traceparent() -> str | None:
    """Return the current span in W3C Trace Context format; None if tracing is off or no span is open."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """Return the current trace id (32 hex digits), or None."""
    text = traceparent()
    return text.split("-")[1] if text else None


def _context_of(text: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # Use an empty context: an invalid parent starts a new trace.
    return TraceContextTextMapPropagator().extract({"traceparent": text}, context=Context())


def _link_to(text: str) -> "Link | None":
    from opentelemetry.trace import Link, get_current_span

    known = get_current_span(_context_of(text)).get_span_context()
    return Link(known) if known.is_valid else None


def _dotted(attributes: dict[str, Value]) -> dict[str, Value]:
    return {name.replace("__", "."): value for name, value in attributes.items()}

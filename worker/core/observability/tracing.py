"""Traces by OpenTelemetry: off unless `DREAMERY_OTEL_ENDPOINT` is set, and then the only place that knows the library.

Off, we import nothing of it and a span costs one comparison. Only what we name is put into a span: no bodies, no
addresses with secrets in them, no messages of exceptions. The SDK itself reads the standard `OTEL_*` variables
(headers of the exporter, resource attributes, the sampler).
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol

from worker.core.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool

_HOW_TO_GET_IT = (
    "DREAMERY_OTEL_ENDPOINT is set, but OpenTelemetry is not installed. Install it (pip install 'dreamery[otel]'), or "
    "unset it."
)


class SpanHandle(Protocol):
    """What a span can be told while it is open."""

    def set(self, **attributes: Value) -> None:
        """Attributes; `__` in names becomes `.`."""

    def rename(self, name: str) -> None:
        """A better name, known later."""

    def fail(self, code: str) -> None:
        """It went wrong, and this is the error's code."""


class _NullSpan:
    """Nobody looks."""

    def set(self, **attributes: Value) -> None:
        """Nothing."""

    def rename(self, name: str) -> None:
        """Nothing."""

    def fail(self, code: str) -> None:
        """Nothing."""


class _RecordingSpan:
    """Marks on a real span."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_dotted(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self._span.set_status(Status(StatusCode.ERROR, code))


_OFF: AbstractContextManager[SpanHandle] = nullcontext(_NullSpan())
_tracer: "Tracer | None" = None
_provider: Any = None


def configure(service: str) -> None:
    """Start tracing in this process if the settings ask for it. A second call does nothing.

    Raises SystemExit when the library is missing: whoever asked for traces should not believe that there are some.
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
        raise SystemExit(_HOW_TO_GET_IT) from error
    # `create` lets OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME add to it; the provider flushes at exit.
    _provider = TracerProvider(resource=Resource.create({"service.name": service, "service.namespace": "dreamery"}))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")))
    _tracer = _provider.get_tracer("dreamery")


def stop() -> None:
    """Send what is left and switch tracing off in this process."""
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
    """A span around a block, below the one that is open here, or below `parent` (a `traceparent` text).

    `links` are further `traceparent` texts. An exception that passes marks it with its `code`, or its type.
    """
    return _OFF if _tracer is None else _open(_tracer, name, parent, links=links, kind=kind, attributes=attributes)


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
        # Messages of exceptions may hold what callers sent.
        record_exception=False,
        set_status_on_exception=False,
    ) as opened:
        marks = _RecordingSpan(opened)
        try:
            yield marks
        except Exception as error:
            marks.fail(str(getattr(error, "code", "") or type(error).__name__))
            raise


def traceparent() -> str | None:
    """The open span as W3C Trace Context writes it; None when tracing is off or nothing is open."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id() -> str | None:
    """The id of the trace that is open here, 32 hex digits."""
    text = traceparent()
    return text.split("-")[1] if text else None


def _context_of(text: str) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # Into an empty context: a parent that cannot be read begins a trace of its own.
    return TraceContextTextMapPropagator().extract({"traceparent": text}, context=Context())


def _link_to(text: str) -> "Link | None":
    from opentelemetry.trace import Link, get_current_span

    known = get_current_span(_context_of(text)).get_span_context()
    return Link(known) if known.is_valid else None


def _dotted(attributes: dict[str, Value]) -> dict[str, Value]:
    return {name.replace("__", "."): value for name, value in attributes.items()}

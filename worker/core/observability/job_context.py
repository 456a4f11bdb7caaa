"""Where a job came from: the request that made it and that request's trace. Rows carry it from the API to the steps,
because messages carry ids only; so that every log line and span about a job names its request.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog

from worker.core.ids import public_id
from worker.core.observability import tracing

# Of a poll that asks for very many jobs, so many are named in its span.
_MOST_LINKS = 100

Origin = Mapping[str, Any]


def current_origin() -> dict[str, str]:
    """The request and the trace that this code runs for: what the row of a new job keeps."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    known = {"request_id": request_id, "traceparent": tracing.traceparent()}
    return {name: value for name, value in known.items() if value}


@contextmanager
def job_context(
    step: str, job_id: UUID, origin: Origin | None, *, links: Iterable[str] = ()
) -> Iterator[tracing.SpanHandle]:
    """Log lines in the block name the job and its request; with traces on, a span of the job's trace is around it."""
    origin = origin or {}
    named = {"job_id": public_id("job", job_id)}
    if "request_id" in origin:
        named["request_id"] = str(origin["request_id"])
    parent = origin.get("traceparent")
    with (
        structlog.contextvars.bound_contextvars(**named),
        tracing.span(step, parent=parent, links=links, kind="consumer", job__id=named["job_id"]) as marks,
    ):
        yield marks


@contextmanager
def jobs_context(step: str, origins: Iterable[Origin | None]) -> Iterator[tracing.SpanHandle]:
    """A span around work for many jobs at once: in the trace of the only one, else in its own, linked to theirs."""
    parents = [parent for known in origins if known and (parent := known.get("traceparent"))]
    only = parents[0] if len(parents) == 1 else None
    links = [] if only else parents[:_MOST_LINKS]
    with tracing.span(step, parent=only, links=links, kind="consumer", jobs=len(parents)) as marks:
        yield marks

"""Origin of a job: the request that created it and the trace of that request. Job rows carry it from the API to the
tasks, because messages carry ids only. So every log line and span of a job names its request.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog

from worker.core.ids import public_id
from worker.core.observability import tracing

# Maximum number of jobs linked in the span of a poll.
_MAX_LINKS = 100

Origin = Mapping[str, Any]


def current_origin() -> dict[str, str]:
    """Return the current request id and trace, to be stored in the row of a new job."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    origin = {"request_id": request_id, "traceparent": tracing.traceparent()}
    return {name: value for name, value in origin.items() if value}


@contextmanager
def job_context(
    task: str, job_id: UUID, origin: Origin | None, *, links: Iterable[str] = ()
) -> Iterator[tracing.SpanHandle]:
    """Add the job and its request to the log lines of the block, and open a span in the job's trace."""
    origin = origin or {}
    fields = {"job_id": public_id("job", job_id)}
    if "request_id" in origin:
        fields["request_id"] = str(origin["request_id"])
    parent = origin.get("traceparent")
    with (
        structlog.contextvars.bound_contextvars(**fields),
        tracing.span(task, parent=parent, links=links, kind="consumer", job__id=fields["job_id"]) as span,
    ):
        yield span


@contextmanager
def jobs_context(task: str, origins: Iterable[Origin | None]) -> Iterator[tracing.SpanHandle]:
    """Open a span for work on many jobs: in the trace of a single job, else in its own trace with links to theirs."""
    parents = [parent for origin in origins if origin and (parent := origin.get("traceparent"))]
    only = parents[0] if len(parents) == 1 else None
    links = [] if only else parents[:_MAX_LINKS]
    with tracing.span(task, parent=only, links=links, kind="consumer", jobs=len(parents)) as span:
        yield span

"""Follow all jobs of a caller, and mark jobs as favourites."""

import re
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep, ReadDep
from api.http.errors import error_responses
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response
from api.http.sse import event_stream_response, sse_openapi
from api.jobs.feed import JobFeeds, feed_events
from api.jobs.routes import find_job, parse_job_id
from api.jobs.schemas import Job
from api.jobs.serialization import job_object
from worker.db.engine import transaction
from worker.db.jobs.queries import JobView, Viewer
from worker.db.jobs.results import marks
from worker.messaging import pubsub

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EVENT_ID = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_EVENT = 'id: 1763000000.120\nevent: job\ndata: {"id":"job_...","object":"job","status":"in_progress",...}\n\n'


def _viewer(caller: Caller) -> Viewer:
    with transaction() as tx:
        return caller.viewer(tx)


@router.get(
    "/events",
    summary="Follow all your jobs",
    response_class=StreamingResponse,
    responses={
        200: {"content": sse_openapi(_EVENT), "description": "The events."},
        **error_responses(400, 401),
    },
)
async def follow_jobs(
    request: Request,
    caller: ReadDep,
    after: Annotated[float | None, Query(ge=0, le=10**11, description="like Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events: `snapshot` with the open jobs, then a `job` event for each new or changed job, `deleted` for
    one that was deleted. A job whose results were marked or deleted has changed.

    With `Last-Event-ID` (or `?after=`), missed changes are replayed instead of the snapshot; a `reset` event means that
    there were too many: list the jobs again. The stream ends after a few minutes; `EventSource` reconnects by itself.
    """
    if last_event_id and _EVENT_ID.fullmatch(last_event_id):
        after = float(last_event_id)
    feeds: JobFeeds = request.app.state.feeds
    stream = feed_events(
        feeds, partial(_viewer, caller), base=base_url(request), since=after, is_disconnected=request.is_disconnected
    )
    return event_stream_response(stream)


def _set_favourite(caller: Caller, job_id: UUID, *, favourite: bool) -> JobView:
    view = find_job(caller, job_id)
    with transaction() as tx:
        marks.mark_job_favourite(tx, job_id, favourite=favourite)
        tx.on_commit(partial(pubsub.publish_job_change, job_id, view.job.state, view.job.event_seq))
    return find_job(caller, job_id)


_RESPONSES = {200: {"model": Job, "description": "The updated job."}, **error_responses(401, 403, 404)}


@router.put("/{job_id}/favourite", summary="Mark a job as a favourite", responses=_RESPONSES)
async def mark_job(request: Request, job_id: str, caller: GenerateDep) -> Response:
    """Marks all of its results, also those it will have. Lists can be filtered with `?favourite=true`."""
    view = await run_in_threadpool(_set_favourite, caller, parse_job_id(job_id), favourite=True)
    set_job_id_header(request, job_id)
    return json_response(job_object(view, base_url(request)))


@router.delete("/{job_id}/favourite", summary="Remove a job from the favourites", responses=_RESPONSES)
async def unmark_job(request: Request, job_id: str, caller: GenerateDep) -> Response:
    """Removes only the marks of the job and its results, not the job."""
    view = await run_in_threadpool(_set_favourite, caller, parse_job_id(job_id), favourite=False)
    set_job_id_header(request, job_id)
    return json_response(job_object(view, base_url(request)))

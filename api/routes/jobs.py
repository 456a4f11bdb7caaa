"""Jobs: list, get, cancel, follow. A stranger's job is a 404 (I9)."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import Caller, CallerDep, name_job
from api.errors import error_responses
from api.hub import Hub
from api.render import STATES_OF, base_url, job_object, json_response
from api.schemas import Job, JobList, Text
from api.streams import SSE_HEADERS, job_events
from worker.bus import events, queue
from worker.core.catalog import ImageModel, VideoModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db import accounts, jobs, reports
from worker.db.engine import transaction
from worker.db.reports import JobFilter, JobView, Viewer

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_EVENT_ID = re.compile(r"[0-9]{1,9}")

Kind = Literal["image", "video", "chat"]


def _job_uuid(job_id: str) -> UUID:
    found = parse_public_id("job", job_id)
    if found is None:
        raise _unknown(job_id)
    return found


def _unknown(job_id: str) -> DreameryError:
    return DreameryError("job_not_found", f"No job {job_id[:60]!r}.")


def _moment(value: str | None, param: str) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(float(value), UTC) if value[:5].isdigit() else _aware(value)
    except (ValueError, OverflowError, OSError):
        message = f"`{param}` must be unix seconds or an ISO 8601 time; got {value[:40]!r}."
        raise DreameryError("invalid_value", message, param=param) from None


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@router.get(
    "",
    summary="List your jobs",
    responses={200: {"model": JobList, "description": "One page."}, **error_responses(400, 401, 404)},
)
async def list_jobs(
    request: Request,
    caller: CallerDep,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
    status: Annotated[str | None, Query(description="one or more statuses, comma-separated")] = None,
    kind: Kind | None = None,
    model: Annotated[Text | None, Query(description="a model's id or alias")] = None,
    created_after: Annotated[str | None, Query(description="unix seconds or ISO 8601")] = None,
    created_before: str | None = None,
) -> Response:
    """One page, newest first. `has_more` and `last_id` lead to the next: send it as `after`."""
    cursor = _job_uuid(after) if after else None
    wanted = JobFilter(
        states=_states(status),
        kind=kind,
        model=_model_id(model),
        created_after=_moment(created_after, "created_after"),
        created_before=_moment(created_before, "created_before"),
    )

    def read() -> tuple[list[JobView], bool]:
        with transaction() as tx:
            return reports.list_jobs(
                tx, caller.viewer(tx), wanted, after=cursor, limit=limit, newest_first=order == "desc"
            )

    views, more = await run_in_threadpool(read)
    data = [job_object(view, base_url(request)) for view in views]
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }
    )


def _model_id(name: str | None) -> str | None:
    """Jobs carry the id of their model, whatever name it was asked for by."""
    catalog = get_catalog()
    models: list[ImageModel | VideoModel] = [*catalog.image_models, *catalog.video_models]
    known = (model.id for model in models if name in {model.id, *model.aliases})
    return next(known, name)


def _states(status: str | None) -> list[str] | None:
    if status is None:
        return None
    states: list[str] = []
    for part in (piece.strip() for piece in status.split(",")):
        if part not in STATES_OF:
            message = f"`status` must be of {', '.join(STATES_OF)}; got {part[:40]!r}."
            raise DreameryError("invalid_value", message, param="status")
        states += STATES_OF[part]
    return states


def _view(caller: Caller, job_id: UUID) -> JobView:
    with transaction() as tx:
        view = reports.job_view(tx, job_id, caller.viewer(tx))
    if view is None:
        raise _unknown(public_id("job", job_id))
    return view


@router.get(
    "/{job_id}",
    summary="Get a job",
    responses={200: {"model": Job, "description": "The job."}, **error_responses(400, 401, 404)},
)
async def get_job(
    request: Request,
    job_id: str,
    caller: CallerDep,
    wait: Annotated[float, Query(ge=0, le=300, description="answer when the job has ended, or after so long")] = 0,
) -> Response:
    """The job with its queue place, progress and, once completed, its output."""
    wanted = _job_uuid(job_id)
    view = await run_in_threadpool(_view, caller, wanted)
    name_job(request, job_id)
    if wait and view.job.finished_at is None:
        hub: Hub = request.app.state.hub
        with hub.watching([wanted]) as watches:
            view = await run_in_threadpool(_view, caller, wanted)
            watches[0].tell(view.job.state, view.job.event_seq)
            await hub.wait_final(watches, wait)
        view = await run_in_threadpool(_view, caller, wanted)
    headers = {"Retry-After": "2"} if view.job.finished_at is None else {}
    return json_response(job_object(view, base_url(request)), headers=headers)


def _viewer_of(caller: Caller, job_id: UUID) -> Viewer:
    with transaction() as tx:
        viewer = caller.viewer(tx)
        if reports.job_view(tx, job_id, viewer) is None:
            raise _unknown(public_id("job", job_id))
    return viewer


def cancel_now(caller: Caller, job_id: UUID) -> JobView:
    """Cancel a job, or leave the wish; the job as it is then. Raises `job_not_found`."""
    with transaction() as tx:
        viewer: Viewer = caller.viewer(tx)
        if reports.job_view(tx, job_id, viewer) is None:
            raise _unknown(public_id("job", job_id))
        row = jobs.cancel(tx, job_id)
        if row is not None:
            tx.on_commit(partial(events.announce, row.id, row.state, row.event_seq))
        view = reports.job_view(tx, job_id, viewer)
        if view is not None and view.job.state == "running":
            # The wish is carried out by a poll; let the next one come soon.
            accounts.poll_soon(tx, view.job.account_id, seconds=1.0)
            tx.on_commit(partial(queue.nudge_poll, view.job.account_id))
    if view is None:
        raise _unknown(public_id("job", job_id))
    return view


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": Job, "description": "The job as it is now."}, **error_responses(401, 404)},
)
async def cancel_job(request: Request, job_id: str, caller: CallerDep) -> Response:
    """A queued job is cancelled at once; a running one as soon as upstream is asked next (`cancelling` until then).

    Upstream has no cancel call, so what it has begun it finishes and charges. A job that has ended stays as it is.
    """
    view = await run_in_threadpool(cancel_now, caller, _job_uuid(job_id))
    name_job(request, job_id)
    return json_response(job_object(view, base_url(request)))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "The events, each with a job as its data."},
        **error_responses(400, 401, 404),
    },
)
async def follow_job(
    request: Request,
    job_id: str,
    caller: CallerDep,
    after: Annotated[int | None, Query(ge=0, le=10**9, description="like Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events: `snapshot`, `progress`, and one of `completed`, `failed`, `cancelled`, then the end.

    `Last-Event-ID` (or `?after=`) replays what was missed.
    """
    wanted = _job_uuid(job_id)
    viewer = await run_in_threadpool(_viewer_of, caller, wanted)
    name_job(request, job_id)
    if last_event_id and _EVENT_ID.fullmatch(last_event_id):
        after = int(last_event_id)
    stream = job_events(
        request.app.state.hub,
        wanted,
        viewer,
        base=base_url(request),
        after=after,
        gone=request.is_disconnected,
    )
    return StreamingResponse(stream, media_type="text/event-stream", headers=SSE_HEADERS)

"""Read jobs: list, get, follow, timeline. A job of another user is a 404 (I9), and so is a deleted job."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import ReadDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response, page_object
from api.http.sse import event_stream_response, sse_openapi
from api.jobs.eta import estimate_eta
from api.jobs.events import job_events
from api.jobs.schemas import Job, JobList
from api.jobs.serialization import STATES_OF, job_object
from api.jobs.timeline.entries import timeline_object
from api.jobs.timeline.schemas import Timeline
from api.jobs.watcher import JobWatcher
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.accounts import accounts
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView, Viewer

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_MAX_IDS = 100
_EVENT_ID = re.compile(r"[0-9]{1,9}")

_EVENT = 'id: 4\nevent: progress\ndata: {"id":"job_...","object":"job","status":"in_progress","progress":42,...}\n\n'

_KINDS = ("image", "video", "chat")


def parse_job_id(job_id: str) -> UUID:
    """Parse the job id of a path. Raises job_not_found."""
    parsed = parse_public_id("job", job_id)
    if parsed is None:
        raise job_not_found(job_id)
    return parsed


def job_not_found(job_id: str) -> DreameryError:
    """The error for an unknown job; also for a job of another user."""
    return DreameryError("job_not_found", f"No job {job_id[:60]!r}.")


_FIRST_TIME, _LAST_TIME = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


def parse_time(value: str | None, param: str) -> datetime | None:
    """Parse unix seconds or an ISO 8601 time of a query. Raises invalid_value."""
    if value is None:
        return None
    try:
        moment = datetime.fromtimestamp(float(value), UTC) if value[:5].isdigit() else _parse_iso_time(value)
        # No job is older or younger; at the ends of the calendar, times cannot be compared.
        return min(max(moment.astimezone(UTC), _FIRST_TIME), _LAST_TIME)
    except (ValueError, OverflowError, OSError):
        message = f"`{param}` must be unix seconds or an ISO 8601 time; got {value[:40]!r}."
        raise DreameryError("invalid_value", message, param=param) from None


def _parse_iso_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@router.get(
    "",
    summary="List your jobs",
    responses={200: {"model": JobList, "description": "One page."}, **error_responses(400, 401, 404)},
)
async def list_jobs(
    request: Request,
    caller: ReadDep,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="last id of the previous page")] = None,
    order: Literal["asc", "desc"] = "desc",
    status: Annotated[str | None, Query(description="one or more statuses, comma-separated")] = None,
    kind: Annotated[
        str | None, Query(description="one or more of `image`, `video` and `chat`, comma-separated")
    ] = None,
    model: Annotated[Text | None, Query(description="a model's id or alias")] = None,
    q: Annotated[Text | None, Query(max_length=200, description="text that the prompt contains")] = None,
    favourite: Annotated[bool | None, Query(description="true = only favourites, false = only others")] = None,
    created_after: Annotated[str | None, Query(description="unix seconds or ISO 8601")] = None,
    created_before: str | None = None,
    ids: Annotated[str | None, Query(description="up to 100 job ids, comma-separated: only these jobs")] = None,
    group: Annotated[str | None, Query(description="the jobs of one request: the `group` of one of them")] = None,
    batch: Annotated[str | None, Query(max_length=60, description="the jobs of a batch: `batch_...`")] = None,
    metadata: Annotated[list[str] | None, Query(description="`name:value`; may be repeated: all must match")] = None,
) -> Response:
    """Returns one page, newest first. If `has_more` is true, send `last_id` as `after` to get the next page.

    With `ids`, all of them are on one page; `missing` lists ids that are not your jobs.
    """
    requested = _parse_ids(ids)
    cursor = parse_job_id(after) if after else None
    job_filter = JobFilter(
        states=parse_statuses(status),
        kinds=parse_kinds(kind),
        models=resolve_model_ids(model),
        prompt=q or None,
        favourite=favourite,
        created_after=parse_time(created_after, "created_after"),
        created_before=parse_time(created_before, "created_before"),
        ids=list(requested.values()) if ids is not None else None,
        group_id=parse_job_id(group) if group else None,
        batch_id=_parse_batch(batch),
        metadata=_parse_metadata(metadata),
    )
    page_size = max(limit, len(requested))

    def read() -> tuple[list[JobView], bool]:
        with transaction() as tx:
            return queries.list_jobs(
                tx, caller.viewer(tx), job_filter, after=cursor, limit=page_size, newest_first=order == "desc"
            )

    views, more = await run_in_threadpool(read)
    data = [job_object(view, base_url(request)) for view in views]
    missing = {} if ids is None else {"missing": _missing(requested, data)}
    return json_response({**page_object(data, more=more), **missing})


def _missing(requested: dict[str, UUID], data: list[dict[str, Any]]) -> list[str]:
    found = {job["id"] for job in data}
    return [job_id for job_id in requested if job_id not in found]


def _parse_ids(ids: str | None) -> dict[str, UUID]:
    """Parse `?ids=`; a text that is not a job id gets an id that matches no job."""
    parts = [part.strip() for part in (ids or "").split(",") if part.strip()]
    if len(parts) > _MAX_IDS:
        message = f"`ids` takes at most {_MAX_IDS} job ids; got {len(parts)}."
        raise DreameryError("invalid_value", message, param="ids")
    return {one: parse_public_id("job", one) or UUID(int=0) for one in parts}


def _parse_batch(batch: str | None) -> UUID | None:
    """Parse `?batch=`. Another user's batch has no jobs here."""
    if batch is None:
        return None
    found = parse_public_id("batch", batch)
    if found is None:
        raise DreameryError("batch_not_found", f"No batch {batch[:60]!r}.")
    return found


def _parse_metadata(filters: list[str] | None) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    for one in filters or []:
        name, colon, value = one.partition(":")
        if not colon or not name or "\x00" in one:
            message = f"`metadata` must be `name:value`; got {one[:40]!r}."
            raise DreameryError("invalid_value", message, param="metadata")
        pairs[name] = value
    return pairs or None


def resolve_model_ids(name: str | None) -> list[str] | None:
    """Return the ids of all models that have a name, as jobs store them; an unknown name stays as it is."""
    if name is None:
        return None
    catalog = get_catalog()
    models: list[ImageModel | VideoModel] = [*catalog.image_models, *catalog.video_models]
    return [model.id for model in models if name in {model.id, *model.aliases}] or [name]


def parse_kinds(kind: str | None) -> list[str] | None:
    """Parse a comma-separated list of kinds. Raises invalid_value."""
    if kind is None:
        return None
    kinds = [piece.strip() for piece in kind.split(",")]
    for one in kinds:
        if one not in _KINDS:
            message = f"`kind` must be one of {', '.join(_KINDS)}; got {one[:40]!r}."
            raise DreameryError("invalid_value", message, param="kind")
    return kinds


def parse_statuses(status: str | None) -> list[str] | None:
    """Parse a comma-separated list of statuses into job states. Raises invalid_value."""
    if status is None:
        return None
    states: list[str] = []
    for part in (piece.strip() for piece in status.split(",")):
        if part not in STATES_OF:
            message = f"`status` must be one of {', '.join(STATES_OF)}; got {part[:40]!r}."
            raise DreameryError("invalid_value", message, param="status")
        states += STATES_OF[part]
    return states


def visible_job(caller: Caller, job_id: UUID) -> JobView | None:
    """Return a job that the caller may see; None for one of another user, and for one that does not exist (I9)."""
    with transaction() as tx:
        return queries.job_view(tx, job_id, caller.viewer(tx))


def find_job(caller: Caller, job_id: UUID) -> JobView:
    """Return a job that the caller may see. Raises job_not_found."""
    view = visible_job(caller, job_id)
    if view is None:
        raise job_not_found(public_id("job", job_id))
    return view


@router.get(
    "/{job_id}",
    summary="Get a job",
    responses={200: {"model": Job, "description": "The job."}, **error_responses(400, 401, 404)},
)
async def get_job(
    request: Request,
    job_id: str,
    caller: ReadDep,
    wait: Annotated[float, Query(ge=0, le=300, description="seconds to wait for the job to end before answering")] = 0,
) -> Response:
    """Returns the job with its queue position, progress and, once completed, its output."""
    parsed_id = parse_job_id(job_id)
    view = await run_in_threadpool(find_job, caller, parsed_id)
    set_job_id_header(request, job_id)
    if wait and view.job.finished_at is None:
        job_watcher: JobWatcher = request.app.state.job_watcher
        with job_watcher.watch_jobs([parsed_id]) as watches:
            view = await run_in_threadpool(find_job, caller, parsed_id)
            watches[0].update(view.job.state, view.job.event_seq)
            await job_watcher.wait_final(watches, wait)
        view = await run_in_threadpool(find_job, caller, parsed_id)
    poll_seconds = str(round(estimate_eta(view).poll_after_ms / 1000))
    headers = {"Retry-After": poll_seconds} if view.job.finished_at is None else {}
    return json_response(job_object(view, base_url(request)), headers=headers)


def _find_with_viewer(caller: Caller, job_id: UUID) -> tuple[Viewer, JobView]:
    with transaction() as tx:
        viewer = caller.viewer(tx)
        view = queries.job_view(tx, job_id, viewer)
        if view is None:
            raise job_not_found(public_id("job", job_id))
    return viewer, view


def _timeline(caller: Caller, job_id: UUID) -> dict[str, Any]:
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
        if view is None:
            raise job_not_found(public_id("job", job_id))
        rows = queries.transitions(tx, job_id)
        # Jobs of session ids ran on accounts of the caller itself, but a user may have registered one with a label.
        is_callers = view.job.user_id is None and not accounts.any_has_owner(tx, view.job.account_ids)
    return timeline_object(view, rows, caller, shows_labels=is_callers or caller.role == "admin")


@router.get(
    "/{job_id}/timeline",
    summary="Get the timeline of a job",
    responses={
        200: {"model": Timeline, "description": "The state changes, oldest first."},
        **error_responses(401, 404),
    },
)
async def get_timeline(request: Request, job_id: str, caller: ReadDep) -> Response:
    """Every state change: time, component, attempt, account, seconds in the previous state, and reason."""
    body = await run_in_threadpool(_timeline, caller, parse_job_id(job_id))
    set_job_id_header(request, job_id)
    return json_response(body)


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": sse_openapi(_EVENT),
            "description": "The events; the data of each is a job.",
        },
        204: {"description": "The job has ended, and `Last-Event-ID` is its last event: do not connect again."},
        **error_responses(400, 401, 404),
    },
)
async def follow_job(
    request: Request,
    job_id: str,
    caller: ReadDep,
    after: Annotated[int | None, Query(ge=0, le=10**9, description="like Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Server-sent events: `snapshot`, `progress`, and finally one of `completed`, `failed`, `cancelled`.

    `Last-Event-ID` (or `?after=`) replays missed events. After the last one the answer is 204, which ends an
    `EventSource` for good.
    """
    parsed_id = parse_job_id(job_id)
    viewer, view = await run_in_threadpool(_find_with_viewer, caller, parsed_id)
    set_job_id_header(request, job_id)
    if last_event_id and _EVENT_ID.fullmatch(last_event_id):
        after = int(last_event_id)
    if after is not None and view.job.finished_at is not None and after >= view.job.event_seq:
        return Response(status_code=204)
    stream = job_events(
        request.app.state.job_watcher,
        parsed_id,
        viewer,
        base=base_url(request),
        after=after,
        is_disconnected=request.is_disconnected,
    )
    return event_stream_response(stream)

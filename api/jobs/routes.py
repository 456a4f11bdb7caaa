"""Jobs, read: list, get, follow, timeline. A stranger's job is a 404 (I9), and so is a deleted one."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller, ReaderDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import name_job
from api.http.responses import base_url, json_response
from api.http.sse import SSE_HEADERS, stream_docs
from api.jobs.eta import forecast
from api.jobs.events import job_events
from api.jobs.schemas import Job, JobList
from api.jobs.serialization import STATES_OF, job_object
from api.jobs.timeline import timeline
from api.jobs.timeline_schemas import Timeline
from api.jobs.watcher import Hub
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView, Viewer

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_MOST_IDS = 100
_EVENT_ID = re.compile(r"[0-9]{1,9}")

_EVENT = 'id: 4\nevent: progress\ndata: {"id":"job_...","object":"job","status":"in_progress","progress":42,...}\n\n'

_KINDS = ("image", "video", "chat")


def job_uuid(job_id: str) -> UUID:
    """The id of a job in a path. Raises job_not_found."""
    found = parse_public_id("job", job_id)
    if found is None:
        raise unknown_job(job_id)
    return found


def unknown_job(job_id: str) -> DreameryError:
    """What whoever asks for a stranger's job is told, too."""
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
    caller: ReaderDep,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
    status: Annotated[str | None, Query(description="one or more statuses, comma-separated")] = None,
    kind: Annotated[str | None, Query(description="of `image`, `video` and `chat`, comma-separated")] = None,
    model: Annotated[Text | None, Query(description="a model's id or alias")] = None,
    q: Annotated[Text | None, Query(max_length=200, description="words that are in the prompt")] = None,
    favourite: Annotated[bool | None, Query(description="only those marked as favourites, or not marked")] = None,
    created_after: Annotated[str | None, Query(description="unix seconds or ISO 8601")] = None,
    created_before: str | None = None,
    ids: Annotated[str | None, Query(description="up to 100 job ids, comma-separated: just these")] = None,
    group: Annotated[str | None, Query(description="the jobs of one request: the `group` of any of them")] = None,
    metadata: Annotated[list[str] | None, Query(description="`name:value`, may be repeated: all must be there")] = None,
) -> Response:
    """One page, newest first. `has_more` and `last_id` lead to the next: send it as `after`.

    With `ids` all of them come on one page; those that are no jobs of yours are listed as `missing`.
    """
    asked = _asked_ids(ids)
    cursor = job_uuid(after) if after else None
    wanted = JobFilter(
        states=states_of(status),
        kinds=kinds_of(kind),
        model=model_id(model),
        prompt=q or None,
        favourite=favourite,
        created_after=_moment(created_after, "created_after"),
        created_before=_moment(created_before, "created_before"),
        ids=list(asked.values()) if ids is not None else None,
        group_id=job_uuid(group) if group else None,
        metadata=_pairs(metadata),
    )
    most = max(limit, len(asked))

    def read() -> tuple[list[JobView], bool]:
        with transaction() as tx:
            return queries.list_jobs(
                tx, caller.viewer(tx), wanted, after=cursor, limit=most, newest_first=order == "desc"
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
            **({} if ids is None else {"missing": _missing(asked, data)}),
        }
    )


def _missing(asked: dict[str, UUID], data: list[dict[str, Any]]) -> list[str]:
    found = {job["id"] for job in data}
    return [job_id for job_id in asked if job_id not in found]


def _asked_ids(ids: str | None) -> dict[str, UUID]:
    """The ids of `?ids=`; another text than an id is an id of nothing."""
    asked = [part.strip() for part in (ids or "").split(",") if part.strip()]
    if len(asked) > _MOST_IDS:
        message = f"`ids` takes at most {_MOST_IDS} job ids; got {len(asked)}."
        raise DreameryError("invalid_value", message, param="ids")
    return {one: parse_public_id("job", one) or UUID(int=0) for one in asked}


def _pairs(given: list[str] | None) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    for one in given or []:
        name, colon, value = one.partition(":")
        if not colon or not name or "\x00" in one:
            message = f"`metadata` must be `name:value`; got {one[:40]!r}."
            raise DreameryError("invalid_value", message, param="metadata")
        pairs[name] = value
    return pairs or None


def model_id(name: str | None) -> str | None:
    """Jobs carry the id of their model, whatever name it was asked for by."""
    catalog = get_catalog()
    models: list[ImageModel | VideoModel] = [*catalog.image_models, *catalog.video_models]
    known = (model.id for model in models if name in {model.id, *model.aliases})
    return next(known, name)


def kinds_of(kind: str | None) -> list[str] | None:
    """The kinds of a comma list. Raises invalid_value."""
    if kind is None:
        return None
    kinds = [piece.strip() for piece in kind.split(",")]
    for one in kinds:
        if one not in _KINDS:
            message = f"`kind` must be of {', '.join(_KINDS)}; got {one[:40]!r}."
            raise DreameryError("invalid_value", message, param="kind")
    return kinds


def states_of(status: str | None) -> list[str] | None:
    """The states behind a comma list of statuses. Raises invalid_value."""
    if status is None:
        return None
    states: list[str] = []
    for part in (piece.strip() for piece in status.split(",")):
        if part not in STATES_OF:
            message = f"`status` must be of {', '.join(STATES_OF)}; got {part[:40]!r}."
            raise DreameryError("invalid_value", message, param="status")
        states += STATES_OF[part]
    return states


def find_job(caller: Caller, job_id: UUID) -> JobView:
    """A job of this caller. Raises job_not_found."""
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
    if view is None:
        raise unknown_job(public_id("job", job_id))
    return view


@router.get(
    "/{job_id}",
    summary="Get a job",
    responses={200: {"model": Job, "description": "The job."}, **error_responses(400, 401, 404)},
)
async def get_job(
    request: Request,
    job_id: str,
    caller: ReaderDep,
    wait: Annotated[float, Query(ge=0, le=300, description="answer when the job has ended, or after so long")] = 0,
) -> Response:
    """The job with its queue place, progress and, once completed, its output."""
    wanted = job_uuid(job_id)
    view = await run_in_threadpool(find_job, caller, wanted)
    name_job(request, job_id)
    if wait and view.job.finished_at is None:
        hub: Hub = request.app.state.hub
        with hub.watching([wanted]) as watches:
            view = await run_in_threadpool(find_job, caller, wanted)
            watches[0].tell(view.job.state, view.job.event_seq)
            await hub.wait_final(watches, wait)
        view = await run_in_threadpool(find_job, caller, wanted)
    pause = str(round(forecast(view).poll_after_ms / 1000))
    headers = {"Retry-After": pause} if view.job.finished_at is None else {}
    return json_response(job_object(view, base_url(request)), headers=headers)


def _viewer_of(caller: Caller, job_id: UUID) -> Viewer:
    with transaction() as tx:
        viewer = caller.viewer(tx)
        if queries.job_view(tx, job_id, viewer) is None:
            raise unknown_job(public_id("job", job_id))
    return viewer


def _timeline(caller: Caller, job_id: UUID) -> dict[str, Any]:
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
        if view is None:
            raise unknown_job(public_id("job", job_id))
        rows = queries.transitions(tx, job_id)
    # A job of a user ran on the platform's accounts; one of session ids on those that its caller presented.
    return timeline(view, rows, shows_labels=view.job.user_id is None or caller.role == "admin")


@router.get(
    "/{job_id}/timeline",
    summary="See all that happened to a job",
    responses={200: {"model": Timeline, "description": "Its changes, oldest first."}, **error_responses(401, 404)},
)
async def get_timeline(request: Request, job_id: str, caller: ReaderDep) -> Response:
    """Every change of its state: when, by which part, on which try and account, after what wait, and why."""
    body = await run_in_threadpool(_timeline, caller, job_uuid(job_id))
    name_job(request, job_id)
    return json_response(body)


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": stream_docs(_EVENT),
            "description": "The events, each with a job as its data.",
        },
        **error_responses(400, 401, 404),
    },
)
async def follow_job(
    request: Request,
    job_id: str,
    caller: ReaderDep,
    after: Annotated[int | None, Query(ge=0, le=10**9, description="like Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events: `snapshot`, `progress`, and one of `completed`, `failed`, `cancelled`, then the end.

    `Last-Event-ID` (or `?after=`) replays what was missed.
    """
    wanted = job_uuid(job_id)
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

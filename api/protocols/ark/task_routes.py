"""`/api/v3/contents/generations/tasks` in the vendor's format: create, get, list, cancel or delete video tasks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep, ReadDep
from api.generation.acceptance import GenerationPlan
from api.generation.job_action_routes import cancel_job_now, delete_job_now
from api.generation.response import IdempotencyKeyHeader, accept_jobs, job_headers
from api.http.body_parsing import body_openapi, parse_body, validate_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import parse_idempotency_key, set_job_id_header
from api.http.responses import base_url, json_response
from api.jobs.routes import resolve_model_ids, visible_job
from api.protocols.ark.schemas import ArkTask, ArkTaskId, ArkTaskList, ArkVideoRequest, Nothing
from api.protocols.ark.serialization import EXPIRED_CODES, STATUS_OF, task_id, task_object, task_status
from api.protocols.ark.translation import makes_videos_without_text, parse_task_id, sent_names, video_fields
from api.videos.planning import plan_videos, require_single_video
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.engine import transaction
from worker.db.jobs import feed
from worker.db.jobs.queries import JobFilter, JobView

router = APIRouter(prefix="/api/v3/contents/generations/tasks", tags=["ark"])

_MAX_PAGE, _MAX_IDS = 500, 500
_KEPT = timedelta(days=7)
_Status = Literal["queued", "running", "cancelled", "succeeded", "failed", "expired"]


@router.post(
    "",
    summary="Create a video task (Ark's format)",
    responses={
        200: {"model": ArkTaskId, "description": "The id of the new task."},
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_openapi(ArkVideoRequest, form=False),
)
async def create_task(request: Request, caller: GenerateDep, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Creates a video on any account that has the model. Get the task until its status is final.

    Results never have a watermark. A repeated identical call whose answer was lost joins the job of the first one.
    """
    key = parse_idempotency_key(idempotency_key)
    plan, identifier = await _plan(request, caller)
    accepted = await accept_jobs(request, plan, caller=caller, key=key)
    body = {"id": task_id(accepted.job_ids[0]), **({"safety_identifier": identifier} if identifier else {})}
    return json_response(body, headers=job_headers(accepted, None))


async def _plan(request: Request, caller: Caller) -> tuple[GenerationPlan, str | None]:
    try:
        body = await parse_body(request, ArkVideoRequest)
        fields = video_fields(body)
        # Errors name a field as the vendor's clients know it.
        request.state.sent_names = sent_names(of_image=False)
        ours = require_single_video(_as_our_request(body, fields))
        plan = await plan_videos(request.url.path, ours, caller)
    finally:
        await request.close()
    native = {"execution_expires_after": body.execution_expires_after} if body.execution_expires_after else {}
    marks = {"safety_identifier": body.safety_identifier} if body.safety_identifier else {}
    (job,) = plan.jobs
    adjusted = {**job.params.get("adjusted", {}), **({"watermark": "true"} if body.watermark else {})}
    job = replace(job, params={**job.params, "ark": native, "adjusted": adjusted}, metadata={**job.metadata, **marks})
    return replace(plan, jobs=[job]), body.safety_identifier


def _as_our_request(body: ArkVideoRequest, fields: dict[str, Any]) -> VideoGenerationRequest:
    if not makes_videos_without_text(body):
        return validate_body(fields, VideoGenerationRequest)
    ours = validate_body({**fields, "prompt": "-"}, VideoGenerationRequest)
    return ours.model_copy(update={"prompt": ""})


@router.get(
    "",
    summary="List video tasks (Ark's format)",
    responses={200: {"model": ArkTaskList, "description": "One page."}, **error_responses(400, 401, 404)},
)
async def list_tasks(
    request: Request,
    caller: ReadDep,
    *,
    page_num: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 1,
    page_size: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 20,
    status: Annotated[_Status | None, Query(alias="filter.status")] = None,
    task_ids: Annotated[
        list[Text] | None, Query(alias="filter.task_ids", max_length=_MAX_IDS, description="may be repeated")
    ] = None,
    model: Annotated[Text | None, Query(alias="filter.model", description="an id of the vendor's or a name")] = None,
    service_tier: Annotated[Literal["default", "flex"], Query(alias="filter.service_tier")] = "default",
) -> Response:
    """Returns the videos of the last seven days, newest first, also those of the other endpoints."""
    ids = None if task_ids is None else [found for text in task_ids if (found := parse_task_id(text)) is not None]
    states = None
    if status is not None:
        wanted = "failed" if status == "expired" else status
        states = [str(state) for state, name in STATUS_OF.items() if name == wanted]
    job_filter = JobFilter(
        states=states,
        kinds=["video"],
        models=resolve_model_ids(model),
        ids=ids,
        created_after=datetime.now(UTC) - _KEPT,
    )

    def read() -> tuple[list[JobView], int]:
        with transaction() as tx:
            return feed.numbered_page(
                tx,
                caller.viewer(tx),
                job_filter,
                offset=(page_num - 1) * page_size,
                limit=page_size,
                flex=service_tier == "flex",
                flex_models=[one.id for one in get_catalog().video_models if one.flex],
                expired_codes=EXPIRED_CODES,
                expired={"failed": False, "expired": True}.get(status or ""),
            )

    views, total = await run_in_threadpool(read)
    return json_response({"items": [task_object(view, base_url(request)) for view in views], "total": total})


@router.get(
    "/{task}",
    summary="Get a video task (Ark's format)",
    responses={200: {"model": ArkTask, "description": "The task."}, **error_responses(401, 404)},
)
async def get_task(request: Request, task: str, caller: ReadDep) -> Response:
    """Returns the task. Its links point to this server and stay valid."""
    view = await run_in_threadpool(_find, caller, _parse(task))
    set_job_id_header(request, public_id("job", view.job.id))
    return json_response(task_object(view, base_url(request)))


@router.delete(
    "/{task}",
    summary="Cancel or delete a video task (Ark's format)",
    responses={200: {"model": Nothing, "description": "Cancelled or deleted."}, **error_responses(401, 403, 404)},
)
async def delete_task(request: Request, task: str, caller: GenerateDep) -> Response:
    """Cancels a queued task; removes one that has ended, with its files. A task that runs is refused: it is charged."""
    job_id = _parse(task)
    view = await run_in_threadpool(_find, caller, job_id)
    set_job_id_header(request, public_id("job", job_id))
    if view.job.state == JobState.CANCELLED:
        raise _denied("job_cancelled", "The task is cancelled.")
    if view.job.finished_at is not None:
        await in_storage_thread(delete_job_now, caller, job_id)
        return json_response({})
    if view.job.state in {JobState.HELD, JobState.QUEUED}:
        view = await run_in_threadpool(cancel_job_now, caller.viewer, job_id)
    if task_status(view) != "cancelled":
        raise _denied("job_not_finished", "The task is running and can not be deleted.")
    return json_response({})


def _denied(code: str, message: str) -> DreameryError:
    return DreameryError(code, message, status=403)


def _parse(task: str) -> UUID:
    job_id = parse_task_id(task)
    if job_id is None:
        raise _not_found(task)
    return job_id


def _not_found(task: str) -> DreameryError:
    return DreameryError("job_not_found", f"The specified task {task[:60]!r} is not found.")


def _find(caller: Caller, job_id: UUID) -> JobView:
    """Return a video of this caller. Raises `job_not_found`."""
    view = visible_job(caller, job_id)
    if view is None or view.job.kind != "video":
        raise _not_found(task_id(job_id))
    return view

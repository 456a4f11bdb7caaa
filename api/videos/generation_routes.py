"""`POST /v1/videos/generations`, which waits for its videos, and the task routes of the new-api family."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import GenerateDep, ReadDep
from api.generation.response import IdempotencyKeyHeader, accept_jobs, create_and_respond, job_headers, read_views
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, parse_idempotency_key, set_job_id_header
from api.http.responses import base_url, json_response
from api.videos.planning import plan_videos, require_single_video
from api.videos.routes import find_video
from api.videos.schemas import AcceptedVideo, VideoGenerationRequest, VideosAnswer, VideoTask, VideoTaskState
from api.videos.serialization import parse_video_id, public_video_id, task_state, video_object, videos_response
from worker.core.ids import public_id
from worker.db.jobs.queries import JobView

router = APIRouter(tags=["videos"])

_BODY = body_openapi(VideoGenerationRequest)


@router.post(
    "/v1/videos/generations",
    summary="Generate videos and wait for them",
    responses={
        200: {"model": VideosAnswer, "description": "The videos."},
        202: {"model": AcceptedVideo, "description": "With `Prefer: respond-async`: the job."},
        **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
    },
    openapi_extra=_BODY,
)
async def generate_videos(
    request: Request, caller: GenerateDep, preference: PreferenceDep, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """Generates `n` videos from text, a first frame, a first and a last frame, or references that the prompt names.

    Answers when they are stored. Links in the answer point to this server and stay valid. A video takes minutes:
    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once; its `request_id` is the id for
    `GET /v1/videos/{id}`. `Prefer: wait=N` waits at most N seconds.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, VideoGenerationRequest)
    plan = await plan_videos(request.url.path, body, caller)

    def build_body(views: list[JobView], base: str) -> dict[str, Any]:
        return videos_response(views, response_format=body.response_format, base=base)

    return await create_and_respond(
        request,
        plan,
        caller=caller,
        preference=preference.with_async(enabled=body.run_async),
        key=key,
        build_body=build_body,
        build_extra_fields=lambda views: {"request_id": public_video_id(views[0].job.id)},
    )


@router.post(
    "/v1/video/generations",
    summary="Start a video (new-api's path)",
    responses={
        200: {"model": VideoTask, "description": "The new task."},
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=_BODY,
)
async def start_task(request: Request, caller: GenerateDep, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Answers at once; poll `GET /v1/video/generations/{task_id}` until the status is `completed` or `failed`."""
    key = parse_idempotency_key(idempotency_key)
    body = require_single_video(await parse_body(request, VideoGenerationRequest))
    plan = await plan_videos(request.url.path, body, caller)
    accepted = await accept_jobs(request, plan, caller=caller, key=key)
    (view,) = await read_views(accepted.job_ids)
    video = video_object(view, base_url(request))
    return json_response({**video, "task_id": video["id"]}, headers=job_headers(accepted, None))


@router.get(
    "/v1/video/generations/{task_id}",
    summary="Get a video task (new-api's path)",
    responses={200: {"model": VideoTaskState, "description": "The task."}, **error_responses(401, 404)},
)
async def get_task(request: Request, task_id: str, caller: ReadDep) -> Response:
    """Returns status, progress and, once completed, the link."""
    view = await run_in_threadpool(find_video, caller, parse_video_id(task_id))
    set_job_id_header(request, public_id("job", view.job.id))
    return json_response(task_state(view, base_url(request)))

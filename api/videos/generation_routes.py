"""Videos in one call: `POST /v1/videos/generations`, the seed's shape; and the new-api family's path for a task."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import MakerDep, ReaderDep
from api.generation.response import KeyHeader, answer_headers, create, start, views_of
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, clean_idempotency_key, name_job
from api.http.responses import base_url, json_response
from api.videos.planning import one_only, plan_videos
from api.videos.routes import view_of
from api.videos.schemas import AcceptedVideo, VideoGenerationRequest, VideosAnswer, VideoTask, VideoTaskState
from api.videos.serialization import id_of_video, job_id_of, task_state, video_object, videos_answer
from worker.core.ids import public_id
from worker.db.jobs.queries import JobView

router = APIRouter(tags=["videos"])

_BODY = body_docs(VideoGenerationRequest)


@router.post(
    "/v1/videos/generations",
    summary="Make videos and wait for them",
    responses={
        200: {"model": VideosAnswer, "description": "The videos."},
        202: {"model": AcceptedVideo, "description": "With `Prefer: respond-async`: the job."},
        **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
    },
    openapi_extra=_BODY,
)
async def generate_videos(
    request: Request, caller: MakerDep, preference: PreferenceDep, idempotency_key: KeyHeader = None
) -> Response:
    """Makes `n` videos from text, a first frame, a first and a last frame, or materials the prompt refers to.

    Answers when they are stored; links in the answer point to this server and keep working. A video takes minutes:
    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once, whose `request_id` is known to
    `GET /v1/videos/{id}`; `Prefer: wait=N` waits at most N seconds.
    """
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, VideoGenerationRequest)
    planned = await plan_videos(request.url.path, body, caller)

    def body_of(views: list[JobView], base: str) -> dict[str, Any]:
        return videos_answer(views, response_format=body.response_format, base=base)

    return await create(
        request,
        planned,
        caller=caller,
        preference=preference.with_async(wanted=body.run_async),
        key=key,
        body_of=body_of,
        more_of=lambda views: {"request_id": id_of_video(views[0].job.id)},
    )


@router.post(
    "/v1/video/generations",
    summary="Start a video (new-api's path)",
    responses={
        200: {"model": VideoTask, "description": "The task, just begun."},
        **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=_BODY,
)
async def start_task(request: Request, caller: MakerDep, idempotency_key: KeyHeader = None) -> Response:
    """Answers at once; ask `GET /v1/video/generations/{task_id}` until the status is `completed` or `failed`."""
    key = clean_idempotency_key(idempotency_key)
    body = one_only(await read_body(request, VideoGenerationRequest))
    planned = await plan_videos(request.url.path, body, caller)
    accepted = await start(request, planned, caller=caller, key=key)
    (view,) = await run_in_threadpool(views_of, accepted.job_ids)
    whole = video_object(view, base_url(request))
    return json_response({**whole, "task_id": whole["id"]}, headers=answer_headers(accepted, None))


@router.get(
    "/v1/video/generations/{task_id}",
    summary="Ask about a video (new-api's path)",
    responses={200: {"model": VideoTaskState, "description": "The task."}, **error_responses(401, 404)},
)
async def get_task(request: Request, task_id: str, caller: ReaderDep) -> Response:
    """Status, progress and, once completed, the link."""
    view = await run_in_threadpool(view_of, caller, job_id_of(task_id))
    name_job(request, public_id("job", view.job.id))
    return json_response(task_state(view, base_url(request)))

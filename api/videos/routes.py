"""OpenAI's Videos API: create, retrieve, list, content, delete, remix."""

from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import CallerDep, GenerateDep, ReadDep
from api.generation.acceptance import GenerationPlan
from api.generation.job_action_routes import cancel_job_now
from api.generation.model_availability import read_offer
from api.generation.response import IdempotencyKeyHeader, accept_jobs, job_headers, read_views
from api.http.body_parsing import body_openapi, parse_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.preferences import parse_idempotency_key, set_job_id_header
from api.http.responses import base_url, json_response, page_object
from api.jobs.file_routes import FileConditions, send_file
from api.jobs.results.removal import erase_files
from api.jobs.routes import visible_job
from api.videos.planning import plan_videos, require_single_video
from api.videos.remix import plan_remix
from api.videos.schemas import RemixRequest, Video, VideoDeleted, VideoGenerationRequest, VideoList
from api.videos.serialization import (
    parse_video_id,
    poll_headers,
    public_video_id,
    select_content_file,
    video_not_found_error,
    video_object,
)
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db.engine import transaction
from worker.db.jobs import deletions, queries
from worker.db.jobs.queries import JobFilter, JobView
from worker.messaging import pubsub

router = APIRouter(prefix="/v1/videos", tags=["videos"])

_CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": Video, "description": "The new video."},
    **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
}
_MAX_FILES = 100  # more than any video has
_ALTERNATIVES = {
    "edits": "A finished video cannot be edited. Use /v1/videos/{id}/remix for the same video with another prompt, or "
    "/v1/videos/generations with a model that accepts reference videos (`videos`).",
    "extensions": "A video cannot be extended. Use /v1/videos/generations with its last frame as "
    "`first_frame_image`, or with the video as `videos` and a model that accepts reference videos.",
    "characters": "Characters are not supported. Use /v1/videos/generations with images of the character as `images` "
    "and a model that accepts reference images, and name them in the prompt: `@image1`.",
}


def find_video(caller: Caller, job_id: UUID) -> JobView:
    """Return a video of this caller. Raises `video_not_found`."""
    view = visible_job(caller, job_id)
    if view is None or view.job.kind != "video":
        raise video_not_found_error(public_video_id(job_id))
    return view


async def _start(request: Request, plan: GenerationPlan, caller: Caller, key: str | None) -> Response:
    accepted = await accept_jobs(request, plan, caller=caller, key=key)
    (view,) = await read_views(accepted.job_ids)
    headers = {**job_headers(accepted, None), **poll_headers(view)}
    return json_response(video_object(view, base_url(request)), headers=headers)


@router.post("", summary="Start a video", responses=_CREATED, openapi_extra=body_openapi(VideoGenerationRequest))
async def create_video(request: Request, caller: GenerateDep, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Answers at once with the video object; retrieve it until it is completed. The body is JSON or multipart.

    `input_reference` is the first frame. For OpenAI's `seconds` (4, 8, 12, ...) that the model lacks, the nearest
    duration is used; `seconds` and `adjusted` of the answer report it (`/v1/videos/generations` answers 400). `size` of
    the answer is one of OpenAI's.
    """
    key = parse_idempotency_key(idempotency_key)
    body = require_single_video(await parse_body(request, VideoGenerationRequest))
    return await _start(request, await plan_videos(request.url.path, body, caller), caller, key)


@router.get(
    "",
    summary="List your videos",
    responses={200: {"model": VideoList, "description": "One page."}, **error_responses(400, 401, 404)},
)
async def list_videos(
    request: Request,
    caller: ReadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the previous page")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """Returns one page, newest first. When `has_more` is true, send `last_id` as `after` for the next page."""
    cursor = parse_video_id(after) if after else None

    def read() -> tuple[list[JobView], bool]:
        with transaction() as tx:
            job_filter = JobFilter(kinds=["video"])
            return queries.list_jobs(
                tx, caller.viewer(tx), job_filter, after=cursor, limit=limit, newest_first=order == "desc"
            )

    views, more = await run_in_threadpool(read)
    data = [video_object(view, base_url(request)) for view in views]
    return json_response(page_object(data, more=more))


@router.post("/edits", include_in_schema=False)
@router.post("/extensions", include_in_schema=False)
@router.post("/characters", include_in_schema=False)
@router.get("/characters/{_character}", include_in_schema=False)
async def unsupported_operation(request: Request, _caller: CallerDep) -> Response:
    """Newer OpenAI calls that are not supported; the error names an alternative."""
    raise DreameryError("unsupported_operation", _ALTERNATIVES[request.url.path.split("/")[3]])


@router.get(
    "/{video_id}",
    summary="Get a video",
    responses={200: {"model": Video, "description": "The video."}, **error_responses(401, 404)},
)
async def get_video(request: Request, video_id: str, caller: ReadDep) -> Response:
    """Returns the video object. Until it is completed, `openai-poll-after-ms` gives the time until the next poll."""
    view = await run_in_threadpool(find_video, caller, parse_video_id(video_id))
    set_job_id_header(request, public_id("job", view.job.id))
    return json_response(video_object(view, base_url(request)), headers=poll_headers(view))


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}, "image/jpeg": {}}, "description": "The bytes."},
    206: {"content": {"video/mp4": {}, "image/jpeg": {}}, "description": "The requested range."},
    304: {"description": "The caller's copy is current."},
    **error_responses(400, 401, 404, 410, 416),
}


_Variant = Literal["video", "thumbnail", "spritesheet", "last_frame"]


@router.head(
    "/{video_id}/content", summary="Get headers of a video's bytes", response_class=Response, responses=_CONTENT
)
@router.get("/{video_id}/content", summary="Get a video's bytes", response_class=Response, responses=_CONTENT)
async def get_content(
    request: Request,
    video_id: str,
    caller: ReadDep,
    *,
    variant: Annotated[_Variant, Query(description="which file")] = "video",
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Returns the video, its first or last frame, or a sprite sheet. Supports range requests; no redirects."""
    view = await run_in_threadpool(find_video, caller, parse_video_id(video_id))
    set_job_id_header(request, public_id("job", view.job.id))
    row = select_content_file(view, variant)
    ending = "" if variant == "video" else f"-{variant}"
    name = f"{public_video_id(view.job.id)}{ending}.{row.mime.partition('/')[2]}"
    conditions = FileConditions(range=range_header, if_none_match=if_none_match, if_range=if_range)
    return await send_file(request, row, name=name, conditions=conditions, cache="private, max-age=31536000, immutable")


def _delete(caller: Caller, job_id: UUID) -> None:
    """Cancel a running video, mark it deleted and remove its files.

    The mark hides it. A crash after the mark leaves files that the cleanup removes; a crash before it leaves a
    cancelled video that can be deleted again.
    """
    view = find_video(caller, job_id)
    if view.job.finished_at is None:
        cancel_job_now(caller.viewer, job_id)
    with transaction() as tx:
        row = deletions.hide_job(tx, job_id)
        if row is not None:
            tx.on_commit(partial(pubsub.publish_job_change, row.id, row.state, row.event_seq))
        file_rows = deletions.deleted_files(tx, limit=_MAX_FILES, job_id=job_id)
    erase_files(file_rows)


@router.delete(
    "/{video_id}",
    summary="Delete a video",
    responses={200: {"model": VideoDeleted, "description": "The video was deleted."}, **error_responses(401, 404)},
)
async def delete_video(request: Request, video_id: str, caller: GenerateDep) -> Response:
    """Removes the video and its files; later requests answer 404. An unfinished video is cancelled first.

    Upstream finishes and charges work that it has started.
    """
    job_id = parse_video_id(video_id)
    await in_storage_thread(_delete, caller, job_id)
    set_job_id_header(request, public_id("job", job_id))
    return json_response({"id": public_video_id(job_id), "object": "video.deleted", "deleted": True})


@router.post(
    "/{video_id}/remix",
    summary="Generate a video again with another prompt",
    responses=_CREATED,
    openapi_extra=body_openapi(RemixRequest),
)
async def remix_video(
    request: Request,
    video_id: str,
    caller: GenerateDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Creates a video with the new prompt and the same model, duration, size, seed and inputs."""
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, RemixRequest)
    offer = await read_offer(caller)
    source = await run_in_threadpool(find_video, caller, parse_video_id(video_id))
    plan = await plan_remix(request.url.path, source, body.prompt, caller, offer)
    return await _start(request, plan, caller, key)

"""OpenAI's Videos API: create, retrieve, list, content, delete, remix."""

import contextlib
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller, CallerDep, MakerDep, ReaderDep
from api.generation.acceptance import Planned
from api.generation.job_action_routes import cancel_now
from api.generation.response import KeyHeader, answer_headers, start, views_of
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.preferences import clean_idempotency_key, name_job
from api.http.responses import base_url, json_response
from api.jobs.file_routes import Asked, send_file
from api.videos.planning import one_only, plan_videos
from api.videos.remix import plan_remix
from api.videos.schemas import RemixRequest, Video, VideoDeleted, VideoGenerationRequest, VideoList
from api.videos.serialization import content_of, id_of_video, job_id_of, poll_after, unknown_video, video_object
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db.engine import transaction
from worker.db.jobs import deletions, files, queries
from worker.db.jobs.queries import JobFilter, JobView

router = APIRouter(prefix="/v1/videos", tags=["videos"])

_CREATED: dict[int | str, dict[str, Any]] = {
    200: {"model": Video, "description": "The video, just begun."},
    **error_responses(400, 401, 403, 404, 413, 415, 422, 429, 500, 503),
}
_MOST_FILES = 100  # of one video, far more than it has
_INSTEAD = {
    "edits": "A finished video cannot be edited. Use /v1/videos/{id}/remix for the same video with another prompt, or "
    "/v1/videos/generations with a model that refers to videos (`videos`).",
    "extensions": "A video cannot be extended. Use /v1/videos/generations with its last picture as "
    "`first_frame_image`, or with the video itself as `videos` and a model that refers to videos.",
    "characters": "Characters are not offered. Use /v1/videos/generations with pictures of the character as `images` "
    "and a model that refers to pictures, naming them in the prompt: `@image1`.",
}


def view_of(caller: Caller, job_id: UUID) -> JobView:
    """A video of this caller. Raises `video_not_found` for all others (I9)."""
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
    if view is None or view.job.kind != "video":
        raise unknown_video(id_of_video(job_id))
    return view


async def _start(request: Request, planned: Planned, caller: Caller, key: str | None) -> Response:
    accepted = await start(request, planned, caller=caller, key=key)
    (view,) = await run_in_threadpool(views_of, accepted.job_ids)
    headers = {**answer_headers(accepted, None), **poll_after(view)}
    return json_response(video_object(view, base_url(request)), headers=headers)


@router.post("", summary="Start a video", responses=_CREATED, openapi_extra=body_docs(VideoGenerationRequest))
async def create_video(request: Request, caller: MakerDep, idempotency_key: KeyHeader = None) -> Response:
    """Answers at once with the video's object, as JSON or multipart asks; retrieve it until it is done.

    `input_reference` is the first frame. `seconds` must be a length the model can do; only with the names that tools
    have built in (`sora-2`, `sora-2-pro`) the nearest one stands in, and `seconds` and `adjusted` of the answer say so.
    """
    key = clean_idempotency_key(idempotency_key)
    body = one_only(await read_body(request, VideoGenerationRequest))
    return await _start(request, await plan_videos(request.url.path, body, caller), caller, key)


@router.get(
    "",
    summary="List your videos",
    responses={200: {"model": VideoList, "description": "One page."}, **error_responses(400, 401, 404)},
)
async def list_videos(
    request: Request,
    caller: ReaderDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """One page, newest first. `has_more` and `last_id` lead to the next: send it as `after`."""
    cursor = job_id_of(after) if after else None

    def read() -> tuple[list[JobView], bool]:
        with transaction() as tx:
            wanted = JobFilter(kinds=["video"])
            return queries.list_jobs(
                tx, caller.viewer(tx), wanted, after=cursor, limit=limit, newest_first=order == "desc"
            )

    views, more = await run_in_threadpool(read)
    data = [video_object(view, base_url(request)) for view in views]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return json_response({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more})


@router.post("/edits", include_in_schema=False)
@router.post("/extensions", include_in_schema=False)
@router.post("/characters", include_in_schema=False)
@router.get("/characters/{_character}", include_in_schema=False)
async def not_offered(request: Request, _caller: CallerDep) -> Response:
    """Newer calls of OpenAI's that cannot be done here: what to use instead."""
    raise DreameryError("unsupported_operation", _INSTEAD[request.url.path.split("/")[3]])


@router.get(
    "/{video_id}",
    summary="Get a video",
    responses={200: {"model": Video, "description": "The video."}, **error_responses(401, 404)},
)
async def get_video(request: Request, video_id: str, caller: ReaderDep) -> Response:
    """The video's object. While it is unfinished, `openai-poll-after-ms` says when to ask again."""
    view = await run_in_threadpool(view_of, caller, job_id_of(video_id))
    name_job(request, public_id("job", view.job.id))
    return json_response(video_object(view, base_url(request)), headers=poll_after(view))


_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}, "image/jpeg": {}}, "description": "The bytes."},
    206: {"content": {"video/mp4": {}, "image/jpeg": {}}, "description": "The range asked for."},
    304: {"description": "What the caller has is still right."},
    **error_responses(400, 401, 404, 410, 416),
}


@router.head("/{video_id}/content", summary="Ask about a video's bytes", response_class=Response, responses=_CONTENT)
@router.get("/{video_id}/content", summary="Get a video's bytes", response_class=Response, responses=_CONTENT)
async def get_content(
    request: Request,
    video_id: str,
    caller: ReaderDep,
    *,
    variant: Annotated[Literal["video", "thumbnail", "spritesheet"], Query(description="which form of it")] = "video",
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The video, its first frame (JPEG) or a sheet of small frames (JPEG); with range requests, without redirects."""
    view = await run_in_threadpool(view_of, caller, job_id_of(video_id))
    name_job(request, public_id("job", view.job.id))
    row = content_of(view, variant)
    ending = "" if variant == "video" else f"-{variant}"
    name = f"{id_of_video(view.job.id)}{ending}.{row.mime.partition('/')[2]}"
    asked = Asked(range=range_header, if_none_match=if_none_match, if_range=if_range)
    return await send_file(request, row, name=name, asked=asked, cache="private, max-age=31536000, immutable")


def _delete(caller: Caller, job_id: UUID) -> None:
    """Cancel it if it runs, mark it deleted, remove its files.

    From the mark on nobody sees it. A death after it leaves bytes that upkeep removes, one before it a cancelled video
    that can be deleted again.
    """
    view = view_of(caller, job_id)
    if view.job.finished_at is None:
        cancel_now(caller.viewer, job_id)
    with transaction() as tx:
        deletions.hide_job(tx, job_id)
        left = deletions.deleted_files(tx, limit=_MOST_FILES, job_id=job_id)
    with contextlib.suppress(storage.StorageError):  # upkeep removes them when the storage is there again
        for row in left:
            storage.delete_file(row.key)
        if left:
            with transaction() as tx:
                files.note_removed(tx, [row.id for row in left])


@router.delete(
    "/{video_id}",
    summary="Delete a video",
    responses={200: {"model": VideoDeleted, "description": "It is gone."}, **error_responses(401, 404)},
)
async def delete_video(request: Request, video_id: str, caller: MakerDep) -> Response:
    """Removes the video and its files; it is a 404 from now on. One that is not finished is cancelled first.

    What upstream has begun it finishes and charges.
    """
    job_id = job_id_of(video_id)
    await run_in_threadpool(_delete, caller, job_id)
    name_job(request, public_id("job", job_id))
    return json_response({"id": id_of_video(job_id), "object": "video.deleted", "deleted": True})


@router.post(
    "/{video_id}/remix",
    summary="Make a video again with another prompt",
    responses=_CREATED,
    openapi_extra=body_docs(RemixRequest),
)
async def remix_video(
    request: Request,
    video_id: str,
    caller: MakerDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """A new video with the same model, length, shape, seed and inputs, and the new prompt."""
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, RemixRequest)

    def plan() -> Planned:
        return plan_remix(request.url.path, view_of(caller, job_id_of(video_id)), body.prompt, caller)

    return await _start(request, await run_in_threadpool(plan), caller, key)

"""Inputs of jobs: a list for their owner with where each comes from, and the bytes by a signed link.

Upstreams open these links too. The other way round, a list of the jobs that were made from the results of a job.
"""

from types import SimpleNamespace
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import ReadDep
from api.http.errors import error_responses
from api.http.fields import After, after_id
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response, page_response, unix_seconds
from api.jobs.file_routes import FileConditions, send_file
from api.jobs.results.thumbnails import ThumbnailSize, send_thumbnail
from api.jobs.routes import job_not_found, parse_job_id
from api.jobs.serialization import STATUS_OF
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.security.signed_links import create_input_link, read_input_link
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs, queries
from worker.db.jobs.results import lineage

router = APIRouter()


class InputOrigin(BaseModel):
    """Where an input comes from."""

    type: Literal["result", "upload", "url"] = Field(
        description="a result of this platform, bytes in the request, or a link"
    )
    job: str | None = Field(description="(result) the job that made it; null if you do not see it (any more)")
    n: int | None = Field(description="(result) number of the result in that job, from 0")
    variant: Literal["original", "thumbnail", "spritesheet", "last_frame"] | None = Field(
        description="(result) which file of it: the result itself, or a frame of a video"
    )
    file: str | None = Field(description="(result) id of that file")


class JobInput(BaseModel):
    """One input of a job. The properties of a link are null until it is fetched."""

    n: int = Field(description="position in the request, from 0")
    role: Literal["reference", "first_frame", "end_frame"]
    media: Literal["image", "video", "audio"]
    name: str = Field(description="its name in the prompt; empty without one")
    url: str | None = Field(
        description="signed link to the stored file, valid for two days and accepted as an input of other calls; "
        "null = not stored yet, or not any more"
    )
    thumbnail_url: str | None = Field(description="(images) a WebP of at most 512 pixels a side")
    origin: InputOrigin
    source_url: str | None = Field(description="the link in the request; null = sent as a file")
    mime: str | None
    width: int | None
    height: int | None
    bytes: int | None
    seconds: float | None


class JobInputs(BaseModel):
    """The inputs of a job, in the order of the request."""

    object: Literal["list"]
    data: list[JobInput]


class DerivedJob(BaseModel):
    """A job that was made from results of another one."""

    id: str
    object: Literal["job.derived"]
    kind: Literal["image", "video", "chat"]
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    model: str
    prompt: str | None
    created_at: int
    results: list[int] = Field(description="numbers of the results that it was made from, from 0")


class DerivedJobs(BaseModel):
    """A page of such jobs, newest first."""

    object: Literal["list"]
    data: list[DerivedJob]
    has_more: bool


_NO_RESULT = {"job": None, "n": None, "variant": None, "file": None}


def _origin_object(row: "Row[Any]", origins: "dict[UUID, Row[Any]]") -> dict[str, Any]:
    if row.origin_file_id is None:
        return {"type": "upload" if row.url is None else "url", **_NO_RESULT}
    found = origins.get(row.origin_file_id)
    if found is None:
        return {"type": "result", **_NO_RESULT}
    return {
        "type": "result",
        "job": public_id("job", found.job_id),
        "n": found.n,
        "variant": found.variant,
        "file": public_id("file", found.id),
    }


def _input_object(row: "Row[Any]", job_id: UUID, base: str, origins: "dict[UUID, Row[Any]]") -> dict[str, Any]:
    url = create_input_link(base, job_id, row.n) if row.key is not None else None
    is_image = row.mime is not None and row.mime.startswith("image/")
    return {
        **{name: getattr(row, name) for name in ("n", "role", "media", "name", "mime", "width", "height", "bytes")},
        "url": url,
        "thumbnail_url": url.replace("?", "/thumbnail?", 1) if url is not None and is_image else None,
        "origin": _origin_object(row, origins),
        "source_url": row.url,
        "seconds": None if row.milliseconds is None else round(row.milliseconds / 1000, 3),
    }


@router.get(
    "/v1/jobs/{job_id}/inputs",
    tags=["jobs"],
    summary="List the inputs of a job",
    responses={200: {"model": JobInputs, "description": "The inputs, in order."}, **error_responses(401, 404)},
)
async def list_inputs(request: Request, job_id: str, caller: ReadDep) -> Response:
    """The images, videos and audio that the job was given, with links to the files as long as they are stored."""
    parsed, base = parse_job_id(job_id), base_url(request)

    def read() -> list[dict[str, Any]]:
        with transaction() as tx:
            viewer = caller.viewer(tx)
            if queries.job_view(tx, parsed, viewer) is None:
                raise job_not_found(job_id)
            found = inputs.original_inputs(tx, parsed)
            origins = lineage.find_origins(tx, [row.origin_file_id for row in found if row.origin_file_id], viewer)
        return [_input_object(row, parsed, base, origins) for row in found]

    rows = await run_in_threadpool(read)
    set_job_id_header(request, job_id)
    return json_response({"object": "list", "data": rows})


@router.get(
    "/v1/jobs/{job_id}/derived",
    tags=["jobs"],
    summary="List the jobs made from a job",
    responses={200: {"model": DerivedJobs, "description": "Your jobs."}, **error_responses(400, 401, 404)},
)
async def list_derived(
    request: Request,
    job_id: str,
    caller: ReadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: After = None,
) -> Response:
    """Your jobs that have results of this job as inputs, newest first."""
    parsed, last = parse_job_id(job_id), after_id("job", after)

    def read() -> "list[Row[Any]]":
        with transaction() as tx:
            viewer = caller.viewer(tx)
            if queries.job_view(tx, parsed, viewer) is None:
                raise job_not_found(job_id)
            return lineage.list_derived(tx, parsed, viewer, after=last, limit=limit + 1)

    rows = await run_in_threadpool(read)
    set_job_id_header(request, job_id)
    data = [
        {
            "id": public_id("job", row.id),
            "object": "job.derived",
            "kind": row.kind,
            "status": STATUS_OF[row.state],
            "model": row.model,
            "prompt": row.prompt,
            "created_at": unix_seconds(row.created_at),
            "results": row.results,
        }
        for row in rows
    ]
    return page_response(data, limit)


def _find(name: str, expires: str, signature: str) -> "Row[Any]":
    job_id, n = read_input_link(name, expires, signature)
    with transaction() as tx:
        row = next((row for row in inputs.original_inputs(tx, job_id) if row.n == n), None)
    if row is None or row.key is None:
        raise DreameryError("file_not_found")
    return row


@router.head("/v1/inputs/{name}", include_in_schema=False)
@router.get("/v1/inputs/{name}", include_in_schema=False)
async def get_input(
    request: Request,
    name: str,
    *,
    expires: Annotated[str, Query(max_length=20)] = "",
    signature: Annotated[str, Query(max_length=100)] = "",
    range_header: Annotated[str | None, Header(alias="range")] = None,
) -> Response:
    """The bytes of the input; the signature in the link grants access."""
    row = await run_in_threadpool(_find, name, expires, signature)
    conditions = FileConditions(range=range_header, if_none_match=None, if_range=None)
    return await send_file(request, row, name="input", conditions=conditions, cache="private, no-store")


@router.get("/v1/inputs/{name}/thumbnail", include_in_schema=False)
async def get_thumbnail(
    name: str,
    *,
    expires: Annotated[str, Query(max_length=20)] = "",
    signature: Annotated[str, Query(max_length=100)] = "",
    size: ThumbnailSize = "medium",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A small image of an input image, by the parameters of its link."""
    row = await run_in_threadpool(_find, name, expires, signature)
    if not row.mime.startswith("image/"):
        raise DreameryError("file_not_found", "Only images have a thumbnail here.")
    # The inputs of one job wait for each other, not for those of another.
    image = SimpleNamespace(key=row.key, sha256=row.sha256, owner=name.partition("-")[0])
    return await send_thumbnail(image, size, if_none_match=if_none_match, cache="private, no-cache")

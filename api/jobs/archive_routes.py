"""Download many results, of whole jobs or single ones, as a streamed zip with a manifest that describes each file."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from zipstream import ZipStream

from api.auth.caller import Caller
from api.auth.dependencies import ReadDep
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.jobs.results.action_routes import file_not_found, parse_file_id
from api.jobs.serialization import job_object
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView
from worker.db.jobs.results import listing

router = APIRouter(prefix="/v1/files", tags=["files"])

_MAX_JOBS, _MAX_FILES = 100, 200
_UNSAFE_CHARACTERS = re.compile(r"[^\w.-]+")
_EXTENSIONS = {"image/jpeg": "jpg", "video/quicktime": "mov"}


def _split_ids(ids: str, *, param: str, most: int) -> list[str]:
    parts = list(dict.fromkeys(part.strip() for part in ids.split(",") if part.strip()))
    if not 1 <= len(parts) <= most:
        message = f"`{param}` takes 1 to {most} ids, comma-separated; got {len(parts)}. Request several archives."
        raise DreameryError("invalid_value", message, param=param)
    return parts


def _parse_ids(ids: str) -> list[UUID]:
    job_ids: list[UUID] = []
    for one in _split_ids(ids, param="ids", most=_MAX_JOBS):
        job_id = parse_public_id("job", one)
        if job_id is None:
            raise DreameryError("job_not_found", f"No job {one[:60]!r}.")
        job_ids.append(job_id)
    return job_ids


def _find_jobs(caller: Caller, ids: list[UUID]) -> list[JobView]:
    with transaction() as tx:
        views, _ = queries.list_jobs(
            tx, caller.viewer(tx), JobFilter(ids=ids), after=None, limit=len(ids), newest_first=True
        )
    missing = set(ids) - {view.job.id for view in views}
    if missing:
        raise DreameryError("job_not_found", f"No job {public_id('job', min(missing))!r}.")
    return views


def _find_files(caller: Caller, ids: list[UUID]) -> list[JobView]:
    """Return the jobs of these results, each with only those of its results. Raises `file_not_found`."""
    with transaction() as tx:
        viewer = caller.viewer(tx)
        job_ids = listing.job_ids_of(tx, ids)
        views, _ = queries.list_jobs(tx, viewer, JobFilter(ids=job_ids), after=None, limit=len(ids), newest_first=True)
    chosen = set(ids)
    views = [replace(view, files=[item for item in view.files if item.id in chosen]) for view in views]
    missing = chosen - {item.id for view in views for item in view.files}
    if missing:
        raise file_not_found([public_id("file", one) for one in sorted(missing)], "files")
    return views


def _file_name(view: JobView, item: Any) -> str:
    """File name such as `20261125-101500_a-red-boat_1a2b3c4d_1.jpg`: sorts by time, is descriptive and unique."""
    slug = (
        _UNSAFE_CHARACTERS.sub("-", str(view.job.params["order"].get("prompt") or ""))[:40].strip("-.") or view.job.kind
    )
    extension = _EXTENSIONS.get(item.mime) or item.mime.partition("/")[2]
    # The last characters of the id are random.
    return f"{view.job.created_at:%Y%m%d-%H%M%S}_{slug}_{view.job.id.hex[-8:]}_{item.n + 1}.{extension}"


def _manifest_entry(view: JobView, item: Any, job: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": _file_name(view, item),
        "file": public_id("file", item.id),
        "job": job["id"],
        "kind": job["kind"],
        "model": job["model"],
        "created_at": job["created_at"],
        "input": job["input"],
        "metadata": job["metadata"],
        "mime": item.mime,
        "width": item.width,
        "height": item.height,
        "seconds": item.seconds,
        "bytes": item.bytes,
        "sha256": item.sha256,
    }


def _build_archive(views: list[JobView]) -> ZipStream:
    """Build the archive; files are read while it is sent. Raises `file_not_found` if it would be empty."""
    entries, skipped, contents = [], [], []
    for view in views:
        job = job_object(view, "")
        available = [item for item in view.files if item.removed_at is None]
        if not available:
            reason = "its results were removed" if view.files or view.deleted else f"it has no files ({job['status']})"
            skipped.append({"job": job["id"], "reason": reason})
        for item in available:
            entries.append(_manifest_entry(view, item, job))
            contents.append((item, _file_name(view, item)))
    if not contents:
        raise DreameryError("file_not_found", "There are no files to download: they were removed, or there were none.")
    manifest = {
        "object": "archive.manifest",
        "created_at": int(datetime.now(UTC).timestamp()),
        "files": entries,
        "skipped": skipped,
    }
    # Stored, not deflated: images and videos are compressed already, and the total length is known in advance.
    archive = ZipStream(sized=True)
    archive.add(orjson.dumps(manifest, option=orjson.OPT_INDENT_2), "manifest.json")
    for item, name in contents:
        archive.add(storage.iter_file(item.key, size=item.bytes), name, size=item.bytes)
    return archive


@router.get(
    "/archive",
    summary="Download many results",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The zip."},
        **error_responses(400, 401, 404),
    },
)
async def get_archive(
    caller: ReadDep,
    ids: Annotated[str | None, Query(max_length=8000, description="1 to 100 job ids, comma-separated")] = None,
    files: Annotated[
        str | None, Query(max_length=8000, description="or 1 to 200 ids of results, comma-separated: only these")
    ] = None,
) -> StreamingResponse:
    """A zip of images and videos with a `manifest.json`: job, prompt, parameters and SHA-256 of each file.

    Give `ids` or `files`. The manifest lists jobs without files as `skipped`.
    """
    if (ids is None) == (files is None):
        code = "missing_required_parameter" if ids is None else "invalid_value"
        raise DreameryError(code, "Give either `ids` (of jobs) or `files` (of results).", param="ids")
    if files is not None:
        file_ids = [parse_file_id(one, "files") for one in _split_ids(files, param="files", most=_MAX_FILES)]
        views = await run_in_threadpool(_find_files, caller, file_ids)
    else:
        views = await run_in_threadpool(_find_jobs, caller, _parse_ids(ids or ""))
    archive = _build_archive(views)
    headers = {
        "Content-Length": str(len(archive)),
        "Content-Disposition": f'attachment; filename="dreamery-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_read(archive), media_type="application/zip", headers=headers)


async def _read(archive: ZipStream) -> AsyncIterator[bytes]:
    chunks: Iterator[bytes] = iter(archive)
    while (chunk := await in_storage_thread(next, chunks, None)) is not None:
        yield chunk

"""Results of many jobs as one zip, made while it is sent, with a manifest that says what each file is."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from zipstream import ZipStream

from api.auth.dependencies import Caller, ReaderDep
from api.http.errors import error_responses
from api.jobs.serialization import job_object
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView

router = APIRouter(prefix="/v1/files", tags=["files"])

_MOST_JOBS = 100
_ODD = re.compile(r"[^\w.-]+")
_ENDINGS = {"image/jpeg": "jpg", "video/quicktime": "mov"}


def _wanted(ids: str) -> list[UUID]:
    named = list(dict.fromkeys(part.strip() for part in ids.split(",") if part.strip()))
    if not 1 <= len(named) <= _MOST_JOBS:
        message = f"`ids` takes 1 to {_MOST_JOBS} job ids, comma-separated; got {len(named)}. Ask for several archives."
        raise DreameryError("invalid_value", message, param="ids")
    found: list[UUID] = []
    for one in named:
        job_id = parse_public_id("job", one)
        if job_id is None:
            raise DreameryError("job_not_found", f"No job {one[:60]!r}.")
        found.append(job_id)
    return found


def _views(caller: Caller, ids: list[UUID]) -> list[JobView]:
    with transaction() as tx:
        views, _ = queries.list_jobs(
            tx, caller.viewer(tx), JobFilter(ids=ids), after=None, limit=len(ids), newest_first=True
        )
    missing = set(ids) - {view.job.id for view in views}
    if missing:
        raise DreameryError("job_not_found", f"No job {public_id('job', min(missing))!r}.")
    return views


def _name(view: JobView, item: Any) -> str:
    """`20261125-101500_a-red-boat_1a2b3c4d_1.jpg`: sorts by time, says what it is, and is unlike any other."""
    words = _ODD.sub("-", str(view.job.params["order"].get("prompt") or ""))[:40].strip("-.") or view.job.kind
    ending = _ENDINGS.get(item.mime) or item.mime.partition("/")[2]
    # The end of the id is its random part.
    return f"{view.job.created_at:%Y%m%d-%H%M%S}_{words}_{view.job.id.hex[-8:]}_{item.n + 1}.{ending}"


def _line(view: JobView, item: Any, job: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": _name(view, item),
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


def _archive(views: list[JobView]) -> ZipStream:
    """The archive, unread so far. Raises `file_not_found` when it would be empty."""
    lines, skipped, contents = [], [], []
    for view in views:
        job = job_object(view, "")
        kept = [item for item in view.files if item.removed_at is None]
        if not kept:
            reason = "its results were removed" if view.files else f"it has no files ({job['status']})"
            skipped.append({"job": job["id"], "reason": reason})
        for item in kept:
            lines.append(_line(view, item, job))
            contents.append((item, _name(view, item)))
    if not contents:
        raise DreameryError("file_not_found", "None of these jobs has files that can be downloaded.")
    manifest = {
        "object": "archive.manifest",
        "created_at": int(datetime.now(UTC).timestamp()),
        "files": lines,
        "skipped": skipped,
    }
    # Stored, not deflated: pictures and videos are compressed already, and so the length is known beforehand.
    archive = ZipStream(sized=True)
    archive.add(orjson.dumps(manifest, option=orjson.OPT_INDENT_2), "manifest.json")
    for item, name in contents:
        archive.add(storage.iter_file(item.key, size=item.bytes), name, size=item.bytes)
    return archive


@router.get(
    "/archive",
    summary="Download the results of many jobs",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The zip."},
        **error_responses(400, 401, 404),
    },
)
async def get_archive(
    caller: ReaderDep,
    ids: Annotated[str, Query(max_length=8000, description="1 to 100 job ids, comma-separated")],
) -> StreamingResponse:
    """A zip of the pictures and videos, with a `manifest.json`: of each file its job, prompt, parameters and SHA-256.

    Jobs without files are named in the manifest as `skipped`.
    """
    views = await run_in_threadpool(_views, caller, _wanted(ids))
    archive = _archive(views)
    headers = {
        "Content-Length": str(len(archive)),
        "Content-Disposition": f'attachment; filename="dreamery-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"',
        "Cache-Control": "no-store",
    }
    chunks: Iterator[bytes] = iter(archive)
    return StreamingResponse(chunks, media_type="application/zip", headers=headers)

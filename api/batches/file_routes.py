"""`/v1/files` in OpenAI's format: the uploads of batches, and the results and errors that batches write.

Their ids begin with `file-`. Results of jobs are `file_...`: `api/jobs/file_routes.py`.
"""

import contextlib
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep, ReadDep
from api.batches.options import kept_seconds
from api.batches.schemas import DeletedFile, FileUpload, StoredFile, StoredFileList
from api.batches.serialization import file_object, parse_file_id
from api.batches.uploads import key_root_of, store_upload, user_of
from api.http.body_parsing import Upload, body_openapi, parse_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.responses import json_response, page_object
from worker import storage
from worker.core.errors import DreameryError
from worker.db.batches import batch_files
from worker.db.engine import Row, transaction

router = APIRouter(prefix="/v1/files", tags=["batches"])

_PURPOSES = ("batch",)
_MOST_NAME = 200


class _BatchFileId(StringConvertor):
    """Only the ids of these files: those of results go to their own routes at the same paths."""

    regex = "file-[^/]*"


register_url_convertor("batchfile", _BatchFileId())


async def _generating_user(caller: GenerateDep) -> Caller:
    user_of(caller)
    return caller


async def _reading_user(caller: ReadDep) -> Caller:
    user_of(caller)
    return caller


UserGenerateDep = Annotated[Caller, Depends(_generating_user)]
UserReadDep = Annotated[Caller, Depends(_reading_user)]


def find_file(caller: Caller, file_id: str) -> "Row[Any]":
    """Return a file of the caller. Raises `file_not_found`."""
    parsed = parse_file_id(file_id)
    with transaction() as tx:
        row = batch_files.find_file(tx, parsed, owner=caller.owner, key_root=key_root_of(caller))
    if row is None:
        raise DreameryError("file_not_found", f"No file {file_id[:60]!r}.")
    return row


@router.post(
    "",
    summary="Upload a file for a batch",
    responses={
        200: {"model": StoredFile, "description": "The file."},
        **error_responses(400, 401, 403, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_openapi(FileUpload, as_json=False),
)
async def upload_file(request: Request, caller: UserGenerateDep) -> Response:
    """Stores a JSONL file with one request per line, or a CSV file with one column per field, for `POST /v1/batches`.

    The lines are checked when a batch is made of it.
    """
    try:
        body = await parse_body(request, FileUpload)
        if body.purpose not in _PURPOSES:
            message = f"`purpose` must be {' or '.join(_PURPOSES)}; got {body.purpose[:40]!r}."
            raise DreameryError("invalid_value", message, param="purpose")
        if not isinstance(body.file, Upload):
            message = "`file` must be a part of a multipart form (`curl -F file=@requests.jsonl`)."
            raise DreameryError("invalid_value", message, param="file")
        name = clean_name(body.file.name)
        row = await in_storage_thread(
            partial(
                store_upload,
                body.file.file,
                caller,
                name=name,
                mime=mime_of(name),
                expires_seconds=kept_seconds(body.expires_after, "expires_after"),
            )
        )
    finally:
        await request.close()
    return json_response(file_object(row))


def clean_name(name: str) -> str:
    """Return a printable file name without folders."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in base if char.isprintable())[-_MOST_NAME:].strip() or "requests.jsonl"


def mime_of(name: str) -> str:
    """Return the type of a file by its name."""
    return "text/csv" if name.lower().endswith(".csv") else "application/jsonl"


@router.get(
    "",
    summary="List your files of batches",
    responses={200: {"model": StoredFileList, "description": "One page."}, **error_responses(400, 401, 403, 404)},
)
def list_files(
    caller: UserReadDep,
    *,
    purpose: Annotated[Literal["batch", "batch_output"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    after: Annotated[str | None, Query(max_length=60, description="last id of the previous page")] = None,
    order: Literal["asc", "desc"] = "desc",
) -> Response:
    """Returns one page, newest first. If `has_more` is true, send `last_id` as `after` to get the next page."""
    cursor = parse_file_id(after) if after else None
    with transaction() as tx:
        rows = batch_files.list_files(
            tx,
            owner=caller.owner,
            key_root=key_root_of(caller),
            purpose=purpose,
            after=cursor,
            limit=limit + 1,
            newest_first=order == "desc",
        )
    data = [file_object(row) for row in rows[:limit]]
    return json_response(page_object(data, more=len(rows) > limit))


@router.get(
    "/{file_id}",
    summary="Get a file of a batch",
    responses={200: {"model": StoredFile, "description": "The file."}, **error_responses(401, 403, 404)},
)
def get_file(file_id: str, caller: UserReadDep) -> Response:
    """Returns the file object of an upload, or of the results or errors of a batch (`file-...`)."""
    return json_response(file_object(find_file(caller, file_id)))


@router.delete("/{file_id:batchfile}", include_in_schema=False, responses={200: {"model": DeletedFile}})
async def delete_file(file_id: str, caller: UserGenerateDep) -> Response:
    """Deletes a file. Batches that were accepted do not need theirs any more."""
    await in_storage_thread(_delete, caller, file_id)
    return json_response({"id": file_id, "object": "file", "deleted": True})


def _delete(caller: Caller, file_id: str) -> None:
    row = find_file(caller, file_id)
    with transaction() as tx:
        if batch_files.is_in_use(tx, row.id):
            message = "A batch still reads this file. Wait until its status is no longer `validating`."
            raise DreameryError("job_not_finished", message)
        batch_files.remove_file(tx, row.id)
    with contextlib.suppress(storage.StorageError):  # the clean-up deletes it when the storage is available again
        storage.delete_file(row.key)
        with transaction() as tx:
            batch_files.mark_erased(tx, [row.id])


@router.get("/{file_id:batchfile}/content", include_in_schema=False, response_class=Response)
async def get_content(file_id: str, caller: UserReadDep) -> Response:
    """The bytes of a file of batches. It needs the key, unlike the links of results."""
    row = await run_in_threadpool(find_file, caller, file_id)
    try:
        chunks = await storage.stream_file(row.key, start=0, end=row.bytes)
    except storage.MissingFileError:
        raise DreameryError("file_not_found") from None
    name = row.name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    headers = {
        "Content-Length": str(row.bytes),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(chunks, media_type=row.mime, headers=headers)

"""Mark, pin and delete single results, one or many at a time. A result of another user is a 404 (I9)."""

from functools import partial
from typing import Any, Literal, assert_never
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.http.body_parsing import body_openapi, parse_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.responses import json_response
from api.jobs.results.removal import erase_files
from api.jobs.results.schemas import MARKS, FileActionRequest, ResultMarks, ResultMarksList
from api.jobs.results.serialization import marks_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.settings import get_settings
from worker.db.engine import Transaction, transaction
from worker.db.jobs.results import marks
from worker.db.jobs.results.marks import ResultRow
from worker.messaging import pubsub

router = APIRouter(prefix="/v1/files", tags=["files"])

_MISSING_SHOWN = 5


def parse_file_id(file_id: str, param: str | None = None) -> UUID:
    """Parse the id of a result, of the path or of this parameter. Raises file_not_found."""
    parsed = parse_public_id("file", file_id)
    if parsed is None:
        raise file_not_found([file_id], param)
    return parsed


def file_not_found(file_ids: list[str], param: str | None = None) -> DreameryError:
    """The error for unknown results; also for those of another user."""
    names = ", ".join(repr(one[:60]) for one in file_ids[:_MISSING_SHOWN])
    more = f" and {len(file_ids) - _MISSING_SHOWN} more" if len(file_ids) > _MISSING_SHOWN else ""
    return DreameryError("file_not_found", f"No file {names}{more}.", param=param)


def _find(
    tx: Transaction, caller: Caller, ids: list[UUID], *, with_deleted: bool, param: str | None
) -> list[ResultRow]:
    found = marks.lock_results(tx, caller.viewer(tx), ids)
    present = {row.id for row in found if with_deleted or row.deleted_at is None}
    missing = [public_id("file", one) for one in ids if one not in present]
    if missing:
        raise file_not_found(missing, param)
    return found


def _pin(tx: Transaction, results: list[ResultRow]) -> None:
    limit = get_settings().pins_per_caller
    if marks.count_pinned_jobs(tx, results) > limit:
        raise DreameryError("pin_limit", f"You can pin results of up to {limit} jobs. Unpin one first.")
    if any(row.removed_at is not None for row in results):
        raise DreameryError("file_expired", "A result is past its retention and was removed.")
    marks.pin_results(tx, results, pinned=True)


def _apply(tx: Transaction, action: MARKS, results: list[ResultRow]) -> list[Any]:
    """Do it in the database; return the rows of files whose bytes are to be deleted."""
    match action:
        case "favourite" | "unfavourite":
            marks.mark_favourites(tx, results, favourite=action == "favourite")
        case "pin":
            _pin(tx, results)
        case "unpin":
            marks.pin_results(tx, results, pinned=False)
        case "delete":
            return marks.delete_results(tx, results)
        case _:
            assert_never(action)
    return []


def act_on_results(caller: Caller, action: MARKS, ids: list[UUID], *, param: str | None = None) -> list[dict[str, Any]]:
    """Do it with all of these results or with none; return their marks in the order of the ids.

    One transaction; bytes are deleted after it.
    """
    with transaction() as tx:
        results = _find(tx, caller, ids, with_deleted=action == "delete", param=param)
        to_erase = _apply(tx, action, results)
        changed = {row.id: row for row in marks.changed_results(tx, results)}
        tx.on_commit(partial(_publish, list(changed.values())))
    erase_files(to_erase)
    return [marks_object(changed[one]) for one in ids]


def _publish(rows: list[Any]) -> None:
    jobs = {row.job_id: row for row in rows}
    with pubsub.batch_job_changes():
        for row in jobs.values():
            pubsub.publish_job_change(row.job_id, row.state, row.event_seq)


async def _act_on_one(
    caller: Caller, action: Literal["favourite", "unfavourite", "pin", "unpin"], file_id: str
) -> Response:
    [body] = await run_in_threadpool(act_on_results, caller, action, [parse_file_id(file_id)])
    return json_response(body)


@router.post(
    "/actions",
    summary="Mark, pin or delete many results",
    responses={
        200: {"model": ResultMarksList, "description": "The results as they are now."},
        **error_responses(400, 401, 403, 404, 410, 413, 415, 422, 429),
    },
    openapi_extra=body_openapi(FileActionRequest, form=False),
)
async def act_on_many(request: Request, caller: GenerateDep) -> Response:
    """Marks up to 500 results as favourites, pins them beyond the retention or deletes them: all of them or none.

    A result that is already like this stays so; deleting cannot be undone.
    """
    body = await parse_body(request, FileActionRequest)
    ids = list(dict.fromkeys(parse_file_id(one, "files") for one in body.files))
    data = await in_storage_thread(act_on_results, caller, body.action, ids, param="files")
    return json_response({"object": "list", "data": data})


_MARKED: dict[int | str, dict[str, Any]] = {
    200: {"model": ResultMarks, "description": "The result as it is now."},
    **error_responses(401, 403, 404),
}


@router.post("/{file_id}/favourite", summary="Mark a result as a favourite", responses=_MARKED)
async def mark_favourite(file_id: str, caller: GenerateDep) -> Response:
    """Lists can be filtered with `?favourite=true`; a job with a favourite result is a favourite too."""
    return await _act_on_one(caller, "favourite", file_id)


@router.delete("/{file_id}/favourite", summary="Remove a result from the favourites", responses=_MARKED)
async def unmark_favourite(file_id: str, caller: GenerateDep) -> Response:
    """Removes only the mark, not the result."""
    return await _act_on_one(caller, "unfavourite", file_id)


@router.post("/{file_id}/pin", summary="Pin a result to keep it", responses={**_MARKED, **error_responses(400, 410)})
async def pin_result(file_id: str, caller: GenerateDep) -> Response:
    """Keeps this result permanently, regardless of the retention, until it is unpinned or deleted."""
    return await _act_on_one(caller, "pin", file_id)


@router.post("/{file_id}/unpin", summary="Unpin a result", responses=_MARKED)
async def unpin_result(file_id: str, caller: GenerateDep) -> Response:
    """Applies the retention to this result again."""
    return await _act_on_one(caller, "unpin", file_id)


@router.delete("/{file_id}", summary="Delete a result", responses=_MARKED)
async def delete_result(file_id: str, caller: GenerateDep) -> Response:
    """Removes one picture or video from its job and deletes its file; its link answers 404. This cannot be undone.

    The job stays, with its other results and what it cost. Deleting a result again changes nothing.
    """
    [body] = await in_storage_thread(act_on_results, caller, "delete", [parse_file_id(file_id)])
    return json_response(body)

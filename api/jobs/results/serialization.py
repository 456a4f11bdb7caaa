"""Rows of single results as JSON."""

from typing import Any

from api.http.responses import unix_seconds
from api.jobs.serialization import file_url, removal_time
from worker.core.ids import public_id
from worker.core.security.session_tokens import SANDBOX


def thumbnail_url(base: str, file_id: Any) -> str:
    """Return the link of the thumbnail of an image."""
    link, mark, query = file_url(base, file_id).partition("?")
    return link.removesuffix("/content") + "/thumbnail" + mark + query


def result_object(row: Any, base: str) -> dict[str, Any]:
    """The result object of a row of `list_results`."""
    thumbnail = thumbnail_url(base, row.id) if row.kind == "image" else None
    return {
        "id": public_id("file", row.id),
        "object": "result",
        "job": public_id("job", row.job_id),
        "n": row.n,
        "kind": row.kind,
        "model": row.model,
        "prompt": row.prompt,
        "created_at": unix_seconds(row.created_at),
        "completed_at": unix_seconds(row.finished_at),
        "url": file_url(base, row.id),
        "thumbnail_url": file_url(base, row.thumbnail_id) if row.thumbnail_id else thumbnail,
        "mime": row.mime,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "seconds": row.seconds,
        "favourite": row.favourite,
        "pinned": row.pinned,
        "expires_at": removal_time(row.finished_at, row.retention_days, pinned=row.pinned),
        "sandbox": row.region == SANDBOX,
    }


def marks_object(row: Any) -> dict[str, Any]:
    """The marks of a row of `changed_results`."""
    deleted = row.deleted_at is not None
    return {
        "id": public_id("file", row.id),
        "object": "file",
        "job": public_id("job", row.job_id),
        "favourite": row.favourite,
        "pinned": row.pinned,
        "expires_at": None if deleted else removal_time(row.finished_at, row.retention_days, pinned=row.pinned),
        "deleted": deleted,
    }

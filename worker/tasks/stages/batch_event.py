"""The `data` of a webhook event about a batch: what of it fits into one message."""

from typing import Any

from worker.core.ids import public_id
from worker.db.engine import Row

_MOST_ERRORS = 5
_MOST_MESSAGE_CHARS = 500


def batch_data(batch: Row[Any], base: str) -> dict[str, Any]:
    """Return the batch as in its object, with links to it and to its files, and the first errors of a refused one."""
    batch_id = public_id("batch", batch.id)
    files = {"output": batch.output_file_id, "errors": batch.error_file_id}
    errors = batch.errors or {"data": [], "total": 0}
    return {
        "id": batch_id,
        "object": "batch",
        "status": batch.state,
        "endpoint": batch.endpoint,
        "created_at": int(batch.created_at.timestamp()),
        "completed_at": int(batch.completed_at.timestamp()) if batch.completed_at else None,
        "request_counts": {"total": batch.lines, "completed": batch.completed, "failed": batch.failed},
        "output_file_id": f"file-{batch.output_file_id.hex}" if batch.output_file_id else None,
        "error_file_id": f"file-{batch.error_file_id.hex}" if batch.error_file_id else None,
        "errors": [{**one, "message": one["message"][:_MOST_MESSAGE_CHARS]} for one in errors["data"][:_MOST_ERRORS]],
        "error_count": errors["total"],
        "metadata": batch.metadata,
        "urls": {
            "get": f"{base}/v1/batches/{batch_id}",
            "archive": f"{base}/v1/batches/{batch_id}/archive",
            **{
                name: f"{base}/v1/files/file-{file_id.hex}/content"
                for name, file_id in files.items()
                if file_id is not None
            },
        },
    }

"""Rows of batches and their files -> OpenAI's Batch and File objects."""

from typing import Any
from uuid import UUID

from api.http.errors import localized_message
from api.http.responses import unix_seconds
from worker.core.catalog.money import to_amount
from worker.core.errors import ERRORS, DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.batches.batches import LineCounts
from worker.db.engine import Row

# The ids of these files begin as OpenAI's do; those of results are `file_...`.
FILE_PREFIX = "file-"
_TIMES = (
    *("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at"),
    *("cancelling_at", "cancelled_at"),
)
_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_NO_COUNTS = LineCounts()


def public_file_id(file_id: UUID) -> str:
    """Return the public id of a file of batches."""
    return f"{FILE_PREFIX}{file_id.hex}"


def parse_file_id(text: str) -> UUID:
    """Return the id of a file of batches. Raises `file_not_found`."""
    found = parse_public_id("file", text.replace(FILE_PREFIX, "file_", 1)) if text.startswith(FILE_PREFIX) else None
    if found is None:
        raise DreameryError("file_not_found", f"No file {text[:60]!r}.")
    return found


def parse_batch_id(text: str) -> UUID:
    """Return the id of a batch. Raises `batch_not_found`."""
    found = parse_public_id("batch", text)
    if found is None:
        raise DreameryError("batch_not_found", f"No batch {text[:60]!r}.")
    return found


def file_object(row: Row[Any]) -> dict[str, Any]:
    """Return OpenAI's File object."""
    return {
        "id": public_file_id(row.id),
        "object": "file",
        "bytes": row.bytes,
        "created_at": unix_seconds(row.created_at),
        "expires_at": unix_seconds(row.expires_at),
        "filename": row.name,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_object(row: Row[Any], counts: LineCounts | None, costs: list[Row[Any]] | None = None) -> dict[str, Any]:
    """Return OpenAI's Batch object with our fields. `counts` = of a batch whose jobs have not all ended."""
    ended = row.state in _ENDED
    now = LineCounts(row.completed, row.failed) if ended else counts or _NO_COUNTS
    files = {name: getattr(row, name) for name in ("input_file_id", "output_file_id", "error_file_id")}
    return {
        "id": public_id("batch", row.id),
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": error_list(row.errors),
        **{name: None if file_id is None else public_file_id(file_id) for name, file_id in files.items()},
        "completion_window": row.options["completion_window"],
        "status": row.state,
        **{name: unix_seconds(getattr(row, name)) for name in _TIMES},
        "request_counts": {"total": row.lines, "completed": now.completed, "failed": now.failed},
        "metadata": row.metadata,
        "paused": row.paused_at is not None and row.state == "in_progress",
        "priority": "idle" if row.idle else "normal",
        "not_before": unix_seconds(row.not_before),
        "at_work": now.at_work,
        "checked": row.checked,
        "price": row.price,
        **({"costs": [_cost(one) for one in costs]} if costs is not None else {}),
    }


def error_list(errors: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return OpenAI's list of errors, in the language of the request; None without errors."""
    if not errors:
        return None
    data = [{**one, "message": _localized(one)} for one in errors["data"]]
    return {"object": "list", "data": data, "total": errors["total"]}


def _localized(error: dict[str, Any]) -> str:
    kind = ERRORS.get(error["code"])
    return error["message"] if kind is None else localized_message(kind, error["message"])


def _cost(row: Row[Any]) -> dict[str, Any]:
    if row.currency is None:
        return {"currency": None, "credits_expected": row.expected, "credits_charged": row.charged}
    return {
        "currency": row.currency,
        "cost_expected": to_amount(row.expected),
        "cost_charged": to_amount(row.charged),
    }

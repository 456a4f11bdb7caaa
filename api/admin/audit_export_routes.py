"""Export of the audit log as a streamed file: JSON lines or CSV, oldest first."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from api.auth.dependencies import AdminDep, audit_actor
from api.http.errors import error_responses
from api.http.responses import csv_cell
from worker.core.ids import public_id
from worker.db.engine import Row, transaction
from worker.db.users import audit_log

router = APIRouter(prefix="/admin/v1/audit", tags=["admin"], responses=error_responses(400, 401, 403))

_PAGE = 1000
_COLUMNS = ("id", "at", "actor", "actor_id", "address", "action", "target", "details")
_MEDIA = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}


def _to_datetime(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(min(seconds, 4e9), UTC) if seconds is not None else None


def _entry_object(row: "Row[Any]") -> dict[str, Any]:
    return {
        "id": public_id("act", row.id),
        "at": row.at.astimezone(UTC).isoformat(),
        "actor": row.actor,
        "actor_id": public_id("user", row.actor_id) if row.actor_id else None,
        "address": row.address,
        "action": row.action,
        "target": row.target,
        "details": row.details,
    }


def _export_chunks(form: str, action: str | None, since: datetime | None, until: datetime) -> Iterator[bytes]:
    """Yield the export page by page. Each page has its own transaction, so a slow client holds none open."""
    if form == "csv":
        yield (",".join(_COLUMNS) + "\r\n").encode()
    after = None
    while True:
        with transaction() as tx:
            rows = audit_log.read_forward(tx, action=action, since=since, until=until, after=after, limit=_PAGE)
        if rows:
            yield (_csv if form == "csv" else _jsonl)([_entry_object(row) for row in rows])
        if len(rows) < _PAGE:
            return
        after = rows[-1].id


def _jsonl(entries: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(entry) + b"\n" for entry in entries)


def _csv(entries: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS, lineterminator="\r\n")
    for entry in entries:
        row = {**entry, "details": orjson.dumps(entry["details"]).decode()}
        writer.writerow({name: csv_cell(value) for name, value in row.items()})
    return out.getvalue().encode()


@router.get(
    "/export",
    summary="Export the audit log",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "application/jsonl": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            },
            "description": "One entry per line.",
        }
    },
)
def export_audit(
    request: Request,
    admin: AdminDep,
    *,
    form: Annotated[Literal["jsonl", "csv"], Query(alias="format")] = "jsonl",
    action: Annotated[
        str | None, Query(max_length=60, description="for example `key.revoke`, or `key` for all key actions")
    ] = None,
    since: Annotated[float | None, Query(ge=0, description="unix seconds")] = None,
    until: Annotated[float | None, Query(ge=0, description="unix seconds; default: now")] = None,
) -> StreamingResponse:
    """Exports the whole audit log or a time range. The export itself is recorded too."""
    now = datetime.now(UTC)
    with transaction() as tx:
        audit_log.record_action(tx, audit_actor(request, admin), "audit.export", "audit", format=form, of=action)
    name = f"audit-{now:%Y%m%dT%H%M%SZ}.{form}"
    return StreamingResponse(
        _export_chunks(form, action, _to_datetime(since), _to_datetime(until) or now),
        media_type=_MEDIA[form],
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )

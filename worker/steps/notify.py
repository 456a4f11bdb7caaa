"""Deliver one webhook: the outbox row was written with the final state, so a crash can only repeat a delivery.

Signed after Standard Webhooks; `webhook-id` is the same on every try, so a receiver can drop repeats (I11).
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks import Webhook

from worker import fetch
from worker.core.crypto import webhook_secret
from worker.core.ids import public_id
from worker.core.log import get_logger
from worker.db import deliveries, reports
from worker.db.engine import Row, retry_when_database_away, transaction

log = get_logger("notify")


def notify(*, delivery_id: UUID) -> str:
    """Send the delivery, if it is due."""
    claimed = _claim(delivery_id)
    if claimed is None:
        return "not due"
    delivery, view = claimed
    body = _body(delivery, view)
    status, error = _send(delivery, body)
    with transaction() as tx:
        if error is None and status is not None:
            deliveries.note_delivered(tx, delivery.id, status=status)
            return f"delivered {delivery.event} of {delivery.job_id}"
        again = deliveries.note_failed(tx, delivery.id, tries=delivery.tries, status=status, error=error or "")
    log.warning("webhook_not_taken", delivery_id=str(delivery.id), status=status, reason=error, again=again)
    return f"{delivery.event} of {delivery.job_id} not taken: {error}"


@retry_when_database_away
def _claim(delivery_id: UUID) -> tuple[Row[Any], reports.JobView] | None:
    with transaction() as tx:
        delivery = deliveries.claim_delivery(tx, delivery_id)
        if delivery is None:
            return None
        return delivery, reports.group_views(tx, [delivery.job_id])[0]


def _body(delivery: Row[Any], view: reports.JobView) -> bytes:
    job = view.job
    return orjson.dumps(
        {
            "id": public_id("evt", delivery.id),
            "object": "event",
            "type": delivery.event,
            "timestamp": job.finished_at.astimezone(UTC).isoformat(),
            "created_at": int(job.finished_at.timestamp()),
            "data": {
                "id": public_id("job", job.id),
                "object": "job",
                "kind": job.kind,
                "status": {"succeeded": "completed"}.get(job.state, job.state),
                "model": job.model,
                "files": len(view.files),
                "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
                "metadata": job.metadata,
            },
        }
    )


def _send(delivery: Row[Any], body: bytes) -> tuple[int | None, str | None]:
    message_id, now = public_id("msg", delivery.id), datetime.now(UTC)
    signature = Webhook(webhook_secret(delivery.owner)).sign(message_id, now, body.decode())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    try:
        status = fetch.post(delivery.url, body=body, headers=headers)
    except fetch.FetchError as error:
        return None, str(error)
    return (status, None) if 200 <= status < 300 else (status, f"HTTP status {status}")

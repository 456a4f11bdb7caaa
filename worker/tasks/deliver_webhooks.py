"""Delivers webhooks from the outbox. Its rows are committed together with the job state, so a crash can only repeat a
delivery.

Signed as in Standard Webhooks. `webhook-id` is the same on every try, so a receiver can drop duplicates (I11). Bodies
contain links, never bytes. They are the same on every try, except for links that expire (LINK_TTL_SECONDS).
"""

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks import Webhook

from worker.core.concurrency.shutdown import stopping
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import ERRORS
from worker.core.ids import public_id
from worker.core.observability import metrics
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.security.encryption import SecretUnreadableError, decrypt_secret, webhook_secret
from worker.core.security.signed_links import create_file_link
from worker.core.settings import get_settings
from worker.core.webhook_policy import TEST_EVENT, next_delay, pause_seconds, retry_after_seconds
from worker.db.engine import Row, Transaction, retry_when_database_unavailable, transaction
from worker.db.jobs import queries
from worker.db.platform import root_key
from worker.db.webhooks import endpoints, outbox
from worker.safe_fetch import client
from worker.safe_fetch.checks import FetchError

log = get_logger("deliver_webhooks")

MAX_BODY_BYTES = 20_000
_MAX_MESSAGE_CHARS = 2000
# How long one message works on the due deliveries of its lane; the sweep enqueues the rest again.
_LANE_SECONDS = 15.0

_STATUS = {"job.completed": "completed", "job.failed": "failed", "job.cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of one try; delivered if `error` is None."""

    seconds: float
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None


def deliver(*, delivery_id: UUID) -> str:
    """Send the delivery, if it is due. Return a line about the outcome."""
    sent = _claim_and_send(delivery_id)
    return sent[1] if sent else "not due"


def deliver_lane(*, delivery_id: UUID) -> str:
    """Send the delivery and then, for a while, the other due deliveries to the same receiver."""
    # Receivers may be slow; the other tasks of this process must keep threads.
    slots = _delivery_slots()
    if not slots.acquire(blocking=False):
        return "no free delivery slot"
    try:
        return _work_lane(delivery_id)
    finally:
        slots.release()


@lru_cache(maxsize=1)
def _delivery_slots() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(get_settings().worker_concurrency // 4, 1))


def _work_lane(delivery_id: UUID) -> str:
    until = time.monotonic() + _LANE_SECONDS
    sent = _claim_and_send(delivery_id)
    if sent is None:
        return "not due"
    delivery, line = sent
    more = 0
    while time.monotonic() < until and not stopping.requested:
        watchdog.renew()
        claimed = _claim_next(delivery.owner, delivery.lane)
        if claimed is None:
            break
        _send_in_context(*claimed)
        more += 1
    return f"{line}, and {more} more" if more else line


def _claim_and_send(delivery_id: UUID) -> tuple[Row[Any], str] | None:
    claimed = _claim(delivery_id)
    return (claimed[0], _send_in_context(*claimed)) if claimed else None


@retry_when_database_unavailable
def _claim(delivery_id: UUID) -> tuple[Row[Any], queries.JobView | None] | None:
    with transaction() as tx:
        known = outbox.lane_of(tx, delivery_id)
        if known is None:
            return None
        delivery = outbox.claim_delivery(tx, owner=known.owner, lane=known.lane, delivery_id=delivery_id)
        return None if delivery is None else (delivery, _view(tx, delivery))


@retry_when_database_unavailable
def _claim_next(owner: str, lane: str) -> tuple[Row[Any], queries.JobView | None] | None:
    with transaction() as tx:
        delivery = outbox.claim_delivery(tx, owner=owner, lane=lane)
        return None if delivery is None else (delivery, _view(tx, delivery))


def _view(tx: Transaction, delivery: Row[Any]) -> queries.JobView | None:
    return queries.group_views(tx, [delivery.job_id])[0] if delivery.job_id else None


def _send_in_context(delivery: Row[Any], view: queries.JobView | None) -> str:
    """Send a claimed delivery once and record the outcome, in the trace of its job."""
    if view is None:
        return _send_and_record(delivery, view)
    with job_context("notify", view.job.id, view.job.origin):
        return _send_and_record(delivery, view)


def _send_and_record(delivery: Row[Any], view: queries.JobView | None) -> str:
    outcome = _send(delivery, event_body(delivery, view))
    if outcome.error is None:
        metrics.count("dreamery_webhooks", "delivered")
        _note_delivered(delivery, outcome)
        return f"delivered {delivery.event} to {delivery.lane}"
    delay = next_delay(
        delivery.tries,
        event=delivery.event,
        status=outcome.status,
        retry_after=outcome.retry_after,
        random_fraction=random.random(),  # noqa: S311 - only spreads the load
    )
    metrics.count("dreamery_webhooks", "failed" if delay is not None else "given_up")
    disabled = _note_failed(delivery, outcome, delay)
    log.warning(
        "webhook_not_taken",
        delivery_id=str(delivery.id),
        endpoint_id=str(delivery.endpoint_id or ""),
        status=outcome.status,
        reason=outcome.error,
        again=delay is not None,
        disabled=disabled,
    )
    return f"{delivery.event} to {delivery.lane} not delivered: {outcome.error}"


@retry_when_database_unavailable
def _note_delivered(delivery: Row[Any], outcome: _Outcome) -> None:
    with transaction() as tx:
        if delivery.endpoint_id:
            endpoints.record_success(tx, delivery.endpoint_id)
        outbox.record_delivered(
            tx, delivery.id, attempt=delivery.attempts, status=outcome.status or 0, seconds=outcome.seconds
        )


@retry_when_database_unavailable
def _note_failed(delivery: Row[Any], outcome: _Outcome, delay: float | None) -> bool:
    """Record a failed try. Return True if it disabled the endpoint."""
    with transaction() as tx:
        disabled = bool(delivery.endpoint_id) and _note_refusal(tx, delivery, outcome, given_up=delay is None)
        outbox.record_failed(
            tx,
            delivery.id,
            attempt=delivery.attempts,
            status=outcome.status,
            error=outcome.error or "",
            seconds=outcome.seconds,
            delay=delay,
        )
        if disabled:
            outbox.give_up_pending(tx, delivery.endpoint_id)
    return disabled


def _note_refusal(tx: Transaction, delivery: Row[Any], outcome: _Outcome, *, given_up: bool) -> bool:
    """Pause or disable the endpoint after a failed try. Return True if it is disabled now."""
    if outcome.status == 410:
        return endpoints.disable_endpoint(tx, delivery.endpoint_id, reason="the receiver answered 410 Gone")
    # A failed test does not affect the events in the queue.
    if delivery.event == TEST_EVENT:
        return False
    pause = pause_seconds(status=outcome.status, seconds=outcome.seconds, retry_after=outcome.retry_after)
    endpoints.record_failure(tx, delivery.endpoint_id, pause=pause)
    failing = endpoints.get_failing_endpoint(tx, delivery.endpoint_id) if given_up else None
    if failing is None:
        return False
    since = failing.failing_since.astimezone(UTC).strftime("%Y-%m-%d")
    reason = f"no delivery succeeded since {since}; last error: {outcome.error}"
    return endpoints.disable_endpoint(tx, delivery.endpoint_id, reason=reason[:500])


# --- the message ---


def event_body(delivery: Row[Any], view: queries.JobView | None) -> bytes:
    """Return the body of a delivery, below `MAX_BODY_BYTES`: the public job, in its state at the event."""
    data = _test_data(delivery) if view is None else _job_data(delivery.event, view)
    moment = delivery.created_at
    if view is not None:
        moment = view.job.submitted_at if delivery.event == "job.started" else view.job.finished_at
    envelope = {
        "id": public_id("evt", delivery.id),
        "object": "event",
        "type": delivery.event,
        "timestamp": moment.astimezone(UTC).isoformat(),
        "created_at": int(moment.timestamp()),
        "data": data,
    }
    body = orjson.dumps(envelope)
    if len(body) >= MAX_BODY_BYTES:
        # Callers choose the size of the metadata only. The flag distinguishes omitted from empty metadata.
        body = orjson.dumps({**envelope, "data": {**data, "metadata": {}, "metadata_omitted": True}})
    return body


def _test_data(delivery: Row[Any]) -> dict[str, Any]:
    return {
        "id": public_id("whe", delivery.endpoint_id),
        "object": "webhook.endpoint",
        "message": "A test event. Answer with any 2xx status.",
    }


def _job_data(event: str, view: queries.JobView) -> dict[str, Any]:
    job, base = view.job, _base_url()
    job_id = public_id("job", job.id)
    status = _STATUS.get(event, "in_progress")
    return {
        "id": job_id,
        "object": "job",
        "kind": job.kind,
        "status": status,
        "model": job.model,
        "parent": public_id("job", job.parent_id) if job.parent_id else None,
        "created_at": int(job.created_at.timestamp()),
        "started_at": int(job.submitted_at.timestamp()) if job.submitted_at else None,
        "completed_at": int(job.finished_at.timestamp()) if event in _STATUS else None,
        "progress": {"completed": 100, "in_progress": 0}.get(status, min(job.progress, 99)),
        "output": [
            {
                "url": create_file_link(base, item.id),
                "mime": item.mime,
                "width": item.width,
                "height": item.height,
                "bytes": item.bytes,
                "seconds": item.seconds,
            }
            for item in view.files
        ]
        if status == "completed"
        else None,
        "error": _error(job) if status == "failed" else None,
        "metadata": job.metadata,
        "urls": {"get": f"{base}/v1/jobs/{job_id}", "events": f"{base}/v1/jobs/{job_id}/events"},
    }


def _error(job: Row[Any]) -> dict[str, Any]:
    kind, message = ERRORS[job.error_code], job.error_message or ERRORS[job.error_code].message
    return {"code": kind.code, "message": message[:_MAX_MESSAGE_CHARS], "type": kind.type, "param": None}


def _base_url() -> str:
    """Return the prefix of links: PUBLIC_URL, or else the address the API listens on (there is no request to ask)."""
    settings = get_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)
    return settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"


# --- the call ---


def _send(delivery: Row[Any], body: bytes) -> _Outcome:
    started = time.monotonic()
    try:
        posted = client.post(delivery.url, body=body, headers=_signed_headers(delivery, body))
    except FetchError as error:
        return _Outcome(seconds=time.monotonic() - started, error=str(error))
    except SecretUnreadableError:
        error_text = "its secret cannot be decrypted with DREAMERY_MASTER_KEY; rotate it"
        return _Outcome(seconds=time.monotonic() - started, error=error_text)
    seconds = time.monotonic() - started
    if 200 <= posted.status < 300:
        return _Outcome(seconds=seconds, status=posted.status)
    hint = " (redirects are not followed)" if 300 <= posted.status < 400 else ""
    return _Outcome(
        seconds=seconds,
        status=posted.status,
        error=f"HTTP status {posted.status}{hint}",
        retry_after=retry_after_seconds(posted.retry_after, datetime.now(UTC)),
    )


def _signed_headers(delivery: Row[Any], body: bytes) -> dict[str, str]:
    message_id, now = public_id("msg", delivery.id), datetime.now(UTC)
    signatures = [Webhook(secret).sign(message_id, now, body.decode()) for secret in _secrets(delivery)]
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _secrets(delivery: Row[Any]) -> list[str]:
    """Return the signing secrets: the owner's for a job's own `webhook`, else those of the endpoint, newest first."""
    if delivery.endpoint_id is None:
        root_key.load_root_key()
        return [webhook_secret(delivery.owner)]
    context = endpoints.secret_context(delivery.endpoint_id)
    encrypted = [delivery.secret, delivery.previous_secret]
    return [decrypt_secret(item, context=context) for item in encrypted if item is not None]

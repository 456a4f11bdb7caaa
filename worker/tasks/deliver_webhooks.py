"""Deliver webhooks: outbox rows were written with the state they tell of, so a crash can only repeat a delivery.

Signed after Standard Webhooks; `webhook-id` is the same on every try, so a receiver can drop repeats (I11). Bodies hold
links, never bytes, and stay the same from try to try, but for links that expire (LINK_TTL_SECONDS): they are fresh.
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

from worker import safe_fetch
from worker.core.errors import ERRORS
from worker.core.ids import public_id
from worker.core.observability import metrics
from worker.core.observability.job_context import about_job
from worker.core.observability.logging import get_logger
from worker.core.security.encryption import SecretUnreadableError, open_secret, webhook_secret
from worker.core.security.signed_links import file_link
from worker.core.settings import get_settings
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.core.webhook_policy import TEST_EVENT, next_delay, pause_seconds, retry_after_seconds
from worker.db.engine import Row, Transaction, retry_when_database_away, transaction
from worker.db.jobs import queries
from worker.db.platform import root_key
from worker.db.webhooks import endpoints, outbox

log = get_logger("notify")

MOST_BODY_BYTES = 20_000
_MOST_MESSAGE_CHARS = 2000
# How long one message goes on with what is due in its lane; then the sweep's next message does.
_LANE_SECONDS = 15.0

_STATUS = {"job.completed": "completed", "job.failed": "failed", "job.cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How one try ended; taken when `error` is None."""

    seconds: float
    status: int | None = None
    error: str | None = None
    retry_after: float | None = None


def notify(*, delivery_id: UUID) -> str:
    """Send the delivery, if it is due."""
    told = _tell(delivery_id)
    return told[1] if told else "not due"


def notify_lane(*, delivery_id: UUID) -> str:
    """Send the delivery and then, for a while, what else is due to the same receiver."""
    # Receivers may take their time; the other steps of this process must keep threads.
    room = _room()
    if not room.acquire(blocking=False):
        return "no room"
    try:
        return _work_lane(delivery_id)
    finally:
        room.release()


@lru_cache(maxsize=1)
def _room() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(max(get_settings().worker_concurrency // 4, 1))


def _work_lane(delivery_id: UUID) -> str:
    until = time.monotonic() + _LANE_SECONDS
    told = _tell(delivery_id)
    if told is None:
        return "not due"
    delivery, line = told
    more = 0
    while time.monotonic() < until and not stopping.asked:
        watchdog.renew()
        claimed = _claim_next(delivery.owner, delivery.lane)
        if claimed is None:
            break
        _attempt(*claimed)
        more += 1
    return f"{line}, and {more} more" if more else line


def _tell(delivery_id: UUID) -> tuple[Row[Any], str] | None:
    claimed = _claim(delivery_id)
    return (claimed[0], _attempt(*claimed)) if claimed else None


@retry_when_database_away
def _claim(delivery_id: UUID) -> tuple[Row[Any], queries.JobView | None] | None:
    with transaction() as tx:
        known = outbox.lane_of(tx, delivery_id)
        if known is None:
            return None
        delivery = outbox.claim_delivery(tx, owner=known.owner, lane=known.lane, delivery_id=delivery_id)
        return None if delivery is None else (delivery, _view(tx, delivery))


@retry_when_database_away
def _claim_next(owner: str, lane: str) -> tuple[Row[Any], queries.JobView | None] | None:
    with transaction() as tx:
        delivery = outbox.claim_delivery(tx, owner=owner, lane=lane)
        return None if delivery is None else (delivery, _view(tx, delivery))


def _view(tx: Transaction, delivery: Row[Any]) -> queries.JobView | None:
    return queries.group_views(tx, [delivery.job_id])[0] if delivery.job_id else None


def _attempt(delivery: Row[Any], view: queries.JobView | None) -> str:
    """One try of a claimed delivery, and its outcome noted."""
    if view is None:
        return _attempted(delivery, view)
    with about_job("notify", view.job.id, view.job.origin):
        return _attempted(delivery, view)


def _attempted(delivery: Row[Any], view: queries.JobView | None) -> str:
    outcome = _send(delivery, event_body(delivery, view))
    if outcome.error is None:
        metrics.count("dreamery_webhooks", "delivered")
        _note_delivered(delivery, outcome)
        return f"delivered {delivery.event} to {delivery.lane}"
    again = next_delay(
        delivery.tries,
        event=delivery.event,
        status=outcome.status,
        retry_after=outcome.retry_after,
        dice=random.random(),  # noqa: S311 - spreads load, guards nothing
    )
    metrics.count("dreamery_webhooks", "failed" if again is not None else "given_up")
    disabled = _note_failed(delivery, outcome, again)
    log.warning(
        "webhook_not_taken",
        delivery_id=str(delivery.id),
        endpoint_id=str(delivery.endpoint_id or ""),
        status=outcome.status,
        reason=outcome.error,
        again=again is not None,
        disabled=disabled,
    )
    return f"{delivery.event} to {delivery.lane} not taken: {outcome.error}"


@retry_when_database_away
def _note_delivered(delivery: Row[Any], outcome: _Outcome) -> None:
    with transaction() as tx:
        if delivery.endpoint_id:
            endpoints.note_taken(tx, delivery.endpoint_id)
        outbox.note_delivered(
            tx, delivery.id, attempt=delivery.attempts, status=outcome.status or 0, seconds=outcome.seconds
        )


@retry_when_database_away
def _note_failed(delivery: Row[Any], outcome: _Outcome, delay: float | None) -> bool:
    """Note a failed try; True when it was the one that disabled its endpoint."""
    with transaction() as tx:
        disabled = bool(delivery.endpoint_id) and _note_refusal(tx, delivery, outcome, given_up=delay is None)
        outbox.note_failed(
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
    """What a failed try means for its endpoint; True when the endpoint is disabled for it."""
    if outcome.status == 410:
        return endpoints.disable_endpoint(tx, delivery.endpoint_id, reason="the receiver answered 410 Gone")
    # A test is the owner's own try: it says nothing about the events in line.
    if delivery.event == TEST_EVENT:
        return False
    pause = pause_seconds(status=outcome.status, seconds=outcome.seconds, retry_after=outcome.retry_after)
    endpoints.note_refused(tx, delivery.endpoint_id, pause=pause)
    failing = endpoints.failing_for_long(tx, delivery.endpoint_id) if given_up else None
    if failing is None:
        return False
    since = failing.failing_since.astimezone(UTC).strftime("%Y-%m-%d")
    reason = f"nothing was taken since {since}; last: {outcome.error}"
    return endpoints.disable_endpoint(tx, delivery.endpoint_id, reason=reason[:500])


# --- the message ---


def event_body(delivery: Row[Any], view: queries.JobView | None) -> bytes:
    """The body of a delivery, below `MOST_BODY_BYTES`: a job as callers see it, as it was at the event."""
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
    if len(body) >= MOST_BODY_BYTES:
        # The one part whose size callers choose; said, so that nobody takes it for empty.
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
                "url": file_link(base, item.id),
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
    return {"code": kind.code, "message": message[:_MOST_MESSAGE_CHARS], "type": kind.type, "param": None}


def _base_url() -> str:
    """The prefix of links. No request is at hand to take it from: without PUBLIC_URL, where the API listens here."""
    settings = get_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)
    return settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{settings.api_port}"


# --- the call ---


def _send(delivery: Row[Any], body: bytes) -> _Outcome:
    started = time.monotonic()
    try:
        posted = safe_fetch.post(delivery.url, body=body, headers=_signed_headers(delivery, body))
    except safe_fetch.FetchError as error:
        return _Outcome(seconds=time.monotonic() - started, error=str(error))
    except SecretUnreadableError:
        error_text = "its secret does not open with this DREAMERY_MASTER_KEY; rotate it"
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
    """The secrets that sign: the owner's for a job's own `webhook`, else the endpoint's, newest first."""
    if delivery.endpoint_id is None:
        root_key.load_root()
        return [webhook_secret(delivery.owner)]
    context = endpoints.secret_context(delivery.endpoint_id)
    sealed = [delivery.secret, delivery.previous_secret]
    return [open_secret(item, context=context) for item in sealed if item is not None]

"""Delivers webhooks from the outbox. Its rows are committed together with the job state, so a crash can only repeat a
delivery.

Deliveries wait on the event loop, few of each owner: slow receivers delay only deliveries of the same owner. Signed as
in Standard Webhooks. `webhook-id` is the same on every try, so a receiver can drop duplicates (I11). Bodies contain
links, never bytes. They are the same on every try, except for links that expire (LINK_TTL_SECONDS).
"""

import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from standardwebhooks import Webhook

from worker.core.concurrency.event_loop import in_thread, run
from worker.core.concurrency.lanes import Lane, acting_for
from worker.core.concurrency.shutdown import stopping
from worker.core.errors import ERRORS
from worker.core.ids import public_id
from worker.core.observability import metrics
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.security.encryption import SecretUnreadableError, decrypt_secret, webhook_secret
from worker.core.security.signed_links import create_file_link
from worker.core.settings import get_settings
from worker.core.webhook_policy import TEST_EVENT, next_delay, pause_seconds, retry_after_seconds
from worker.db.engine import (
    DATABASE_ERRORS,
    DATABASE_UNAVAILABLE_ERRORS,
    Row,
    Transaction,
    retry_when_database_unavailable,
    transaction,
)
from worker.db.jobs import queries
from worker.db.monitoring import channels
from worker.db.platform import root_key
from worker.db.webhooks import endpoints, outbox
from worker.safe_fetch import async_post, mail
from worker.safe_fetch.checks import FetchError
from worker.tasks.stages import worker_keys
from worker.tasks.stages.batch_event import batch_data

log = get_logger("deliver_webhooks")

MAX_BODY_BYTES = 20_000
_MAX_MESSAGE_CHARS = 2000
# How long one message works on the due deliveries of its lane; the sweep enqueues the rest again.
_LANE_SECONDS = 15.0
# Deliveries in progress in this process, in fair shares per owner. Each costs a connection, but no thread.
DELIVERIES = Lane(256)
# What this platform cannot sign is tried again this often, until its key is back.
_LOCKED_SECONDS = 60.0
_LOCKED = "this platform cannot read the signing secret; its operator has to add the key to DREAMERY_MASTER_KEY"

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
    return run(_deliver(delivery_id, until=0.0))


async def deliver_lane(delivery_id: UUID) -> str:
    """Send the delivery and then, for a while, the other due deliveries to the same receiver."""
    # The sweep repeats the messages of what is still due, also of what waits here for its turn.
    if delivery_id in _in_progress:
        return "waits for its turn already"
    _in_progress.add(delivery_id)
    try:
        return await _deliver(delivery_id, until=time.monotonic() + _LANE_SECONDS)
    finally:
        _in_progress.discard(delivery_id)


_in_progress: set[UUID] = set()


async def _deliver(delivery_id: UUID, *, until: float) -> str:
    place = await in_thread(_find_lane, delivery_id)
    if place is None:
        return "not due"
    with acting_for(place.owner):
        line, more = await _send_next(place, delivery_id), 0
        while line is not None and time.monotonic() < until and not stopping.requested:
            if await _send_next(place) is None:
                break
            more += 1
    if line is None:
        return "not due"
    return f"{line}, and {more} more" if more else line


@retry_when_database_unavailable
def _find_lane(delivery_id: UUID) -> Row[Any] | None:
    with transaction() as tx:
        return outbox.lane_of(tx, delivery_id)


async def _send_next(place: Row[Any], delivery_id: UUID | None = None) -> str | None:
    """Send this delivery, or the next due one of the lane. Return a line about the outcome; None = nothing was due."""
    # The turn before the claim, whose lease must not pass while the delivery waits.
    async with DELIVERIES.turn():
        claimed = await in_thread(_claim, place.owner, place.lane, delivery_id)
        if claimed is None:
            return None
        delivery, view = claimed
        if view is None:
            return await _send_and_record(delivery, view)
        with job_context("notify", view.job.id, view.job.origin):
            return await _send_and_record(delivery, view)


@retry_when_database_unavailable
def _claim(owner: str, lane: str, delivery_id: UUID | None) -> tuple[Row[Any], queries.JobView | None] | None:
    with transaction() as tx:
        delivery = outbox.claim_delivery(tx, owner=owner, lane=lane, delivery_id=delivery_id)
        if delivery is None:
            return None
        try:
            return delivery, _view(tx, delivery)
        except DATABASE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - the try meets it again
            # It must not undo the claim: the delivery would block its lane.
            log.info("delivery_without_job", delivery_id=str(delivery.id), reason=type(error).__name__)
            return delivery, None


def _view(tx: Transaction, delivery: Row[Any]) -> queries.JobView | None:
    return queries.group_views(tx, [delivery.job_id])[0] if delivery.job_id else None


@retry_when_database_unavailable
def _read_view(delivery: Row[Any]) -> queries.JobView | None:
    with transaction() as tx:
        return _view(tx, delivery)


async def _send_and_record(delivery: Row[Any], view: queries.JobView | None) -> str:
    """Send a claimed delivery once and record the outcome. A fault is a failed try: it has a next time, and an end."""
    started = time.monotonic()
    try:
        if view is None and delivery.job_id is not None:
            view = await in_thread(_read_view, delivery)
        body = await in_thread(event_body, delivery, view)
        if delivery.url.startswith("mailto:"):
            outcome = await in_thread(_send_mail, delivery)
        else:
            outcome = await _send(delivery.url, body, await in_thread(_signed_headers, delivery, body))
    except SecretUnreadableError:
        return await in_thread(_put_off, delivery)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001
        fault = UnexpectedError(error)
        log.error("delivery_failed", delivery_id=str(delivery.id), detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        outcome = _Outcome(seconds=time.monotonic() - started, error=fault.detail)
    return await in_thread(_record, delivery, outcome)


@retry_when_database_unavailable
def _put_off(delivery: Row[Any]) -> str:
    """Let the delivery wait, because this platform cannot sign it. Neither the owner nor the endpoint is at fault."""
    # A worker with a wrong key ends, and the delivery is for the others.
    worker_keys.stop_if_wrong(account=delivery.lane)
    metrics.count("dreamery_webhooks", "put_off")
    with transaction() as tx:
        if delivery.endpoint_id:
            endpoints.pause_endpoint(tx, delivery.endpoint_id, seconds=_LOCKED_SECONDS)
        outbox.put_off(tx, delivery.id, attempt=delivery.attempts, reason=_LOCKED, seconds=_LOCKED_SECONDS)
    return f"{delivery.event} to {delivery.lane} waits: {_LOCKED}"


def _record(delivery: Row[Any], outcome: _Outcome) -> str:
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
    data = _job_data(delivery.event, view) if view is not None else _other_data(delivery)
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


def _other_data(delivery: Row[Any]) -> dict[str, Any]:
    if delivery.data is not None:
        return dict(delivery.data)
    if delivery.batch_id is not None:
        with transaction() as tx:
            batch = outbox.batch_of_event(tx, delivery.batch_id)
        if batch is not None:
            return batch_data(batch, _base_url())
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
                "id": public_id("file", item.id),
                "n": item.n,
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


async def _send(url: str, body: bytes, headers: dict[str, str]) -> _Outcome:
    started = time.monotonic()
    try:
        posted = await async_post.post(url, body=body, headers=headers)
    except FetchError as error:
        return _Outcome(seconds=time.monotonic() - started, error=str(error))
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


def _send_mail(delivery: Row[Any]) -> _Outcome:
    started = time.monotonic()
    with transaction() as tx:
        server = channels.mail_of(tx, delivery.endpoint_id)
    [password] = _secrets(delivery)
    problem = mail.send_alert(server, password, delivery, console=f"{_base_url()}/console/system")
    return _Outcome(seconds=time.monotonic() - started, status=None if problem else 250, error=problem)


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

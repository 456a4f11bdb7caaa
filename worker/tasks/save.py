"""Saves a finished job: copies its results from upstream's short-lived URLs to our storage and marks it succeeded.

Keys and rows are deterministic, so saving twice leaves the same bytes and the same rows (I10).
"""

import hashlib
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO, Any
from uuid import UUID

from worker import safe_fetch, storage
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.media.conversion import ConversionError, OutputFormat, convert
from worker.core.media.image import InvalidImageError
from worker.core.media.image_header import UnsupportedImageError, read_image_header
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs import files, progress_and_leases, state_machine
from worker.messaging import celery_app
from worker.providers.registry import get_provider
from worker.tasks.stages import save_video
from worker.tasks.stages.account_session import call_upstream
from worker.tasks.stages.fail_job import announce, fail_job
from worker.tasks.stages.lease_renewal import LeaseRenewer

log = get_logger("save")

MAX_FILE_BYTES = 100 * 1024 * 1024
FILE_DEADLINE_SECONDS = 30.0
_BACKOFF_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# Statuses of an expired URL; upstream's record gives a fresh one.
_EXPIRED_URL = frozenset({401, 403, 404, 410})


class _LeaseLostError(Exception):
    """The lease ran out and another task saves the job."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was copied, and what failed."""

    stored: list[files.NewFile] = field(default_factory=list)
    errors: list[safe_fetch.FetchError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def save_batch(*, job_ids: list[UUID]) -> str:
    """Save each of these jobs whose save is due. Return one line per job."""
    lines = []
    for n, job_id in enumerate(job_ids):
        if n and stopping.requested:
            celery_app.enqueue_save(*job_ids[n:])
            break
        watchdog.renew()
        lines.append(save(job_id=job_id))
    return "; ".join(lines)


def save(*, job_id: UUID) -> str:
    """Save the job, if its save is due. Return a line about the outcome."""
    claim = _claim(job_id)
    if claim is None:
        return "not due"
    with job_context("save", claim.id, claim.origin):
        return _save_claimed(claim)


def _save_claimed(claim: Row[Any]) -> str:
    try:
        outcome = _copy_all(claim)
    except _LeaseLostError:
        return f"save of {claim.id} taken over"
    if not outcome.errors:
        return _succeed(claim, outcome)
    return _retry_later(claim, outcome)


@retry_when_database_unavailable
def _claim(job_id: UUID) -> Row[Any] | None:
    with transaction() as tx:
        return progress_and_leases.claim_save(tx, job_id)


def _copy_all(claim: Row[Any]) -> _Outcome:
    outcome = _Outcome()
    for n, ref in enumerate(claim.result_refs):
        if n:
            _renew_lease(claim)
        try:
            if claim.kind == "video":
                copied = save_video.copy_video(claim, n, ref, LeaseRenewer(partial(_renew_lease, claim)))
                outcome.stored.extend(copied.files)
                outcome.remarks.extend(copied.remarks)
            else:
                outcome.stored.append(_copy_image(claim, n, ref))
        except safe_fetch.FetchError as error:
            log.warning("result_not_copied", job_id=str(claim.id), n=n, reason=str(error), status=error.status)
            outcome.errors.append(error)
        except storage.StorageError as error:
            log.warning("result_not_stored", job_id=str(claim.id), n=n, reason=error.reason)
            outcome.errors.append(safe_fetch.FetchError(f"it could not be stored: {error.reason}"))
    return outcome


@retry_when_database_unavailable
def _renew_lease(claim: Row[Any]) -> None:
    watchdog.renew()
    with transaction() as tx:
        if not progress_and_leases.renew_save_lease(tx, job_id=claim.id, save_tries=claim.save_tries):
            raise _LeaseLostError


def _copy_image(claim: Row[Any], n: int, ref: dict[str, Any]) -> files.NewFile:
    body = safe_fetch.download(ref["url"], max_bytes=MAX_FILE_BYTES, deadline_seconds=FILE_DEADLINE_SECONDS)
    with body.content as original, _in_requested_format(claim, n, original) as content:
        mime, width, height = _image_facts(content)
        size, sha256 = (body.size, body.sha256) if content is original else _size_and_sha256(content)
        key = f"jobs/{claim.id.hex}/{n}.{mime.partition('/')[2]}"
        storage.put_file(key, content)
    return files.NewFile(n=n, key=key, mime=mime, bytes=size, sha256=sha256, width=width, height=height)


def _in_requested_format(claim: Row[Any], n: int, original: IO[bytes]) -> IO[bytes]:
    """Return the image in the requested format, or the original if none was requested or the conversion fails.

    The image is already paid for: another format, which the response names, is better than no image.
    """
    output = OutputFormat.from_params(claim.params)
    mime, *_ = _image_facts(original)
    if output is None or output.accepts(mime):
        return original
    try:
        # While it waits for other conversions, the task renews its watchdog and lease.
        return convert(original, output, while_waiting=partial(_renew_lease, claim))
    except ConversionError as error:
        log.warning("result_not_converted", job_id=str(claim.id), n=n, wanted=output.format, reason=str(error))
        return original


def _size_and_sha256(content: IO[bytes]) -> tuple[int, str]:
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # the stub requires unused methods
    return content.tell(), digest.hexdigest()


def _image_facts(content: IO[bytes]) -> tuple[str, int, int]:
    """Return MIME type, width and height, read from the header. Raises FetchError if the bytes are not an image."""
    try:
        info = read_image_header(content)
    except UnsupportedImageError as error:
        raise safe_fetch.FetchError(str(error), final=True) from error
    except InvalidImageError as error:
        raise safe_fetch.FetchError("the response is not an image") from error
    return info.mime, info.width, info.height


@retry_when_database_unavailable
def _succeed(claim: Row[Any], outcome: _Outcome) -> str:
    results = sum(item.variant == "original" for item in outcome.stored)
    with transaction() as tx:
        files.add_files(tx, claim.id, outcome.stored)
        row = state_machine.mark_succeeded(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            stored=results,
            expected=len(claim.result_refs),
            remarks=outcome.remarks,
        )
        if row is not None:
            announce(tx, row)
    return f"saved {results} of {claim.id}"


def _retry_later(claim: Row[Any], outcome: _Outcome) -> str:
    final = all(error.final for error in outcome.errors)
    delay = _BACKOFF_SECONDS[min(claim.save_tries, len(_BACKOFF_SECONDS)) - 1]
    if final or claim.seconds_left < delay:
        if outcome.stored:
            return _succeed(claim, outcome)
        return _fail(claim, str(outcome.errors[0]))
    fresh = _fetch_fresh_refs(claim) if any(error.status in _EXPIRED_URL for error in outcome.errors) else None
    with transaction() as tx:
        progress_and_leases.defer_save(tx, job_id=claim.id, save_tries=claim.save_tries, delay=delay, refs=fresh)
    return f"save of {claim.id} again in {delay:.0f} s"


def _fetch_fresh_refs(claim: Row[Any]) -> list[dict[str, Any]] | None:
    """Return the job's current result URLs from upstream; None if it gives none."""
    with transaction() as tx:
        account = accounts.get_account(tx, claim.account_id)
    if account is None:
        return None
    key = str(claim.submit_key)
    watchdog.renew()
    try:
        record = call_upstream(account, lambda ready: get_provider().fetch_records(ready, [key])).get(key)
    except DreameryError as error:
        log.warning("fresh_links_not_given", job_id=str(claim.id), reason=error.code)
        return None
    if record is None or len(record.results) < len(claim.result_refs):
        return None
    return [asdict(ref) for ref in record.results]


@retry_when_database_unavailable
def _fail(claim: Row[Any], reason: str) -> str:
    with transaction() as tx:
        fail_job(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            code="result_unavailable",
            actor="save",
            detail=reason,
            from_states=(JobState.SAVING,),
        )
    return f"failed {claim.id}: result_unavailable"

"""Saves finished jobs: copies their results from upstream's short-lived URLs to our storage and marks them succeeded.

The jobs of a message are claimed together, their images are copied side by side on the event loop, and what is complete
is recorded together. Keys and rows are deterministic, so saving twice leaves the same bytes and the same rows (I10).
"""

import hashlib
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import IO, Any
from uuid import UUID

from worker import storage
from worker.core.concurrency.event_loop import all_of, in_files_thread, in_thread, run, run_for, spawn
from worker.core.concurrency.group_commit import GroupCommit
from worker.core.concurrency.lanes import RESULTS, acting_for
from worker.core.concurrency.shutdown import stopping
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.media.conversion import ConversionError, OutputFormat, conversion_work
from worker.core.media.image import InvalidImageError
from worker.core.media.image_header import UnsupportedImageError, read_image_header
from worker.core.media.isolation.client import DecodingUnavailableError, Work, run_async
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row, retry_when_database_unavailable, transaction
from worker.db.jobs import files, progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.base import Account, OpenOrder, Record
from worker.providers.registry import get_provider
from worker.safe_fetch import async_client
from worker.safe_fetch.checks import DownloadedFile, FetchError
from worker.tasks.stages import save_video
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.fail_job import announce, fail_job, record_fault
from worker.tasks.stages.files import storage_wait
from worker.tasks.stages.lease_renewal import LeaseLostError, keep_lease

log = get_logger("save")

MAX_FILE_BYTES = 100 * 1024 * 1024
FILE_DEADLINE_SECONDS = 30.0
_BACKOFF_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# Statuses of an expired URL; upstream's record gives a fresh one.
_EXPIRED_URL = frozenset({401, 403, 404, 410})


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was copied, and what failed."""

    stored: list[files.NewFile] = field(default_factory=list)
    errors: list[FetchError] = field(default_factory=list)
    storage_errors: list[storage.StorageError] = field(default_factory=list)  # those of `errors` that are ours
    remarks: list[str] = field(default_factory=list)
    faults: list[UnexpectedError] = field(default_factory=list)


def save_batch(*, job_ids: list[UUID]) -> str:
    """Save each of these jobs whose save is due. Return what came of them."""
    return run_for(_save_all(job_ids), otherwise="its copies continue in the background")


def save(*, job_id: UUID) -> str:
    """Save the job, if its save is due. Return a line about the outcome."""
    return run(_save_all([job_id]))


async def _save_all(job_ids: list[UUID]) -> str:
    if stopping.requested:
        # Another worker takes them; a save that has begun ends here.
        celery_app.enqueue_save(*job_ids)
        return "left to another worker"
    return await save_claimed(await in_thread(_claim, job_ids))


async def save_claimed(claims: list[Row[Any]]) -> str:
    """Save claimed jobs (rows of `claim_saves`). Return what came of them."""
    lines = await all_of([spawn(_save(claim)) for claim in claims])
    if len(lines) == 1:
        return lines[0]
    counts = Counter(line.split()[0] for line in lines)
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "not due"


@retry_when_database_unavailable
def _claim(job_ids: list[UUID]) -> list[Row[Any]]:
    with transaction(plan_once=True) as tx:
        return progress_and_leases.claim_saves(tx, job_ids)


async def _save(claim: Row[Any]) -> str:
    with job_context("save", claim.id, claim.origin), acting_for(claim.owner, claim.account_id):
        try:
            return await _save_claimed(claim)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise
        except BaseException as error:  # noqa: BLE001
            return await in_thread(_defer_after_fault, claim, UnexpectedError(error))


@retry_when_database_unavailable
def _defer_after_fault(claim: Row[Any], fault: UnexpectedError) -> str:
    """Record an unexpected exception and try again later, until the deadline of the save."""
    log.error("save_failed", job_id=str(claim.id), detail=fault.detail, trace=fault.frames)
    delay = _BACKOFF_SECONDS[min(claim.save_tries, len(_BACKOFF_SECONDS)) - 1]
    if claim.seconds_left < delay:
        return _fail(claim, fault.detail or "")
    with transaction() as tx:
        record_fault(tx, [(claim.id, claim.attempt)], fault, actor="save")
        progress_and_leases.defer_save(tx, job_id=claim.id, save_tries=claim.save_tries, delay=delay, refs=None)
    return f"again in {delay:.0f} s: {claim.id}"


async def _save_claimed(claim: Row[Any]) -> str:
    try:
        if storage_wait.is_in_doubt():
            await in_files_thread(storage_wait.check)
        outcome = await keep_lease(_copy_all(claim), partial(_renew_lease, claim))
    except storage.StorageError as error:
        outcome = _Outcome()
        _note_failure(claim, 0, error, outcome)
    except LeaseLostError:
        return f"lost {claim.id} to another worker"
    if not outcome.errors:
        return await _succeed(claim, outcome)
    if outcome.faults:
        await in_thread(_record_fault, claim, outcome.faults[0])
    return await _retry_later(claim, outcome)


@retry_when_database_unavailable
def _record_fault(claim: Row[Any], fault: UnexpectedError) -> None:
    with transaction() as tx:
        record_fault(tx, [(claim.id, claim.attempt)], fault, actor="save")


async def _copy_all(claim: Row[Any]) -> _Outcome:
    """Copy the results one after the other, so that a job with many of them takes one turn at a time."""
    outcome = _Outcome()
    for n, ref in enumerate(claim.result_refs):
        if n:
            await in_thread(_renew_lease, claim)
        try:
            if ref.get("role") == save_video.LAST_FRAME:
                outcome.stored.append(await save_video.copy_last_frame(claim, ref))
            elif claim.kind == "video":
                copied = await save_video.copy_video(claim, n, ref)
                outcome.stored.extend(copied.files)
                outcome.remarks.extend(copied.remarks)
            else:
                outcome.stored.append(await _copy_image(claim, n, ref))
        except (FetchError, storage.StorageError, OSError) as error:
            _note_failure(claim, n, error, outcome)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise
        except BaseException as error:  # noqa: BLE001 - the other results are copied
            _note_fault(claim, n, error, outcome)
    return outcome


def _note_failure(
    claim: Row[Any], n: int, error: FetchError | storage.StorageError | OSError, outcome: _Outcome
) -> None:
    if isinstance(error, OSError):
        error = storage_wait.temporary_files_error(error)
    if isinstance(error, storage.StorageError):
        log.warning("result_not_stored", job_id=str(claim.id), n=n, reason=error.reason)
        outcome.storage_errors.append(error)
        error = FetchError(f"it could not be stored: {error.reason}")
    else:
        log.warning("result_not_copied", job_id=str(claim.id), n=n, reason=str(error), status=error.status)
    outcome.errors.append(error)


def _note_fault(claim: Row[Any], n: int, error: BaseException, outcome: _Outcome) -> None:
    fault = UnexpectedError(error)
    log.error("result_not_copied", job_id=str(claim.id), n=n, detail=fault.detail, trace=fault.frames)
    outcome.faults.append(fault)
    outcome.errors.append(FetchError(fault.detail or ""))


@retry_when_database_unavailable
def _renew_lease(claim: Row[Any]) -> None:
    with transaction() as tx:
        if not progress_and_leases.renew_save_lease(tx, job_id=claim.id, save_tries=claim.save_tries):
            raise LeaseLostError


async def _copy_image(claim: Row[Any], n: int, ref: dict[str, Any]) -> files.NewFile:
    # The turn lasts until the file is stored, so what waits for a thread of files is bounded too: it is in memory.
    async with RESULTS.turn():
        body = await async_client.download(
            ref["url"], max_bytes=MAX_FILE_BYTES, deadline_seconds=FILE_DEADLINE_SECONDS, lane=RESULTS
        )
        with body.content as original, await _in_requested_format(claim, n, original) as content:
            stored = await in_files_thread(_store_image, claim, n, content, None if content is not original else body)
            return replace(stored, layer=ref.get("layer"))


def _store_image(claim: Row[Any], n: int, content: IO[bytes], body: DownloadedFile | None) -> files.NewFile:
    """Store an image; `body` = it is the downloaded file itself."""
    mime, width, height = _image_facts(content)
    size, sha256 = (body.size, body.sha256) if body is not None else _size_and_sha256(content)
    key = f"jobs/{claim.id.hex}/{n}.{mime.partition('/')[2]}"
    storage_wait.put_file(key, content, size, renew=watchdog.renewer())
    return files.NewFile(n=n, key=key, mime=mime, bytes=size, sha256=sha256, width=width, height=height)


async def _in_requested_format(claim: Row[Any], n: int, original: IO[bytes]) -> IO[bytes]:
    """Return the image in the requested format, or the original if none was requested or the conversion fails.

    The image is already paid for: another format, which the response names, is better than no image.
    """
    output = OutputFormat.from_params(claim.params)
    if output is None:
        return original
    try:
        work = await in_files_thread(_conversion, original, output)
        if work is None:
            return original
        return await run_async(work)
    except (ConversionError, DecodingUnavailableError) as error:
        log.warning("result_not_converted", job_id=str(claim.id), n=n, wanted=output.format, reason=str(error))
        return original


def _conversion(original: IO[bytes], output: OutputFormat) -> Work[IO[bytes]] | None:
    mime, *_ = _image_facts(original)
    return None if output.accepts(mime) else conversion_work(original, output)


def _size_and_sha256(content: IO[bytes]) -> tuple[int, str]:
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # the stub requires unused methods
    return content.tell(), digest.hexdigest()


def _image_facts(content: IO[bytes]) -> tuple[str, int, int]:
    """Return MIME type, width and height, read from the header. Raises FetchError if the bytes are not an image."""
    try:
        info = read_image_header(content)
    except UnsupportedImageError as error:
        raise FetchError(str(error), final=True) from error
    except InvalidImageError as error:
        raise FetchError("the response is not an image") from error
    return info.mime, info.width, info.height


async def _succeed(claim: Row[Any], outcome: _Outcome) -> str:
    results = sum(item.variant == "original" for item in outcome.stored)
    await _succeeded.add((claim, outcome))
    return f"saved {results} of {claim.id}"


@retry_when_database_unavailable
def _mark_succeeded(items: list[tuple[Row[Any], _Outcome]]) -> list[None]:
    """Record jobs whose results are stored, together."""
    stored = [
        state_machine.Stored(
            claim.id,
            claim.attempt,
            stored=sum(item.variant == "original" for item in outcome.stored),
            expected=sum(not ref.get("role") for ref in claim.result_refs),
            remarks=outcome.remarks,
        )
        for claim, outcome in items
    ]
    with pubsub.batch_job_changes(), transaction(plan_once=True) as tx:
        files.add_files(tx, [(claim.id, item) for claim, outcome in items for item in outcome.stored])
        for row in state_machine.mark_succeeded_many(tx, stored).values():
            announce(tx, row)
    return [None] * len(items)


_succeeded = GroupCommit("mark_succeeded", _mark_succeeded, away=DATABASE_UNAVAILABLE_ERRORS)


async def _wait_for_storage(claim: Row[Any], outcome: _Outcome) -> str:
    """The job waits for our storage as long as upstream keeps its results; then its deadline ends it."""
    delay = storage_wait.pause(claim.save_tries)
    ended = storage_wait.have_links_ended(claim.result_refs, time.time())
    ended = ended or any(error.status in _EXPIRED_URL for error in outcome.errors)
    fresh = await _fetch_fresh_refs(claim) if ended else None
    kept = fresh is not None or not ended
    if not kept and claim.seconds_left < delay:
        return await in_thread(_fail, claim, str(outcome.errors[0]))
    more = get_settings().save_deadline_seconds if kept else 0.0
    await in_thread(storage_wait.wait, claim, outcome.storage_errors[0], delay=delay, more_seconds=more, refs=fresh)
    return f"again in {delay:.0f} s: {claim.id}"


async def _retry_later(claim: Row[Any], outcome: _Outcome) -> str:
    if outcome.storage_errors:
        return await _wait_for_storage(claim, outcome)
    final = all(error.final for error in outcome.errors)
    delay = _BACKOFF_SECONDS[min(claim.save_tries, len(_BACKOFF_SECONDS)) - 1]
    if final or claim.seconds_left < delay:
        if outcome.stored:
            return await _succeed(claim, outcome)
        return await in_thread(_fail, claim, str(outcome.errors[0]))
    fresh = await _fetch_fresh_refs(claim) if any(error.status in _EXPIRED_URL for error in outcome.errors) else None
    await in_thread(_defer, claim, delay, fresh)
    return f"again in {delay:.0f} s: {claim.id}"


@retry_when_database_unavailable
def _defer(claim: Row[Any], delay: float, fresh: list[dict[str, Any]] | None) -> None:
    with transaction() as tx:
        progress_and_leases.defer_save(tx, job_id=claim.id, save_tries=claim.save_tries, delay=delay, refs=fresh)


async def _fetch_fresh_refs(claim: Row[Any]) -> list[dict[str, Any]] | None:
    """Return the job's current result URLs from upstream; None if it gives none."""
    account = await in_thread(_read_account, claim.account_id)
    if account is None:
        return None
    order = OpenOrder(
        str(claim.submit_key), claim.upstream_id, claim.kind, claim.model, order=claim.params.get("order") or {}
    )
    try:
        record = await call_upstream_async(account, partial(_fetch_record, order=order))
    except DreameryError as error:
        log.warning("fresh_links_not_given", job_id=str(claim.id), reason=error.code)
        return None
    if record is None or len(record.results) < len(claim.result_refs):
        return None
    return [asdict(ref) for ref in record.results]


async def _fetch_record(account: Account, *, order: OpenOrder) -> Record | None:
    provider = get_provider(account)
    if (fresh := provider.capabilities.fresh_links) is not None:
        return await fresh.fetch_single(account, order)
    return (await provider.fetch_records(account, [order])).get(order.submit_key)


def _read_account(account_id: UUID) -> AccountRow | None:
    with transaction() as tx:
        return accounts.get_account(tx, account_id)


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

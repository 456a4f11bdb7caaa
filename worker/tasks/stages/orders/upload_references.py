"""Uploads the references of a claimed job to its account, each file once. They were fetched before the claim.

Every uploaded file is a committed row, and the claim is renewed meanwhile, so a submit that dies here continues where
it stopped. Nothing has been ordered yet, so no failure here costs credits. Part of submit.
"""

import time
from dataclasses import replace
from functools import partial
from typing import IO, Any, BinaryIO, cast

from worker.core.concurrency.event_loop import in_files_thread, in_thread
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs import inputs, progress_and_leases
from worker.db.jobs.claims import Claim
from worker.providers.base import Account, NotSentError, Reference
from worker.providers.registry import get_provider, required
from worker.tasks.stages.files.fetch_references import MEDIA_DEADLINE_SECONDS, open_stored
from worker.tasks.stages.lease_renewal import LeaseLostError, keep_lease

log = get_logger("upload_references")


async def upload(claim: Claim, account: Account) -> tuple[Claim, list[Row[Any]]]:
    """Upload what is missing. Return the claim with its new lease and the references (rows of `inputs.job_inputs`).

    Raises LeaseLostError if another task claimed the job, or the job was cancelled.
    """
    rows = await in_thread(_read_rows, claim)
    if not rows or get_provider(account).capabilities.uploads is None:
        return claim, rows
    await keep_lease(_upload_all(claim, account, rows), partial(_renew_claim, claim))
    return await in_thread(_renew_claim, claim), await in_thread(_read_rows, claim)


async def _upload_all(claim: Claim, account: Account, rows: list[Row[Any]]) -> None:
    for row in rows:
        if row.uri is None:
            await (_upload_image if row.media == "image" else _upload_media)(claim, account, row)


@retry_when_database_unavailable
def _read_rows(claim: Claim) -> list[Row[Any]]:
    with transaction() as tx:
        return inputs.job_inputs(tx, claim.id, claim.account.id)


@retry_when_database_unavailable
def _renew_claim(claim: Claim) -> Claim:
    """Return the claim with a new lease."""
    until = time.monotonic() + get_settings().lease_seconds
    with transaction() as tx:
        if not progress_and_leases.renew_submit_lease(tx, job_id=claim.id, attempt=claim.attempt):
            raise LeaseLostError
    return replace(claim, expires_at=until)


async def _upload_image(claim: Claim, account: Account, row: Row[Any]) -> None:
    content: IO[bytes] = await in_files_thread(open_stored, row)
    with content:
        try:
            reference = await required(get_provider(account).capabilities.uploads).upload_image(
                account, cast("BinaryIO", content), name=row.key.rpartition("/")[2]
            )
        except DreameryError as error:
            raise _as_not_sent(error) from error
    # Checked before the upload is recorded: after a crash in between, the file is uploaded and checked again.
    await _check_image(claim, account, row, reference)
    await in_thread(
        _note_uploaded,
        claim,
        row.n,
        uri=reference.uri,
        width=reference.width,
        height=reference.height,
        image_format=reference.format,
    )


async def _check_image(claim: Claim, account: Account, row: Row[Any], reference: Reference) -> None:
    """Run upstream's content check, if it has one. Only a refusal counts; after other failures the order decides."""
    try:
        await required(get_provider(account).capabilities.uploads).check_image(account, reference)
    except DreameryError as error:
        if error.code == "content_policy_violation":
            name = inputs.name_of(row)
            message = f"Upstream refused the content of {name[0].lower()}{name[1:]}. Use another one."
            raise DreameryError(error.code, message, detail=error.detail) from error
        log.info("picture_not_checked", job_id=str(claim.id), n=row.n, code=error.code, detail=error.detail)


async def _upload_media(claim: Claim, account: Account, row: Row[Any]) -> None:
    content: IO[bytes] = await in_files_thread(open_stored, row)
    with content:
        try:
            material = await required(get_provider(account).capabilities.uploads).upload_media(
                account,
                cast("BinaryIO", content),
                kind=row.media,
                name=row.key.rpartition("/")[2],
                seconds=MEDIA_DEADLINE_SECONDS,
            )
        except DreameryError as error:
            raise _as_not_sent(error) from error
    await in_thread(
        _note_uploaded,
        claim,
        row.n,
        uri=material.upload_id,
        width=material.width,
        height=material.height,
        # Some responses have no length; then the one measured here counts.
        milliseconds=material.milliseconds or row.length,
    )


def _as_not_sent(error: DreameryError) -> DreameryError:
    """Return the error as NotSentError if upstream was unreachable: an upload, unlike an order, may be repeated."""
    return NotSentError(error.detail) if error.code == "upstream_unreachable" else error


@retry_when_database_unavailable
def _note_uploaded(claim: Claim, n: int, **columns: Any) -> None:
    with transaction() as tx:
        inputs.record_upload(tx, claim.id, n, account_id=claim.account.id, **columns)

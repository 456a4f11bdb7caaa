"""Uploads the references of a claimed job to its account: fetches each URL once and uploads each file once.

Every finished file is a committed row and renews the claim (a large file renews it with every chunk), so a submit that
dies here continues where it stopped. Nothing has been ordered yet, so no failure here costs credits. Part of submit.
"""

import hashlib
import io
import time
from dataclasses import replace
from typing import IO, Any, cast

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.media import video
from worker.core.media.image import MAX_INPUT_BYTES, InvalidImageError
from worker.core.media.normalization import NormalizedImage, normalize_image
from worker.core.media.video import InvalidMediaError, inspect_audio, inspect_video
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.db.jobs import inputs, progress_and_leases
from worker.db.jobs.claims import Claim
from worker.providers.base import Account, Material, NotSentError, Reference
from worker.providers.registry import get_provider
from worker.safe_fetch.checks import FetchError
from worker.safe_fetch.client import download
from worker.tasks.stages.lease_renewal import LeaseRenewer, RenewingFile

log = get_logger("upload_references")

FETCH_DEADLINE_SECONDS = 25.0
# Enough for a hundred megabytes at three megabits per second; the lease is renewed while the bytes move.
MEDIA_DEADLINE_SECONDS = 300.0
# Statuses that may succeed on another try; any other status below 500 is final.
_TEMPORARY = frozenset({408, 425, 429})
_CODES = {"video": "invalid_video", "audio": "invalid_audio"}


class ClaimLostError(Exception):
    """The lease ran out and another task claimed the job, or the job was cancelled."""


class ReferenceNotFetchedError(DreameryError):
    """A URL that could not be fetched this time; another try may succeed."""

    def __init__(self, message: str) -> None:
        super().__init__("input_unavailable", message)


def upload(claim: Claim, account: Account) -> tuple[Claim, list[Row[Any]]]:
    """Upload what is missing. Return the claim with its new lease and the references (rows of `inputs.job_inputs`)."""
    rows = _read_rows(claim)
    if not rows:
        return claim, []
    for row in rows:
        if row.key is None or (row.media != "image" and row.length is None):
            claim = _renew_claim(claim)
            _fetch(claim, row) if row.key is None else _measure(claim, row)
    rows = _read_rows(claim)
    _check_lengths(rows)
    for row in rows:
        if row.uri is None:
            claim = _renew_claim(claim)
            _upload_image(claim, account, row) if row.media == "image" else _upload_media(claim, account, row)
    return _renew_claim(claim), _read_rows(claim)


@retry_when_database_unavailable
def _read_rows(claim: Claim) -> list[Row[Any]]:
    with transaction() as tx:
        return inputs.job_inputs(tx, claim.id, claim.account.id)


@retry_when_database_unavailable
def _renew_claim(claim: Claim) -> Claim:
    """Return the claim with a new lease, long enough for the next file."""
    watchdog.renew()
    until = time.monotonic() + get_settings().lease_seconds
    with transaction() as tx:
        if not progress_and_leases.renew_submit_lease(tx, job_id=claim.id, attempt=claim.attempt):
            raise ClaimLostError
    return replace(claim, expires_at=until)


def _lease_renewer(claim: Claim) -> LeaseRenewer:
    return LeaseRenewer(lambda: _renew_claim(claim))


def _name(row: Row[Any]) -> str:
    if row.role != "reference":
        return "The first frame" if row.role == "first_frame" else "The end frame"
    return f"Reference {row.media} {row.n + 1}"


def _fetch(claim: Claim, row: Row[Any]) -> None:
    renew = _lease_renewer(claim)
    is_image = row.media == "image"
    try:
        body = download(
            row.url,
            max_bytes=MAX_INPUT_BYTES if is_image else video.MAX_INPUT_BYTES,
            deadline_seconds=FETCH_DEADLINE_SECONDS if is_image else MEDIA_DEADLINE_SECONDS,
            on_chunk=renew,
        )
    except FetchError as error:
        log.info("reference_not_fetched", job_id=str(claim.id), n=row.n, reason=str(error), status=error.status)
        message = f"{_name(row)} could not be fetched: {error}."
        if error.final or (error.status is not None and error.status < 500 and error.status not in _TEMPORARY):
            raise DreameryError("input_unavailable", message) from error
        raise ReferenceNotFetchedError(message) from error
    with body.content as content:
        # Inspecting a large file may wait for other inspections, so it gets its own lease.
        _renew_claim(claim)
        if is_image:
            _store_image(claim, row, content, renew)
            return
        facts, extension = _inspect(row, content, renew)
        stored = replace(facts, key=_key(claim, row, extension), bytes=body.size, sha256=body.sha256)
        storage.put_file(stored.key, cast("IO[bytes]", RenewingFile(content, renew)))
    _note_stored(claim, row.n, stored)


def _key(claim: Claim, row: Row[Any], extension: str) -> str:
    """Return a key of the job, not of the request: one URL may give two jobs of a request different bytes."""
    return f"inputs/{claim.id.hex}/{row.n}.{extension}"


def _store_image(claim: Claim, row: Row[Any], content: IO[bytes], renew: LeaseRenewer) -> None:
    """Store a fetched image as the API stores a sent one: upright, without metadata, in a format of upstream."""
    try:
        image = normalize_image(content, while_waiting=renew)
    except InvalidImageError as error:
        raise DreameryError("invalid_image", f"{_name(row)} cannot be used: {error}.") from error
    with image.content as upright:
        size = upright.seek(0, io.SEEK_END)
        upright.seek(0)
        sha256 = hashlib.file_digest(upright, "sha256").hexdigest()  # type: ignore[arg-type] # the stub is too strict
        key = _key(claim, row, image.info.extension)
        storage.put_file(key, cast("IO[bytes]", RenewingFile(upright, renew)))
    stored = inputs.StoredInput(key, image.info.mime, size, image.info.width, image.info.height, sha256)
    _note_stored(claim, row.n, stored, image)


def _measure(claim: Claim, row: Row[Any]) -> None:
    """Inspect a video or audio file that the request contained; it is stored, but its length is unknown."""
    renew = _lease_renewer(claim)
    with _open_stored(row, renew) as content:
        facts, _ = _inspect(row, content, renew)
    _note_stored(claim, row.n, replace(facts, key=row.key, bytes=row.bytes, sha256=row.sha256))


def _inspect(row: Row[Any], content: IO[bytes], renew: LeaseRenewer) -> tuple[inputs.StoredInput, str]:
    """Return the properties of the file, without its key, size and hash, and its file extension."""
    try:
        media = (inspect_video if row.media == "video" else inspect_audio)(content, keep_alive=renew)
    except InvalidMediaError as error:
        raise DreameryError(_CODES[row.media], f"{_name(row)} cannot be used: {error}.") from error
    measured = inputs.StoredInput("", media.mime, 0, media.width, media.height, "", milliseconds=media.milliseconds)
    return measured, media.extension


def _check_lengths(rows: list[Row[Any]]) -> None:
    total = sum(row.length for row in rows if row.media == "video")
    if total > video.MAX_REFERENCE_MILLISECONDS + video.ROUNDING_MILLISECONDS:
        most = video.MAX_REFERENCE_MILLISECONDS // 1000
        message = f"The reference videos are {total / 1000:.1f} s long in total; the maximum is {most} s. Shorten them."
        raise DreameryError("invalid_video", message)


@retry_when_database_unavailable
def _note_stored(claim: Claim, n: int, stored: inputs.StoredInput, image: NormalizedImage | None = None) -> None:
    with transaction() as tx:
        inputs.record_stored(tx, claim.id, n, stored)
        if image is not None and image.adjusted:
            inputs.record_adjustments(tx, claim.id, n, image.adjusted)


def _open_stored(row: Row[Any], renew: LeaseRenewer) -> IO[bytes]:
    try:
        return storage.open_file(row.key, on_chunk=renew)
    except storage.MissingFileError:
        message = f"{_name(row)} is no longer in storage."
        raise DreameryError("input_unavailable", message) from None


def _upload_image(claim: Claim, account: Account, row: Row[Any]) -> None:
    with _open_stored(row, _lease_renewer(claim)) as content:
        data = content.read()
    try:
        reference = get_provider().upload_image(account, data, name=row.key.rpartition("/")[2])
    except DreameryError as error:
        raise _as_not_sent(error) from error
    # Checked before the upload is recorded: after a crash in between, the file is uploaded and checked again.
    _check_image(_renew_claim(claim), account, row, reference)
    _note_uploaded(
        claim,
        row.n,
        uri=reference.uri,
        width=reference.width,
        height=reference.height,
        image_format=reference.format,
    )


def _check_image(claim: Claim, account: Account, row: Row[Any], reference: Reference) -> None:
    """Run upstream's content check, if it has one. Only a refusal counts; after other failures the order decides."""
    try:
        get_provider().check_image(account, reference)
    except DreameryError as error:
        if error.code == "content_policy_violation":
            message = f"Upstream refused the content of {_name(row)[0].lower()}{_name(row)[1:]}. Use another one."
            raise DreameryError(error.code, message, detail=error.detail) from error
        log.info("picture_not_checked", job_id=str(claim.id), n=row.n, code=error.code, detail=error.detail)


def _upload_media(claim: Claim, account: Account, row: Row[Any]) -> None:
    with _open_stored(row, _lease_renewer(claim)) as content:
        renewing = RenewingFile(content, _lease_renewer(claim))
        try:
            material: Material = get_provider().upload_media(
                account, renewing, kind=row.media, name=row.key.rpartition("/")[2], seconds=MEDIA_DEADLINE_SECONDS
            )
        except DreameryError as error:
            raise _as_not_sent(error) from error
    _note_uploaded(
        claim,
        row.n,
        uri=material.vid,
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

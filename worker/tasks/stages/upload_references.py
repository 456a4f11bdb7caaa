"""Bring the references of a claimed job to its account: fetch each link once, upload each piece once.

Every finished piece is a committed row, and the claim is renewed by each (by the bytes of a large one), so a submit
that dies here goes on where it stopped. Nothing has been ordered yet: whatever goes wrong, nothing was paid.
Part of submit.
"""

import time
from dataclasses import replace
from typing import IO, Any, cast

from worker import safe_fetch, storage
from worker.core.errors import DreameryError
from worker.core.media import video
from worker.core.media.image import MAX_INPUT_BYTES, NotAPictureError, picture_facts
from worker.core.media.video import NotAClipError, sound_facts, video_facts
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.db.jobs import inputs, progress_and_leases, state_machine
from worker.providers.base import Account, Material, NotSentError, Reference
from worker.providers.registry import get_provider
from worker.tasks.stages.lease_renewal import Keeper, KeptFile

log = get_logger("references")

FETCH_DEADLINE_SECONDS = 25.0
# A hundred megabytes at three megabits a second; the lease is renewed as they come and go.
MEDIA_DEADLINE_SECONDS = 300.0
# Answers that may be another one in a moment; any other status is the host's last word.
_PASSING = frozenset({408, 425, 429})
_NOUNS = {"image": "picture", "video": "video", "audio": "sound"}
_CODES = {"image": "invalid_image", "video": "invalid_video", "audio": "invalid_audio"}


class ClaimLostError(Exception):
    """The claim ran out and somebody else has the job, or its caller no longer wants it."""


class NotFetchedYetError(DreameryError):
    """A link that gave nothing this time and may give the file later."""

    def __init__(self, message: str) -> None:
        super().__init__("input_unavailable", message)


def bring(claim: state_machine.Claim, account: Account) -> tuple[state_machine.Claim, list[Row[Any]]]:
    """The uploaded references of the job in order (rows of `inputs.job_inputs`), and the claim with its new lease."""
    rows = _rows(claim)
    if not rows:
        return claim, []
    for row in rows:
        if row.key is None or (row.media != "image" and row.length is None):
            claim = _renewed(claim)
            _fetch(claim, row) if row.key is None else _measure(claim, row)
    rows = _rows(claim)
    _check_lengths(rows)
    for row in rows:
        if row.uri is None:
            claim = _renewed(claim)
            _upload_picture(claim, account, row) if row.media == "image" else _upload_media(claim, account, row)
    return _renewed(claim), _rows(claim)


@retry_when_database_away
def _rows(claim: state_machine.Claim) -> list[Row[Any]]:
    with transaction() as tx:
        return inputs.job_inputs(tx, claim.id, claim.account.id)


@retry_when_database_away
def _renewed(claim: state_machine.Claim) -> state_machine.Claim:
    """Another lease, for one more bounded piece."""
    watchdog.renew()
    until = time.monotonic() + get_settings().lease_seconds
    with transaction() as tx:
        if not progress_and_leases.renew_submit(tx, job_id=claim.id, attempt=claim.attempt):
            raise ClaimLostError
    return replace(claim, until=until)


def _keeper(claim: state_machine.Claim) -> Keeper:
    return Keeper(lambda: _renewed(claim))


def _name(row: Row[Any]) -> str:
    if row.role != "reference":
        return "The first frame" if row.role == "first_frame" else "The end frame"
    return f"Reference {_NOUNS[row.media]} {row.n + 1}"


def _fetch(claim: state_machine.Claim, row: Row[Any]) -> None:
    keep = _keeper(claim)
    still = row.media == "image"
    try:
        body = safe_fetch.download(
            row.url,
            max_bytes=MAX_INPUT_BYTES if still else video.MAX_INPUT_BYTES,
            deadline_seconds=FETCH_DEADLINE_SECONDS if still else MEDIA_DEADLINE_SECONDS,
            keep=keep,
        )
    except safe_fetch.FetchError as error:
        log.info("reference_not_fetched", job_id=str(claim.id), n=row.n, reason=str(error), status=error.status)
        message = f"{_name(row)} could not be fetched: {error}."
        if error.final or (error.status is not None and error.status < 500 and error.status not in _PASSING):
            raise DreameryError("input_unavailable", message) from error
        raise NotFetchedYetError(message) from error
    with body.content as content:
        # Looking at a large file may have to wait for others that are looked at: a piece of its own.
        _renewed(claim)
        facts, extension = _facts(row, content, keep)
        # The job's own key, not the request's: two jobs of one request may be given different bytes by one link.
        key = f"inputs/{claim.id.hex}/{row.n}.{extension}"
        storage.put_file(key, cast("IO[bytes]", KeptFile(content, keep)))
    _note_stored(claim, row.n, replace(facts, key=key, bytes=body.size, sha256=body.sha256))


def _measure(claim: state_machine.Claim, row: Row[Any]) -> None:
    """A video or sound that was sent along and is stored, but was not looked at yet."""
    keep = _keeper(claim)
    with _stored(row, keep=keep) as content:
        facts, _ = _facts(row, content, keep)
    _note_stored(claim, row.n, replace(facts, key=row.key, bytes=row.bytes, sha256=row.sha256))


def _facts(row: Row[Any], content: IO[bytes], keep: Keeper) -> tuple[inputs.StoredInput, str]:
    """What the bytes are, without the names they will have; and how a file of them ends."""
    try:
        if row.media == "image":
            seen = picture_facts(content)
            return inputs.StoredInput("", seen.mime, 0, seen.width, seen.height, ""), seen.extension
        clip = (video_facts if row.media == "video" else sound_facts)(content, keep=keep)
    except (NotAPictureError, NotAClipError) as error:
        raise DreameryError(_CODES[row.media], f"{_name(row)} cannot be used: {error}.") from error
    measured = inputs.StoredInput("", clip.mime, 0, clip.width, clip.height, "", milliseconds=clip.milliseconds)
    return measured, clip.extension


def _check_lengths(rows: list[Row[Any]]) -> None:
    total = sum(row.length for row in rows if row.media == "video")
    if total > video.MAX_REFERENCE_MILLISECONDS + video.ROUNDED_UP_MILLISECONDS:
        most = video.MAX_REFERENCE_MILLISECONDS // 1000
        message = f"The reference videos are {total / 1000:.1f} s long together; {most} s is the most. Shorten them."
        raise DreameryError("invalid_video", message)


@retry_when_database_away
def _note_stored(claim: state_machine.Claim, n: int, stored: inputs.StoredInput) -> None:
    with transaction() as tx:
        inputs.note_stored(tx, claim.id, n, stored)


def _stored(row: Row[Any], *, keep: Keeper) -> IO[bytes]:
    try:
        return storage.open_file(row.key, keep=keep)
    except storage.MissingFileError:
        message = f"The bytes of {_name(row)[0].lower()}{_name(row)[1:]} are no longer in storage."
        raise DreameryError("input_unavailable", message) from None


def _upload_picture(claim: state_machine.Claim, account: Account, row: Row[Any]) -> None:
    with _stored(row, keep=_keeper(claim)) as content:
        data = content.read()
    try:
        reference = get_provider().upload_image(account, data, name=row.key.rpartition("/")[2])
    except DreameryError as error:
        raise _repeatable(error) from error
    # Before the upload is noted: one that was not checked is uploaded and checked again.
    _check_picture(_renewed(claim), account, row, reference)
    _note_uploaded(
        claim,
        row.n,
        uri=reference.uri,
        width=reference.width,
        height=reference.height,
        picture_format=reference.format,
    )


def _check_picture(claim: state_machine.Claim, account: Account, row: Row[Any], reference: Reference) -> None:
    """Upstream's own check, where it has one. Only a refusal of the picture counts; else the order will tell."""
    try:
        get_provider().check_image(account, reference)
    except DreameryError as error:
        if error.code == "content_policy_violation":
            message = f"Upstream refused the content of {_name(row)[0].lower()}{_name(row)[1:]}. Use another one."
            raise DreameryError(error.code, message, detail=error.detail) from error
        log.info("picture_not_checked", job_id=str(claim.id), n=row.n, code=error.code, detail=error.detail)


def _upload_media(claim: state_machine.Claim, account: Account, row: Row[Any]) -> None:
    with _stored(row, keep=_keeper(claim)) as content:
        kept = KeptFile(content, _keeper(claim))
        try:
            material: Material = get_provider().upload_media(
                account, kept, kind=row.media, name=row.key.rpartition("/")[2], seconds=MEDIA_DEADLINE_SECONDS
            )
        except DreameryError as error:
            raise _repeatable(error) from error
    _note_uploaded(
        claim,
        row.n,
        uri=material.vid,
        width=material.width,
        height=material.height,
        # Some answers do not tell the length; then our own measure of the same bytes counts.
        milliseconds=material.milliseconds or row.length,
    )


def _repeatable(error: DreameryError) -> DreameryError:
    """An upload may be repeated; only an order must never be."""
    return NotSentError(error.detail) if error.code == "upstream_unreachable" else error


@retry_when_database_away
def _note_uploaded(claim: state_machine.Claim, n: int, **told: Any) -> None:
    with transaction() as tx:
        inputs.note_uploaded(tx, claim.id, n, account_id=claim.account.id, **told)

"""Save one finished job: copy its results from upstream's short-lived links into our storage, then mark it succeeded.

Keys and rows are deterministic, so saving twice leaves the same bytes and the same rows (I10).
"""

import hashlib
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import IO, Any
from uuid import UUID

from PIL import Image, UnidentifiedImageError

from worker import safe_fetch, storage
from worker.core.errors import ERRORS, DreameryError
from worker.core.media.conversion import NotConvertedError, Output, convert
from worker.core.observability.job_context import about_job
from worker.core.observability.logging import get_logger
from worker.core.shutdown import stopping
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.db.jobs import files, progress_and_leases, state_machine
from worker.messaging import celery_app, pubsub
from worker.providers.registry import get_provider
from worker.tasks.stages import save_video
from worker.tasks.stages.account_session import asked
from worker.tasks.stages.lease_renewal import Keeper

log = get_logger("save")

MAX_FILE_BYTES = 100 * 1024 * 1024
FILE_DEADLINE_SECONDS = 30.0
_BACKOFF_SECONDS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
# An address that answers so is worn out; upstream's record gives a fresh one.
_WORN_OUT = frozenset({401, 403, 404, 410})
_MIME_OF = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


class _TakenOverError(Exception):
    """The lease ran out and somebody else saves the job."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    stored: list[files.NewFile] = field(default_factory=list)
    errors: list[safe_fetch.FetchError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def save_each(*, job_ids: list[UUID]) -> str:
    """Copy the results of each of these jobs whose save is due."""
    lines = []
    for n, job_id in enumerate(job_ids):
        if n and stopping.asked:
            celery_app.nudge_save(*job_ids[n:])
            break
        watchdog.renew()
        lines.append(save(job_id=job_id))
    return "; ".join(lines)


def save(*, job_id: UUID) -> str:
    """Copy the results of the job, if its save is due."""
    claim = _claim(job_id)
    if claim is None:
        return "not due"
    with about_job("save", claim.id, claim.origin):
        return _save_claimed(claim)


def _save_claimed(claim: Row[Any]) -> str:
    try:
        outcome = _copy_all(claim)
    except _TakenOverError:
        return f"save of {claim.id} taken over"
    if not outcome.errors:
        return _succeed(claim, outcome)
    return _try_later(claim, outcome)


@retry_when_database_away
def _claim(job_id: UUID) -> Row[Any] | None:
    with transaction() as tx:
        return progress_and_leases.claim_save(tx, job_id)


def _copy_all(claim: Row[Any]) -> _Outcome:
    outcome = _Outcome()
    for n, ref in enumerate(claim.result_refs):
        if n:
            _renew(claim)
        try:
            if claim.kind == "video":
                copied = save_video.copy_film(claim, n, ref, Keeper(partial(_renew, claim)))
                outcome.stored.extend(copied.files)
                outcome.remarks.extend(copied.remarks)
            else:
                outcome.stored.append(_copy(claim, n, ref))
        except safe_fetch.FetchError as error:
            log.warning("result_not_copied", job_id=str(claim.id), n=n, reason=str(error), status=error.status)
            outcome.errors.append(error)
        except storage.StorageError as error:
            log.warning("result_not_stored", job_id=str(claim.id), n=n, reason=error.reason)
            outcome.errors.append(safe_fetch.FetchError(f"it could not be stored: {error.reason}"))
    return outcome


@retry_when_database_away
def _renew(claim: Row[Any]) -> None:
    watchdog.renew()
    with transaction() as tx:
        if not progress_and_leases.renew_save(tx, job_id=claim.id, save_tries=claim.save_tries):
            raise _TakenOverError


def _copy(claim: Row[Any], n: int, ref: dict[str, Any]) -> files.NewFile:
    body = safe_fetch.download(ref["url"], max_bytes=MAX_FILE_BYTES, deadline_seconds=FILE_DEADLINE_SECONDS)
    with body.content as original, _as_wanted(claim, n, original) as content:
        mime, width, height = _picture_facts(content)
        size, sha256 = (body.size, body.sha256) if content is original else _size_and_sha256(content)
        key = f"jobs/{claim.id.hex}/{n}.{mime.partition('/')[2]}"
        storage.put_file(key, content)
    return files.NewFile(n=n, key=key, mime=mime, bytes=size, sha256=sha256, width=width, height=height)


def _as_wanted(claim: Row[Any], n: int, original: IO[bytes]) -> IO[bytes]:
    """The picture in the format its caller asked for; as it came when nothing was asked or it cannot be written so.

    It is paid and drawn: a picture in another format, which the answer names, is better than none.
    """
    output = Output.of(claim.params)
    mime, *_ = _picture_facts(original)
    if output is None or output.is_met_by(mime):
        return original
    try:
        # While others are being converted the step is alive and keeps its claim.
        return convert(original, output, while_waiting=partial(_renew, claim))
    except NotConvertedError as error:
        log.warning("result_not_converted", job_id=str(claim.id), n=n, wanted=output.format, reason=str(error))
        return original


def _size_and_sha256(content: IO[bytes]) -> tuple[int, str]:
    content.seek(0)
    digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # wants more methods than it calls
    return content.tell(), digest.hexdigest()


def _picture_facts(content: IO[bytes]) -> tuple[str, int, int]:
    """MIME type and pixels from the bytes themselves; an error page or a cut file is no picture."""
    try:
        with Image.open(content) as picture:
            mime = _MIME_OF.get(picture.format or "")
            width, height = picture.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise safe_fetch.FetchError("the answer is not a picture") from error
    if mime is None:
        raise safe_fetch.FetchError(f"picture format {picture.format} is not known", final=True)
    return mime, width, height


@retry_when_database_away
def _succeed(claim: Row[Any], outcome: _Outcome) -> str:
    results = sum(item.variant == "original" for item in outcome.stored)
    with transaction() as tx:
        files.add_files(tx, claim.id, outcome.stored)
        row = state_machine.mark_succeeded(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            stored=results,
            wanted=len(claim.result_refs),
            remarks=outcome.remarks,
        )
        if row is not None:
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return f"saved {results} of {claim.id}"


def _try_later(claim: Row[Any], outcome: _Outcome) -> str:
    final = all(error.final for error in outcome.errors)
    delay = _BACKOFF_SECONDS[min(claim.save_tries, len(_BACKOFF_SECONDS)) - 1]
    if final or claim.seconds_left < delay:
        if outcome.stored:
            return _succeed(claim, outcome)
        return _fail(claim, str(outcome.errors[0]))
    fresh = _fresh_refs(claim) if any(error.status in _WORN_OUT for error in outcome.errors) else None
    with transaction() as tx:
        progress_and_leases.defer_save(tx, job_id=claim.id, save_tries=claim.save_tries, delay=delay, refs=fresh)
    return f"save of {claim.id} again in {delay:.0f} s"


def _fresh_refs(claim: Row[Any]) -> list[dict[str, Any]] | None:
    """The result addresses upstream gives today for the same job; None when it gives none."""
    with transaction() as tx:
        account = accounts.get_account(tx, claim.account_id)
    if account is None:
        return None
    key = str(claim.submit_key)
    watchdog.renew()
    try:
        record = asked(account, lambda ready: get_provider().ask(ready, [key])).get(key)
    except DreameryError as error:
        log.warning("fresh_links_not_given", job_id=str(claim.id), reason=error.code)
        return None
    if record is None or len(record.results) < len(claim.result_refs):
        return None
    return [asdict(ref) for ref in record.results]


@retry_when_database_away
def _fail(claim: Row[Any], reason: str) -> str:
    with transaction() as tx:
        row = state_machine.mark_failed(
            tx,
            job_id=claim.id,
            attempt=claim.attempt,
            code="result_unavailable",
            message=ERRORS["result_unavailable"].message,
            actor="save",
            detail=reason,
            from_states=("saving",),
        )
        if row is not None:
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
    return f"failed {claim.id}: result_unavailable"

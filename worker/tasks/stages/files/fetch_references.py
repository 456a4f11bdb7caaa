"""Fetches and inspects the references of a queued job, before any account is claimed for it. Part of submit.

So a slow or broken link holds no slot. `claims` sets such a job aside: it stays queued, and its `due_at` is the lease
of the fetch. A process that dies leaves a job that is due again. Every stored file is a committed row, so the next
fetch continues where this one stopped. A failure counts as an attempt of the job.
"""

import hashlib
import io
from dataclasses import replace
from functools import partial
from typing import IO, Any, cast

from worker import storage
from worker.core.catalog.input_limits import find_problem
from worker.core.catalog.models import VideoModel, get_catalog
from worker.core.concurrency.event_loop import in_files_thread, in_thread
from worker.core.concurrency.lanes import REFERENCES, acting_for
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.core.media import video
from worker.core.media.image import MAX_INPUT_BYTES, InvalidImageError
from worker.core.media.isolation.client import DecodingUnavailableError, Work, run_async
from worker.core.media.normalization import NormalizedImage, begin_normalization
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.job_context import job_context
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row, retry_when_database_unavailable, transaction
from worker.db.jobs import inputs, set_aside
from worker.db.jobs.set_aside import SetAside
from worker.messaging import celery_app
from worker.safe_fetch.async_client import download
from worker.safe_fetch.checks import DownloadedFile, FetchError
from worker.tasks.stages.fail_job import announce, fail_job
from worker.tasks.stages.lease_renewal import LeaseLostError, RenewingFile, keep_lease

log = get_logger("fetch_references")

FETCH_DEADLINE_SECONDS = 25.0
# Enough for a hundred megabytes at three megabits per second; the lease is renewed meanwhile.
MEDIA_DEADLINE_SECONDS = 300.0
# Seconds until the next try, by the tries so far.
BACKOFF_SECONDS = (2.0, 10.0, 30.0)
# Statuses that may succeed on another try; any other status below 500 is final.
_TEMPORARY = frozenset({408, 425, 429})
_CODES = {"video": "invalid_video", "audio": "invalid_audio"}


class ReferenceNotFetchedError(DreameryError):
    """A URL that could not be fetched this time; another try may succeed."""

    def __init__(self, message: str) -> None:
        super().__init__("input_unavailable", message)


async def fetch(job: SetAside) -> str:
    """Store all references of the job and give it back to the queue. Return a line about the outcome."""
    with job_context("fetch", job.id, job.origin), acting_for(job.owner):
        try:
            await keep_lease(_fetch_all(job), partial(_renew, job))
            await in_thread(_give_back, job)
        except LeaseLostError:
            return f"left {job.id}, which is not queued any more"
        except ReferenceNotFetchedError as error:
            return await in_thread(_retry, job, error)
        except (storage.StorageError, DecodingUnavailableError) as error:
            log.warning("reference_not_stored", job_id=str(job.id), reason=str(error))
            return await in_thread(_wait, job)
        except DreameryError as error:
            return await in_thread(_fail, job, error)
        except DATABASE_UNAVAILABLE_ERRORS:
            raise  # nothing can be written now: the job is due again when its lease ends
        except BaseException as error:  # noqa: BLE001
            fault = UnexpectedError(error)
            log.error("attempt_failed", job_id=str(job.id), fault=fault.detail, trace=fault.frames)  # noqa: TRY400
            return await in_thread(_retry, job, fault)
        return f"fetched the references of {job.id}"


async def _fetch_all(job: SetAside) -> None:
    for n, row in enumerate(await in_thread(_read_rows, job)):
        if n:
            await in_thread(_renew, job)  # ends the work for a job that was cancelled
        if row.key is None:
            await _fetch(job, row)
        elif not inputs.is_prepared(row):
            await _measure(job, row)
    _check_limits(job, await in_thread(_read_rows, job))


async def _fetch(job: SetAside, row: Row[Any]) -> None:
    is_image = row.media == "image"
    try:
        body = await download(
            row.url,
            max_bytes=MAX_INPUT_BYTES if is_image else video.MAX_INPUT_BYTES,
            deadline_seconds=FETCH_DEADLINE_SECONDS if is_image else MEDIA_DEADLINE_SECONDS,
            lane=REFERENCES,
        )
    except FetchError as error:
        log.info("reference_not_fetched", job_id=str(job.id), n=row.n, reason=str(error), status=error.status)
        message = f"{inputs.name_of(row)} could not be fetched: {error}."
        if error.final or (error.status is not None and error.status < 500 and error.status not in _TEMPORARY):
            raise DreameryError("input_unavailable", message) from error
        raise ReferenceNotFetchedError(message) from error
    with body.content as content:
        await (_store_image(job, row, content) if is_image else _store_media(job, row, body))


def _key(job: SetAside, row: Row[Any], extension: str) -> str:
    """Return a key of the job, not of the request: one URL may give two jobs of a request different bytes."""
    return f"inputs/{job.id.hex}/{row.n}.{extension}"


async def _store_image(job: SetAside, row: Row[Any], content: IO[bytes]) -> None:
    """Store a fetched image as the API stores a sent one: upright, without metadata, in a format of upstream."""
    try:
        image = await in_files_thread(begin_normalization, content)
        if isinstance(image, Work):
            image = await run_async(image)
    except InvalidImageError as error:
        raise DreameryError("invalid_image", f"{inputs.name_of(row)} cannot be used: {error}.") from error
    with image.content as upright:
        await in_files_thread(_put_image, job, row, image, upright)


def _put_image(job: SetAside, row: Row[Any], image: NormalizedImage, upright: IO[bytes]) -> None:
    size = upright.seek(0, io.SEEK_END)
    upright.seek(0)
    sha256 = hashlib.file_digest(upright, "sha256").hexdigest()  # type: ignore[arg-type] # the stub is too strict
    key = _key(job, row, image.info.extension)
    _put(key, upright)
    stored = inputs.StoredInput(key, image.info.mime, size, image.info.width, image.info.height, sha256)
    _note_stored(job, row.n, stored, image)


def _put(key: str, content: IO[bytes]) -> None:
    storage.put_file(key, cast("IO[bytes]", RenewingFile(content, watchdog.renewer())))


async def _store_media(job: SetAside, row: Row[Any], body: DownloadedFile) -> None:
    facts, extension = await _inspect(row, body.content)
    stored = replace(facts, key=_key(job, row, extension), bytes=body.size, sha256=body.sha256)
    await in_files_thread(_put, stored.key, body.content)
    await in_thread(_note_stored, job, row.n, stored)


async def _measure(job: SetAside, row: Row[Any]) -> None:
    """Inspect a video or audio file that the request contained; it is stored, but its length is unknown."""
    with await in_files_thread(open_stored, row) as content:
        facts, _ = await _inspect(row, content)
    await in_thread(_note_stored, job, row.n, replace(facts, key=row.key, bytes=row.bytes, sha256=row.sha256))


async def _inspect(row: Row[Any], content: IO[bytes]) -> tuple[inputs.StoredInput, str]:
    """Return the properties of the file, without its key, size and hash, and its file extension."""
    inspection = video.video_inspection if row.media == "video" else video.audio_inspection
    try:
        media = await run_async(await in_files_thread(inspection, content))
    except video.InvalidMediaError as error:
        raise DreameryError(_CODES[row.media], f"{inputs.name_of(row)} cannot be used: {error}.") from error
    measured = inputs.StoredInput("", media.mime, 0, media.width, media.height, "", milliseconds=media.milliseconds)
    return measured, media.extension


def _check_limits(job: SetAside, rows: list[Row[Any]]) -> None:
    """Raise the error of files that upstream would not accept, by the data of the model."""
    catalog = get_catalog()
    model = catalog.find_video(job.model) or catalog.find_image(job.model)
    for row in rows:
        limits = model.inputs.get(row.media) if model is not None else None
        seconds = None if row.length is None else row.length / 1000
        problem = limits and find_problem(limits, size=row.bytes, width=row.width, height=row.height, seconds=seconds)
        if problem:
            code = _CODES.get(row.media, "invalid_image")
            raise DreameryError(code, f"{inputs.name_of(row)} cannot be used: {problem}.")
    total = sum(row.length for row in rows if row.media == "video")
    longest = model.references.video_seconds * 1000 if isinstance(model, VideoModel) else 0
    longest = longest or video.MAX_REFERENCE_MILLISECONDS
    if total > longest + video.ROUNDING_MILLISECONDS:
        most = longest // 1000
        message = f"The reference videos are {total / 1000:.1f} s long in total; the maximum is {most} s. Shorten them."
        raise DreameryError("invalid_video", message)


def open_stored(row: Row[Any]) -> IO[bytes]:
    """Return a copy of a stored reference. Raises `input_unavailable`, StorageError."""
    try:
        return storage.open_file(row.key, on_chunk=watchdog.renewer())
    except storage.MissingFileError:
        message = f"{inputs.name_of(row)} is no longer in storage."
        raise DreameryError("input_unavailable", message) from None


@retry_when_database_unavailable
def _read_rows(job: SetAside) -> list[Row[Any]]:
    with transaction() as tx:
        return inputs.stored_inputs(tx, job.id)


@retry_when_database_unavailable
def _note_stored(job: SetAside, n: int, stored: inputs.StoredInput, image: NormalizedImage | None = None) -> None:
    with transaction() as tx:
        inputs.record_stored(tx, job.id, n, stored)
        if image is not None and image.adjusted:
            inputs.record_adjustments(tx, job.id, n, image.adjusted)


@retry_when_database_unavailable
def _renew(job: SetAside) -> None:
    with transaction() as tx:
        if not set_aside.renew(tx, job):
            raise LeaseLostError


@retry_when_database_unavailable
def _give_back(job: SetAside) -> None:
    with transaction() as tx:
        if set_aside.end(tx, job):
            tx.on_commit(partial(celery_app.enqueue_claim, job.kind, job_id=job.id))


@retry_when_database_unavailable
def _wait(job: SetAside) -> str:
    """Our storage or our decoders are at fault: the job waits for them, which costs it no attempt."""
    with transaction() as tx:
        set_aside.end(tx, job, delay=BACKOFF_SECONDS[1])
    return f"{job.id} waits for its references"


@retry_when_database_unavailable
def _retry(job: SetAside, error: DreameryError) -> str:
    if not job.attempts_left:
        return _fail(job, error)
    delay = BACKOFF_SECONDS[min(job.attempt, len(BACKOFF_SECONDS) - 1)]
    with transaction() as tx:
        row = set_aside.count_attempt(tx, job, delay=delay, code=error.code, detail=error.detail or error.message)
        if row is not None:
            announce(tx, row)
    return f"requeued {job.id}: {error.code}"


@retry_when_database_unavailable
def _fail(job: SetAside, error: DreameryError) -> str:
    with transaction() as tx:
        fail_job(
            tx,
            job_id=job.id,
            attempt=job.attempt,
            code=error.code,
            message=error.message,
            actor="submit",
            detail=error.detail,
            from_states=(JobState.QUEUED,),
        )
    return f"failed {job.id}: {error.code}"

"""Copies one finished video: the video itself, its first frame as `thumbnail`, a grid of frames as `spritesheet`.

Both images are made from the video; without them the video is still a result. Part of save. The same video gives the
same bytes under the same keys (I10).
"""

import io
from dataclasses import dataclass, field
from typing import IO, Any
from uuid import UUID

from worker.core.concurrency.event_loop import in_files_thread, in_thread
from worker.core.concurrency.lanes import RESULTS
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.media.image import InvalidImageError
from worker.core.media.image_structure import read_complete_image
from worker.core.media.isolation.client import DecodingUnavailableError, run_async
from worker.core.media.video import (
    InvalidMediaError,
    JpegImage,
    first_frame,
    sprite_sheet,
    video_inspection,
)
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import Row, transaction
from worker.db.jobs.files import NewFile
from worker.providers.base import ResultRef
from worker.providers.registry import get_provider
from worker.safe_fetch.async_client import download
from worker.safe_fetch.checks import DownloadedFile, FetchError
from worker.tasks.stages.account_session import call_upstream_async
from worker.tasks.stages.files import storage_wait

log = get_logger("save_video")

# Enough for two gigabytes at ten megabits per second; the lease is renewed meanwhile.
VIDEO_DEADLINE_SECONDS = 1800.0
_POSTER_BYTES = 20 * 1024 * 1024
_POSTER_DEADLINE_SECONDS = 15.0
# The role of a result that belongs to a video, and the variant of its file.
LAST_FRAME = "last_frame"


@dataclass(frozen=True, slots=True)
class CopiedVideo:
    """The stored files of one video, the video first, and remarks about images that could not be made."""

    files: list[NewFile]
    remarks: list[str] = field(default_factory=list)


def parse_result_ref(ref: dict[str, Any]) -> ResultRef:
    """Return a `result_refs` entry of a job row as a ResultRef; entries of older rows lack some fields."""
    return ResultRef(
        url=ref["url"],
        width=ref["width"],
        height=ref["height"],
        format=ref.get("format"),
        seconds=ref.get("seconds"),
        poster_url=ref.get("poster_url"),
        item_id=ref.get("item_id"),
    )


async def copy_video(claim: Row[Any], n: int, ref: dict[str, Any]) -> CopiedVideo:
    """Store the video of `ref` and its images. Raises FetchError, StorageError."""
    known = parse_result_ref(ref)
    best = await _find_better(claim, known)
    try:
        body = await _download(best.url)
    except FetchError as error:
        if best.url == known.url:
            raise
        log.warning("better_video_not_copied", job_id=str(claim.id), reason=str(error))
        body = await _download(known.url)
    with body.content as content:
        try:
            facts = await run_async(await in_files_thread(video_inspection, content))
        except InvalidMediaError as error:
            raise FetchError(f"the response is not a video: {error}") from error
        except DecodingUnavailableError as error:
            raise FetchError(f"it could not be inspected: {error}") from error
        key = f"jobs/{claim.id.hex}/{n}.{facts.extension}"
        await in_files_thread(_put, key, content, body.size)
        video = NewFile(
            n=n,
            key=key,
            mime=facts.mime,
            bytes=body.size,
            sha256=body.sha256,
            width=facts.width,
            height=facts.height,
            seconds=facts.milliseconds / 1000,
        )
        return await _with_images(claim.id, video, content, best.poster_url)


def _put(key: str, content: IO[bytes], size: int) -> None:
    storage_wait.put_file(key, content, size, renew=watchdog.renewer())


async def _download(url: str) -> DownloadedFile:
    most = get_settings().max_video_bytes
    return await download(url, max_bytes=most, deadline_seconds=VIDEO_DEADLINE_SECONDS, lane=RESULTS)


async def _find_better(claim: Row[Any], ref: ResultRef) -> ResultRef:
    """Return the same video at a higher bit rate, if upstream has one, else `ref`. Makes one call and never fails."""
    account = await in_thread(_read_account, claim.account_id) if ref.item_id else None
    videos = get_provider(account).capabilities.better_videos if account is not None else None
    if account is None or videos is None:
        return ref
    try:
        return await call_upstream_async(account, lambda ready: videos.find_better_video(ready, ref))
    except DreameryError as error:
        log.info("better_video_not_asked", job_id=str(claim.id), reason=error.code)
        return ref


def _read_account(account_id: UUID) -> AccountRow | None:
    with transaction() as tx:
        return accounts.get_account(tx, account_id)


async def _with_images(job_id: UUID, video: NewFile, content: IO[bytes], poster_url: str | None) -> CopiedVideo:
    copied = CopiedVideo(files=[video])
    try:
        frame = await run_async(await in_files_thread(first_frame, content))
        copied.files.append(await in_files_thread(_store_image, job_id, video.n, "thumbnail", frame))
    except (InvalidMediaError, DecodingUnavailableError) as error:
        copied.remarks.append(f"thumbnail of {video.n} not made: {error}")
        await _copy_poster(job_id, video.n, poster_url, copied)
    try:
        sheet = await run_async(await in_files_thread(sprite_sheet, content))
        copied.files.append(await in_files_thread(_store_image, job_id, video.n, "spritesheet", sheet))
    except (InvalidMediaError, DecodingUnavailableError) as error:
        copied.remarks.append(f"spritesheet of {video.n} not made: {error}")
    for remark in copied.remarks:
        log.warning("film_without_picture", job_id=str(job_id), remark=remark)
    return copied


def _store_image(job_id: UUID, n: int, variant: str, image: JpegImage) -> NewFile:
    key = f"jobs/{job_id.hex}/{n}.{variant}.jpeg"
    _put(key, io.BytesIO(image.data), len(image.data))
    return NewFile(
        n=n,
        key=key,
        mime="image/jpeg",
        bytes=len(image.data),
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        variant=variant,
    )


async def copy_last_frame(claim: Row[Any], ref: dict[str, Any]) -> NewFile:
    """Store the last frame of the job's video, an image. Raises FetchError, StorageError."""
    body = await download(ref["url"], max_bytes=_POSTER_BYTES, deadline_seconds=_POSTER_DEADLINE_SECONDS, lane=RESULTS)
    with body.content as content:
        try:
            facts = await in_files_thread(read_complete_image, content)
        except InvalidImageError as error:
            raise FetchError(f"the last frame is not an image: {error}") from error
        key = f"jobs/{claim.id.hex}/0.{LAST_FRAME}.{facts.extension}"
        await in_files_thread(_put, key, content, body.size)
    return NewFile(
        n=0,
        key=key,
        mime=facts.mime,
        bytes=body.size,
        sha256=body.sha256,
        width=facts.width,
        height=facts.height,
        variant=LAST_FRAME,
    )


async def _copy_poster(job_id: UUID, n: int, url: str | None, copied: CopiedVideo) -> None:
    """Copy upstream's poster as the thumbnail, because no frame could be read."""
    if url is None:
        return
    try:
        body = await download(url, max_bytes=_POSTER_BYTES, deadline_seconds=_POSTER_DEADLINE_SECONDS, lane=RESULTS)
        with body.content as content:
            facts = await in_files_thread(read_complete_image, content)
            key = f"jobs/{job_id.hex}/{n}.thumbnail.{facts.extension}"
            await in_files_thread(_put, key, content, body.size)
    except (FetchError, InvalidImageError) as error:
        copied.remarks.append(f"upstream's poster of {n} not copied: {error}")
        return
    copied.files.append(
        NewFile(
            n=n,
            key=key,
            mime=facts.mime,
            bytes=body.size,
            sha256=body.sha256,
            width=facts.width,
            height=facts.height,
            variant="thumbnail",
        )
    )

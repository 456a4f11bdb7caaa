"""Copies one finished video: the video itself, its first frame as `thumbnail`, a grid of frames as `spritesheet`.

Both images are made from the video; without them the video is still a result. Part of save. The same video gives the
same bytes under the same keys (I10).
"""

import io
from dataclasses import dataclass, field
from typing import IO, Any, cast
from uuid import UUID

from worker import storage
from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.media.image import InvalidImageError
from worker.core.media.image_structure import read_complete_image
from worker.core.media.video import (
    InvalidMediaError,
    JpegImage,
    extract_first_frame,
    inspect_video,
    make_sprite_sheet,
)
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import Row, transaction
from worker.db.jobs.files import NewFile
from worker.providers.base import ResultRef
from worker.providers.registry import get_provider
from worker.safe_fetch.checks import DownloadedFile, FetchError
from worker.safe_fetch.client import download
from worker.tasks.stages.account_session import call_upstream
from worker.tasks.stages.lease_renewal import LeaseRenewer, RenewingFile

log = get_logger("save_video")

# Enough for two gigabytes at ten megabits per second; the lease is renewed while the bytes arrive.
VIDEO_DEADLINE_SECONDS = 1800.0
_POSTER_BYTES = 20 * 1024 * 1024
_POSTER_DEADLINE_SECONDS = 15.0


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


def copy_video(claim: Row[Any], n: int, ref: dict[str, Any], renew: LeaseRenewer) -> CopiedVideo:
    """Store the video of `ref` and its images. Raises FetchError, and any exception of `renew`."""
    known = parse_result_ref(ref)
    best = _find_better(claim, known)
    try:
        body = _download(best.url, renew)
    except FetchError as error:
        if best.url == known.url:
            raise
        log.warning("better_video_not_copied", job_id=str(claim.id), reason=str(error))
        body = _download(known.url, renew)
    with body.content as content:
        watchdog.renew()
        try:
            facts = inspect_video(content, keep_alive=renew)
        except InvalidMediaError as error:
            raise FetchError(f"the response is not a video: {error}") from error
        key = f"jobs/{claim.id.hex}/{n}.{facts.extension}"
        storage.put_file(key, cast("IO[bytes]", RenewingFile(content, renew)))
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
        return _with_images(claim.id, video, content, best.poster_url, renew)


def _download(url: str, renew: LeaseRenewer) -> DownloadedFile:
    return download(
        url, max_bytes=get_settings().max_video_bytes, deadline_seconds=VIDEO_DEADLINE_SECONDS, on_chunk=renew
    )


def _find_better(claim: Row[Any], ref: ResultRef) -> ResultRef:
    """Return the same video at a higher bit rate, if upstream has one, else `ref`. Makes one call and never fails."""
    if not ref.item_id:
        return ref
    with transaction() as tx:
        account = accounts.get_account(tx, claim.account_id)
    if account is None:
        return ref
    try:
        return call_upstream(account, lambda ready: get_provider().find_better_video(ready, ref))
    except DreameryError as error:
        log.info("better_video_not_asked", job_id=str(claim.id), reason=error.code)
        return ref
    finally:
        watchdog.renew()


def _with_images(
    job_id: UUID, video: NewFile, content: IO[bytes], poster_url: str | None, renew: LeaseRenewer
) -> CopiedVideo:
    copied = CopiedVideo(files=[video])
    try:
        copied.files.append(_store_image(job_id, video.n, "thumbnail", extract_first_frame(content, keep_alive=renew)))
    except InvalidMediaError as error:
        copied.remarks.append(f"thumbnail of {video.n} not made: {error}")
        _copy_poster(job_id, video.n, poster_url, copied)
    try:
        copied.files.append(_store_image(job_id, video.n, "spritesheet", make_sprite_sheet(content, keep_alive=renew)))
    except InvalidMediaError as error:
        copied.remarks.append(f"spritesheet of {video.n} not made: {error}")
    for remark in copied.remarks:
        log.warning("film_without_picture", job_id=str(job_id), remark=remark)
    return copied


def _store_image(job_id: UUID, n: int, variant: str, image: JpegImage) -> NewFile:
    watchdog.renew()
    key = f"jobs/{job_id.hex}/{n}.{variant}.jpeg"
    storage.put_file(key, io.BytesIO(image.data))
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


def _copy_poster(job_id: UUID, n: int, url: str | None, copied: CopiedVideo) -> None:
    """Copy upstream's poster as the thumbnail, because no frame could be read."""
    if url is None:
        return
    watchdog.renew()
    try:
        body = download(url, max_bytes=_POSTER_BYTES, deadline_seconds=_POSTER_DEADLINE_SECONDS)
        with body.content as content:
            facts = read_complete_image(content)
            key = f"jobs/{job_id.hex}/{n}.thumbnail.{facts.extension}"
            storage.put_file(key, content)
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

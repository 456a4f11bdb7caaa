"""Copy one finished video: the film itself, its first frame as `thumbnail`, a grid of its frames as `spritesheet`.

The two pictures are made from the film, and a film without them is still a result. Part of save. The same film gives
the same bytes under the same keys (I10).
"""

import io
from dataclasses import dataclass, field
from typing import IO, Any, cast
from uuid import UUID

from worker import safe_fetch, storage
from worker.core.errors import DreameryError
from worker.core.media.image import NotAPictureError, picture_facts
from worker.core.media.video import NotAClipError, Still, first_frame, sprite_sheet, video_facts
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import accounts
from worker.db.engine import Row, transaction
from worker.db.jobs.files import NewFile
from worker.providers.base import ResultRef
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import asked
from worker.tasks.stages.lease_renewal import Keeper, KeptFile

log = get_logger("films")

# Two gigabytes at ten megabits a second; the lease is renewed as they come.
FILM_DEADLINE_SECONDS = 1800.0
_POSTER_BYTES = 20 * 1024 * 1024
_POSTER_DEADLINE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Copied:
    """The stored files of one video, the film first, and what could not be made of it."""

    files: list[NewFile]
    remarks: list[str] = field(default_factory=list)


def result_ref(ref: dict[str, Any]) -> ResultRef:
    """A `result_refs` entry of a job row; entries of older rows know less."""
    return ResultRef(
        url=ref["url"],
        width=ref["width"],
        height=ref["height"],
        format=ref.get("format"),
        seconds=ref.get("seconds"),
        poster_url=ref.get("poster_url"),
        item_id=ref.get("item_id"),
    )


def copy_film(claim: Row[Any], n: int, ref: dict[str, Any], keep: Keeper) -> Copied:
    """Store the video behind the ref and its pictures. Raises FetchError; what `keep` raises ends it."""
    known = result_ref(ref)
    best = _better(claim, known)
    try:
        body = _download(best.url, keep)
    except safe_fetch.FetchError as error:
        if best.url == known.url:
            raise
        log.warning("better_video_not_copied", job_id=str(claim.id), reason=str(error))
        body = _download(known.url, keep)
    with body.content as content:
        watchdog.renew()
        try:
            facts = video_facts(content, keep=keep)
        except NotAClipError as error:
            raise safe_fetch.FetchError(f"the answer is not a video: {error}") from error
        key = f"jobs/{claim.id.hex}/{n}.{facts.extension}"
        storage.put_file(key, cast("IO[bytes]", KeptFile(content, keep)))
        film = NewFile(
            n=n,
            key=key,
            mime=facts.mime,
            bytes=body.size,
            sha256=body.sha256,
            width=facts.width,
            height=facts.height,
            seconds=facts.milliseconds / 1000,
        )
        return _with_pictures(claim.id, film, content, best.poster_url, keep)


def _download(url: str, keep: Keeper) -> safe_fetch.Downloaded:
    most = get_settings().max_video_bytes
    return safe_fetch.download(url, max_bytes=most, deadline_seconds=FILM_DEADLINE_SECONDS, keep=keep)


def _better(claim: Row[Any], ref: ResultRef) -> ResultRef:
    """The same video at a better bit rate, if upstream has one. One call; whatever goes wrong, the ref is good."""
    if not ref.item_id:
        return ref
    with transaction() as tx:
        account = accounts.get_account(tx, claim.account_id)
    if account is None:
        return ref
    try:
        return asked(account, lambda ready: get_provider().better_video(ready, ref))
    except DreameryError as error:
        log.info("better_video_not_asked", job_id=str(claim.id), reason=error.code)
        return ref
    finally:
        watchdog.renew()


def _with_pictures(job_id: UUID, film: NewFile, content: IO[bytes], poster_url: str | None, keep: Keeper) -> Copied:
    copied = Copied(files=[film])
    try:
        copied.files.append(_store(job_id, film.n, "thumbnail", first_frame(content, keep=keep)))
    except NotAClipError as error:
        copied.remarks.append(f"thumbnail of {film.n} not made: {error}")
        _take_poster(job_id, film.n, poster_url, copied)
    try:
        copied.files.append(_store(job_id, film.n, "spritesheet", sprite_sheet(content, keep=keep)))
    except NotAClipError as error:
        copied.remarks.append(f"spritesheet of {film.n} not made: {error}")
    for remark in copied.remarks:
        log.warning("film_without_picture", job_id=str(job_id), remark=remark)
    return copied


def _store(job_id: UUID, n: int, variant: str, still: Still) -> NewFile:
    watchdog.renew()
    key = f"jobs/{job_id.hex}/{n}.{variant}.jpeg"
    storage.put_file(key, io.BytesIO(still.data))
    return NewFile(
        n=n,
        key=key,
        mime="image/jpeg",
        bytes=len(still.data),
        sha256=still.sha256,
        width=still.width,
        height=still.height,
        variant=variant,
    )


def _take_poster(job_id: UUID, n: int, url: str | None, copied: Copied) -> None:
    """Upstream's own cover, when no frame could be read."""
    if url is None:
        return
    watchdog.renew()
    try:
        body = safe_fetch.download(url, max_bytes=_POSTER_BYTES, deadline_seconds=_POSTER_DEADLINE_SECONDS)
        with body.content as content:
            facts = picture_facts(content)
            key = f"jobs/{job_id.hex}/{n}.thumbnail.{facts.extension}"
            storage.put_file(key, content)
    except (safe_fetch.FetchError, NotAPictureError) as error:
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

"""Thumbnails of stored images: made at the first request, then kept beside the image.

Nothing depends on a kept one: if it is missing, damaged or cannot be stored, it is made again.
See docs/decisions/2026-12-01-thumbnails-are-kept.md.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from fastapi import Response
from starlette.concurrency import run_in_threadpool

from api.http.clients.storage_threads import in_storage_thread
from worker import storage
from worker.core.errors import DreameryError
from worker.core.media.image import InvalidImageError
from worker.core.media.isolation.client import DecodingUnavailableError, run_async
from worker.core.media.thumbnail_keys import thumbnail_key
from worker.core.media.thumbnails import thumbnail_work
from worker.core.observability.logging import get_logger

log = get_logger("thumbnails")

# `small` is for lists: a quarter of the work and far fewer bytes.
ThumbnailSize = Literal["small", "medium"]
_SIDES: dict[ThumbnailSize, int] = {"small": 128, "medium": 512}
_PATIENCE_SECONDS = 30.0
# A storage that could not keep one is not asked again for this long.
_PAUSE_SECONDS = 60.0


async def send_thumbnail(row: Any, size: ThumbnailSize, *, if_none_match: str | None, cache: str) -> Response:
    """Respond with a thumbnail of a stored image (`key`, `sha256`, `owner`); 304 if the caller's copy is current."""
    headers = {
        "ETag": f'"{row.sha256}-{_SIDES[size]}"',
        "Cache-Control": cache,
        "Access-Control-Allow-Origin": "*",
    }
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content = await _once(f"{row.key} {_SIDES[size]}", _read_or_make(row, _SIDES[size]))
    return Response(content, media_type="image/webp", headers=headers)


@dataclass(slots=True)
class _Shared:
    """A thumbnail that is being made, and how many requests wait for it."""

    task: "asyncio.Task[bytes]"
    waiting: int = 0


_being_made: dict[tuple[asyncio.AbstractEventLoop, str], _Shared] = {}


async def _once(name: str, work: Coroutine[Any, Any, bytes]) -> bytes:
    """Return the result of the work; callers that come while it runs get the same one. It ends with its last caller."""
    place = (asyncio.get_running_loop(), name)
    shared = _being_made.get(place)
    if shared is None:
        shared = _being_made[place] = _Shared(asyncio.create_task(work))
    else:
        work.close()
    shared.waiting += 1
    try:
        return await asyncio.shield(shared.task)
    finally:
        shared.waiting -= 1
        if not shared.waiting or shared.task.done():
            # Before the cancellation: nobody may join what is being cancelled.
            if _being_made.get(place) is shared:
                del _being_made[place]
            shared.task.cancel()


async def _read_or_make(row: Any, side: int) -> bytes:
    name = thumbnail_key(row.key, side)
    kept = None if name is None else await in_storage_thread(_read_kept, name)
    if kept is not None:
        return kept
    content = await _make(row, side)
    if name is not None:
        await in_storage_thread(_keep, row.key, name, content)
    return content


async def _make(row: Any, side: int) -> bytes:
    try:
        with await in_storage_thread(storage.open_file, row.key) as content:
            work = await run_in_threadpool(partial(thumbnail_work, content, side=side))
            # The files of one owner wait for each other, not for those of another.
            return await run_async(work, owner=row.owner, patience_seconds=_PATIENCE_SECONDS)
    except storage.MissingFileError:
        raise DreameryError("file_not_found") from None
    except InvalidImageError as error:
        raise DreameryError("file_not_found", f"This file has no thumbnail: {error}.") from None
    except DecodingUnavailableError:
        raise DreameryError("overloaded", "Too many thumbnails are being made. Try again later.") from None


def _read_kept(name: str) -> bytes | None:
    """Return a kept thumbnail; None if it is missing or damaged, as a power failure may leave it."""
    with contextlib.suppress(storage.MissingFileError, storage.StorageError):
        content = storage.read_file(name)
        return content if _is_whole(content) else None
    return None


def _is_whole(content: bytes) -> bool:
    # RIFF: four letters, the number of bytes that follow, four letters.
    size = int.from_bytes(content[4:8], "little")
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP" and size + 8 == len(content)


class _Pause:
    """Until when nothing is stored, in monotonic seconds."""

    until = 0.0


def _keep(key: str, name: str, content: bytes) -> None:
    """Store the thumbnail of an image. A storage that is full or read-only does not concern the request."""
    if time.monotonic() < _Pause.until:
        return
    try:
        storage.put_bytes(name, content)
        try:
            storage.file_size(key)
        except storage.MissingFileError:
            # A deletion removes the image first, so it either sees the thumbnail or is seen here.
            storage.delete_file(name)
    except storage.StorageError as error:
        _Pause.until = time.monotonic() + _PAUSE_SECONDS
        log.warning("thumbnail_not_kept", reason=error.reason)

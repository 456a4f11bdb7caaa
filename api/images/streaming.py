"""Image requests with `stream: true`: OpenAI's named events, one `completed` event per image when its job has ended.

No `partial_image` is sent, which OpenAI allows: upstream has no unfinished images. Events carry no `id:` and no
`retry:`, which break the SDKs (openai-compat rule 1). The status is decided before the first byte: a rejected request
is a plain HTTP error.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.generation.acceptance import AcceptedRequest
from api.generation.response import mark_failed, mark_unanswered, read_job_views, read_views, sync_watches
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_body
from api.http.sse import HEARTBEAT, sse, stream_events
from api.images.serialization import result_files
from api.jobs.serialization import group_error, read_base64, safety_identifier_field
from api.jobs.watcher import JobWatcher, Watch
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row
from worker.db.jobs.queries import JobView

log = get_logger("api")

# The models count no tokens, but the SDKs require the numbers.
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


class ImageFrames(Protocol):
    """How a stream writes its events. The methods may read files, so they run in threads."""

    def image(self, view: JobView, item: Row[Any], index: int) -> bytes:
        """Return the event of an image, the `index`-th of the stream."""

    def failed_job(self, view: JobView, index: int) -> bytes:
        """Return the event of a job that ended without an image (may be empty)."""

    def end(self, job_ids: list[UUID]) -> bytes:
        """Return what follows the last image (may be empty)."""

    def error(self, error: DreameryError) -> bytes:
        """Return the event of a stream that ends without its images."""


@dataclass(frozen=True, slots=True)
class EventFields:
    """OpenAI's events, with the fields that all of them share."""

    kind: str  # image_generation or image_edit
    quality: str
    background: str

    def image(self, view: JobView, item: Row[Any], _index: int) -> bytes:
        """Return a `completed` event."""
        return _completed(view, item, self)

    def failed_job(self, _view: JobView, _index: int) -> bytes:
        """Return nothing: OpenAI has no event for this."""
        return b""

    def end(self, _job_ids: list[UUID]) -> bytes:
        """Return nothing: the last image ends the stream."""
        return b""

    def error(self, error: DreameryError) -> bytes:
        """Return an `error` event."""
        return _error(error)


class _ImageSource:
    """The events of one request, in the order in which its jobs end."""

    def __init__(
        self, job_watcher: JobWatcher, watches: list[Watch], accepted: AcceptedRequest, frames: ImageFrames
    ) -> None:
        self._job_watcher, self._accepted, self._frames = job_watcher, accepted, frames
        self._watches, self._open = watches, list(watches)
        self._synced = False
        self.sent = 0

    async def new_frames(self) -> AsyncIterator[bytes]:
        """Yield an event for each image of the jobs that ended."""
        if not self._synced:
            await sync_watches(self._watches)
            self._synced = True
        for watch in [watch for watch in self._open if watch.final]:
            self._open.remove(watch)
            (view,) = await read_views([watch.job_id])
            for item in result_files([view], n=self._accepted.n - self.sent):
                self.sent += 1
                yield await in_storage_thread(self._frames.image, view, item, self.sent - 1)
            if not view.files and (frame := self._frames.failed_job(view, self.sent)):
                yield frame

    def is_finished(self) -> bool:
        """Return whether all jobs have ended and their images were sent."""
        return not self._open

    def is_released(self) -> bool:
        """Return whether this process stops."""
        return self._job_watcher.stopping

    def release(self) -> bytes:
        """Raise `restarting`."""
        raise DreameryError("restarting")

    def expire(self) -> bytes:
        """Return nothing: the jobs have deadlines, the stream has none."""
        return b""

    async def wait(self, seconds: float) -> object:
        """Wait for a change of any of the jobs."""
        return await self._watches[0].changed(seconds)


async def image_events(
    job_watcher: JobWatcher, accepted: AcceptedRequest, frames: ImageFrames, request: Request
) -> AsyncIterator[bytes]:
    """Yield the frames of one request until its last image is sent. An error event is sent only without any image."""
    # Some clients give up on a connection that is silent for a minute.
    yield HEARTBEAT
    try:
        with job_watcher.watch_jobs(accepted.job_ids) as watches:
            source = _ImageSource(job_watcher, watches, accepted, frames)
            async for frame in stream_events(source):
                yield frame
        if not source.sent:
            mark_failed(request)
            yield frames.error(await run_in_threadpool(_failure, accepted.job_ids))
        elif source.sent < accepted.n:
            yield f": {source.sent} of {accepted.n} pictures\n".encode()
        if source.sent and (last := await run_in_threadpool(frames.end, accepted.job_ids)):
            yield last
    except DreameryError as error:
        if error.code == "restarting":
            mark_unanswered(request)
        yield frames.error(error)
    except DATABASE_UNAVAILABLE_ERRORS as error:
        log.warning("database_away", reason=type(error).__name__)
        mark_unanswered(request)
        yield frames.error(DreameryError("overloaded", "The database was unavailable for a while; the job continues."))


def _completed(view: JobView, item: Row[Any], event_fields: EventFields) -> bytes:
    name = f"{event_fields.kind}.completed"
    data = {
        "type": name,
        "b64_json": read_base64(item.key),
        "background": event_fields.background,
        "created_at": int(time.time()),
        "output_format": item.mime.partition("/")[2],
        "quality": event_fields.quality,
        "size": f"{item.width}x{item.height}",
        "usage": _NO_USAGE,
        **safety_identifier_field(view),
    }
    return sse(name, data)


def _failure(job_ids: list[UUID]) -> DreameryError:
    error, _status = group_error(read_job_views(job_ids))
    return error


def _error(error: DreameryError) -> bytes:
    return sse("error", {"type": "error", **error_body(error.kind, error.message, error.param)})

"""Picture requests with `stream: true`: OpenAI's named events, one `completed` for each picture once its job has ended.

No `partial_image` is ever sent, which OpenAI allows: upstream shows no unfinished pictures. No `id:` and no `retry:`
here, they break the SDKs (openai-compat rule 1). The status is decided before the first byte: what is refused, is
refused as a plain HTTP error.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.generation.acceptance import Accepted
from api.generation.response import catch_up, views_of
from api.http.errors import error_body
from api.http.sse import HEARTBEAT, HEARTBEAT_SECONDS, sse
from api.jobs.serialization import base64_of, failure_of, safety_echo
from api.jobs.watcher import Hub, Watch
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.db.engine import AWAY_ERRORS, Row
from worker.db.jobs.queries import JobView

log = get_logger("api")

# Our models count no tokens; the SDKs demand the numbers.
_NO_USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


@dataclass(frozen=True, slots=True)
class Told:
    """What every event of a stream tells: the kind of its names, and `quality` and `background` as asked."""

    kind: str  # image_generation or image_edit
    quality: str
    background: str


async def picture_events(
    hub: Hub, accepted: Accepted, told: Told, unanswered: Callable[[], None]
) -> AsyncIterator[bytes]:
    """The frames of one request until its last picture is sent. An error event only when there is none at all.

    `unanswered` is called before the stream ends while its jobs go on.
    """
    # Some clients give up on a connection that is silent for a minute.
    yield HEARTBEAT
    sent = 0
    try:
        async for job_id in _as_they_end(hub, accepted.job_ids):
            if job_id is None:
                yield HEARTBEAT
                continue
            (view,) = await run_in_threadpool(views_of, [job_id])
            for item in view.files[: accepted.n - sent]:
                sent += 1
                yield await run_in_threadpool(_completed, view, item, told)
        if not sent:
            yield await run_in_threadpool(_failed, accepted.job_ids)
        elif sent < accepted.n:
            yield f": {sent} of {accepted.n} pictures\n".encode()
    except DreameryError as error:
        if error.code == "restarting":
            unanswered()
        yield _error(error)
    except AWAY_ERRORS as error:
        log.warning("database_away", reason=type(error).__name__)
        unanswered()
        yield _error(DreameryError("overloaded", "The platform lost its database for a while; the job goes on."))


async def _as_they_end(hub: Hub, job_ids: list[UUID]) -> AsyncIterator[UUID | None]:
    """The jobs in the order in which they end; None after each while of silence.

    Raises `restarting` when this process stops.
    """
    ended: asyncio.Queue[UUID | None] = asyncio.Queue()
    with hub.watching(job_ids) as watches:
        await catch_up(watches)
        tasks = [asyncio.create_task(_report_end(hub, watch, ended)) for watch in watches]
        try:
            left = len(watches)
            while left:
                try:
                    job_id = await asyncio.wait_for(ended.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                if job_id is None:
                    raise DreameryError("restarting")
                left -= 1
                yield job_id
        finally:
            for task in tasks:
                task.cancel()


async def _report_end(hub: Hub, watch: Watch, ended: "asyncio.Queue[UUID | None]") -> None:
    while not watch.final and not hub.stopping:
        await watch.changed(HEARTBEAT_SECONDS)
    ended.put_nowait(watch.job_id if watch.final else None)


def _completed(view: JobView, item: Row[Any], told: Told) -> bytes:
    name = f"{told.kind}.completed"
    data = {
        "type": name,
        "b64_json": base64_of(item.key),
        "background": told.background,
        "created_at": int(time.time()),
        "output_format": item.mime.partition("/")[2],
        "quality": told.quality,
        "size": f"{item.width}x{item.height}",
        "usage": _NO_USAGE,
        **safety_echo(view),
    }
    return sse(name, data)


def _failed(job_ids: list[UUID]) -> bytes:
    error, _status = failure_of(views_of(job_ids))
    return _error(error)


def _error(error: DreameryError) -> bytes:
    return sse("error", {"type": "error", **error_body(error.kind, error.message, error.param)})

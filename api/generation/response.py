"""From a planned request to its answer: accept, wait, then 200, 202, 504 or the error of the jobs.

Every creating route calls `create_and_respond` (which waits) or `accept_jobs` (which does not, for streams and
asynchronous objects).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request, Response

from api.auth.caller import Caller
from api.generation.acceptance import AcceptedRequest, GenerationPlan, accept
from api.http.bodies.received import release_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_response
from api.http.preferences import Preference, client_timeout, set_job_id_header
from api.http.request_tracker import RequestTracker, TrackedRequest
from api.http.responses import base_url, json_response
from api.jobs.eta import estimate_group_eta
from api.jobs.serialization import group_error, job_object
from api.jobs.watcher import JobWatcher, Watch
from worker.core.concurrency.keyed_batches import KeyedBatches, Left
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import is_database_away, retry_for_a_caller, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

IdempotencyKeyHeader = Annotated[
    str | None, Header(alias="idempotency-key", description="same key, same body: the same jobs")
]

# nginx's status for a client that disconnected; it only appears in logs.
CLIENT_CLOSED_REQUEST = 499

# Builds the body of a 200 from ended jobs with at least one result and the base of links.
BuildBody = Callable[[list[JobView], str], dict[str, Any]]
_Build = Callable[[list[JobView], str], Awaitable[dict[str, Any]]]
# Builds additional keys of a 202 from the jobs.
BuildExtraFields = Callable[[list[JobView]], dict[str, Any]]


async def create_and_respond(
    request: Request,
    plan: GenerationPlan,
    *,
    caller: Caller,
    preference: Preference,
    key: str | None,
    build_body: BuildBody,
    build_extra_fields: BuildExtraFields = lambda _: {},
    reads_files: bool = True,
    on_accepted: Callable[[AcceptedRequest], Awaitable[None]] | None = None,
) -> Response:
    """Accept the jobs, wait as the caller prefers, and answer. `reads_files` = `build_body` may take long."""
    job_watcher: JobWatcher = request.app.state.job_watcher
    # Watch before the rows exist, so that no end is missed between the commit and the wait.
    with job_watcher.watch_jobs([job.id for job in plan.jobs]) as watches:
        async with _watching_disconnect(request, tracked_request(request)):
            accepted = await accept_jobs(request, plan, caller=caller, key=key, answers_late=True)
            if on_accepted is not None:
                await on_accepted(accepted)
            waiting = _wait(job_watcher, watches, accepted, preference.wait_seconds)
            if not await wait_unless_disconnected(request, waiting):
                return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def build(views: list[JobView], base: str) -> dict[str, Any]:
        return await in_storage_thread(build_body, views, base) if reads_files else build_body(views, base)

    return await _respond(request, accepted, preference, build, build_extra_fields, keyed=key is not None)


def tracked_request(request: Request) -> TrackedRequest:
    """Return the tracking state of this HTTP request; the request middleware ends it with the answer."""
    tracker: RequestTracker = request.app.state.request_tracker
    return tracker.track(request)


async def accept_jobs(
    request: Request, plan: GenerationPlan, *, caller: Caller, key: str | None, answers_late: bool = False
) -> AcceptedRequest:
    """Accept the jobs, or join those of the request that this one repeats. Later errors forbid a client retry.

    `answers_late` = the answer comes after the jobs have ended, so the client may disconnect before: wait within
    `wait_unless_disconnected`. A stream that ends before its jobs calls `mark_unanswered` first.
    """
    # Its inputs are stored by now, and the answer may come in minutes.
    release_body(request.scope["state"])
    tracked = tracked_request(request)
    tracked.body_digest = getattr(request.state, "body_digest", "")
    if answers_late:
        tracked.client_timeout = client_timeout(request)
    async with _watching_disconnect(request, tracked):
        accepted = await accept(plan, caller=caller, key=key, tracked=tracked)
    set_job_id_header(request, public_id("job", accepted.job_ids[0]), accepted=True)
    if accepted.warnings:
        request.state.budget_warnings = accepted.warnings
    return accepted


async def wait_unless_disconnected(request: Request, waiting: Coroutine[Any, Any, object]) -> bool:
    """Wait for `waiting`; return False at once when the client disconnects, so that its retry can join."""
    task = asyncio.ensure_future(waiting)
    async with _watching_disconnect(request, tracked_request(request)) as disconnected_task:
        try:
            await asyncio.wait({task, disconnected_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        return False
    task.result()
    return True


def mark_unanswered(request: Request) -> None:
    """Record that the answer ends before the jobs do: the same request sent again is a repeat."""
    tracked_request(request).deadline_passed = True


def mark_failed(request: Request) -> None:
    """Record that the answer is the failure of the jobs: an automatic repeat gets it again."""
    tracked_request(request).failed = True


@contextlib.asynccontextmanager
async def _watching_disconnect(request: Request, tracked: TrackedRequest) -> AsyncIterator["asyncio.Task[None]"]:
    """Watch for a disconnect in the block: it sets `tracked.disconnected` and completes the task.

    A block inside another one shares its task: one request has one reader of its messages.
    """
    if tracked.watcher is not None:
        yield tracked.watcher
        return
    task = tracked.watcher = asyncio.create_task(_receive_disconnect(request, tracked))
    try:
        yield task
    finally:
        tracked.watcher = None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _receive_disconnect(request: Request, tracked: TrackedRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    tracked.disconnected.set()


async def wait_for_jobs(request: Request, accepted: AcceptedRequest, seconds: float) -> None:
    """Wait until the jobs have ended, the time is over, or the client disconnects."""
    await wait_unless_disconnected(
        request, _wait_for_existing(request.app.state.job_watcher, accepted.job_ids, seconds)
    )


async def _wait(job_watcher: JobWatcher, watches: list[Watch], accepted: AcceptedRequest, seconds: float) -> None:
    if accepted.replayed:
        await _wait_for_existing(job_watcher, accepted.job_ids, seconds)
    else:
        await job_watcher.wait_final(watches, seconds)


async def _wait_for_existing(job_watcher: JobWatcher, job_ids: list[UUID], seconds: float) -> None:
    """Wait for jobs of an earlier request, which may have ended already."""
    with job_watcher.watch_jobs(job_ids) as watches:
        await sync_watches(watches)
        await job_watcher.wait_final(watches, seconds)


async def sync_watches(watches: list[Watch]) -> list[JobView]:
    """Read the rows of watched jobs once, so that the watches know changes from before they began."""
    views = await read_views([watch.job_id for watch in watches])
    for watch, view in zip(watches, views, strict=True):
        watch.update(view.job.state, view.job.event_seq)
    return views


async def read_views(job_ids: list[UUID]) -> list[JobView]:
    """Return the jobs of a request as they are now. Requests that end together share one read."""
    return await _reads.add(asyncio.get_running_loop(), job_ids)


def _read_together(requests: list[list[UUID]]) -> list[list[JobView] | Left]:
    views = {view.job.id: view for view in read_job_views(list({job_id for ids in requests for job_id in ids}))}
    return [[views[job_id] for job_id in sorted(set(ids)) if job_id in views] for ids in requests]


@retry_for_a_caller
def read_job_views(job_ids: list[UUID]) -> list[JobView]:
    """Return the jobs of a request as they are now."""
    with transaction(plan_once=True) as tx:
        return queries.group_views(tx, job_ids)


_reads: KeyedBatches[asyncio.AbstractEventLoop, list[UUID], list[JobView]] = KeyedBatches(
    _read_together, alone=read_job_views, is_fatal=is_database_away
)


async def _respond(
    request: Request,
    accepted: AcceptedRequest,
    preference: Preference,
    build_body: _Build,
    build_extra_fields: BuildExtraFields,
    *,
    keyed: bool,
) -> Response:
    views = await read_views(accepted.job_ids)
    base = base_url(request)
    unfinished = any(view.job.finished_at is None for view in views)
    deferred = preference.respond_async and (unfinished or preference.wait_seconds == 0)
    headers = job_headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return accepted_response(views, base, headers, build_extra_fields(views))
    if unfinished and request.app.state.job_watcher.stopping:
        return error_response(restart_error(request, views, base, keyed=keyed), headers=headers)
    if unfinished:
        return error_response(wait_error(request, views, base, preference, keyed=keyed), headers=headers)
    stored = sum(len(view.files) for view in views)
    if stored == 0:
        error, status = group_error(views)
        mark_failed(request)
        return error_response(error, headers=headers, status=status)
    if stored < accepted.n:
        headers["X-Partial-Results"] = f"{stored}/{accepted.n}"
    return json_response(await build_body(views, base), headers=headers)


def job_headers(accepted: AcceptedRequest, applied: str | None) -> dict[str, str]:
    """Return the headers of an answer for accepted jobs."""
    headers = {"Vary": "Prefer"}
    if applied:
        headers["Preference-Applied"] = applied
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


def wait_error(
    request: Request, views: list[JobView], base: str, preference: Preference, *, keyed: bool
) -> DreameryError:
    """Return the error of a wait that is over.

    A wait that ended early, because the client would have disconnected, invites the client to send the request again:
    the repeat joins the jobs. After our own limit the client must not repeat it.
    """
    if not preference.ends_early or not (keyed or get_settings().deduplicate_requests):
        return timeout_error(views, base)
    mark_unanswered(request)
    request.state.repeat_joins = True
    message = (
        f"The generation did not finish within the timeout of this client; it continues. Send the same request again "
        f"to wait for it (no second job is created), or get the result from {_addresses(views, base)}."
    )
    return DreameryError("generation_timeout", message, retry_after=_seconds_to_repeat(request, views, preference))


def _seconds_to_repeat(request: Request, views: list[JobView], preference: Preference) -> int:
    """Return the pause before the repeat. SDKs repeat twice by default, so the last repeat waits for the likely end."""
    if tracked_request(request).retries == 0:
        return 1
    eta = estimate_group_eta(views)
    return max(round((eta.p50 or 0) - preference.wait_seconds), 1)


def _addresses(views: list[JobView], base: str) -> str:
    return " and ".join(f"{base}/v1/jobs/{public_id('job', view.job.id)}" for view in views)


def timeout_error(views: list[JobView], base: str) -> DreameryError:
    """Return the error of a wait that timed out, with the addresses of the jobs."""
    where = _addresses(views, base)
    message = (
        f"The generation did not finish in time; it continues. Get the result from {where} "
        "and do not repeat the request."
    )
    return DreameryError("generation_timeout", message, retry_after=estimate_group_eta(views).retry_after)


def restart_error(request: Request, views: list[JobView], base: str, *, keyed: bool = False) -> DreameryError:
    """Return the error of a wait that ends because this process stops; the same request joins the jobs again."""
    mark_unanswered(request)
    request.state.repeat_joins = keyed or get_settings().deduplicate_requests
    return restart_notice(views, base)


def restart_notice(views: list[JobView], base: str) -> DreameryError:
    """Return the error for clients that wait when this process stops."""
    where = _addresses(views, base)
    message = (
        f"This server restarts; the generation continues. Send the same request again, or get the result from {where}."
    )
    return DreameryError("restarting", message, retry_after=1)


def accepted_response(
    views: list[JobView], base: str, headers: dict[str, str], more: Mapping[str, Any] = MappingProxyType({})
) -> Response:
    """Return the 202 of an asynchronous request: its first job, and all jobs when there are several."""
    objects = [job_object(view, base) for view in views]
    body = {**objects[0], **({"jobs": objects} if len(objects) > 1 else {}), **more}
    location = f"/v1/jobs/{objects[0]['id']}"
    where = {"Location": location, "Retry-After": str(estimate_group_eta(views).retry_after)}
    return json_response(body, status=202, headers={**headers, **where})

"""The one way from a planned request to its answer: accept, wait, then 200, 202, 504 or what the jobs failed with.

Every creating route goes through `create` (it waits) or `start` (it does not, for streams and asynchronous objects).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.generation.acceptance import Accepted, Planned, accept
from api.http.errors import error_response
from api.http.preferences import Preference, name_job, read_timeout
from api.http.request_tracker import Attendance, Visit
from api.http.responses import base_url, json_response
from api.jobs.eta import forecast_all
from api.jobs.serialization import failure_of, job_object
from api.jobs.watcher import Hub, Watch
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import retry_when_database_away, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

KeyHeader = Annotated[str | None, Header(alias="idempotency-key", description="same key, same body: the same jobs")]

# What nginx logs for a client that hung up; nobody reads it.
HUNG_UP = 499

# The body of a 200 from ended jobs that gave at least one result, and the base of links. Runs in a thread.
BodyOf = Callable[[list[JobView], str], dict[str, Any]]
# Further keys of a 202, from the jobs.
MoreOf = Callable[[list[JobView]], dict[str, Any]]


async def create(
    request: Request,
    planned: Planned,
    *,
    caller: Caller,
    preference: Preference,
    key: str | None,
    body_of: BodyOf,
    more_of: MoreOf = lambda _: {},
) -> Response:
    """Accept the jobs, wait as the caller prefers, and answer."""
    hub: Hub = request.app.state.hub
    # Watched before the rows exist, so that no end can fall between the commit and the wait.
    with hub.watching([job.id for job in planned.jobs]) as watches:
        accepted = await start(request, planned, caller=caller, key=key, answers_late=True)
        if not await stays(request, _wait(hub, watches, accepted, preference.wait_seconds)):
            return Response(status_code=HUNG_UP)
    return await _answer(request, accepted, preference, body_of, more_of, keyed=key is not None)


def visit_of(request: Request) -> Visit:
    """What is known of this HTTP request itself. It ends by itself when the answer does, see `api/app.py`."""
    attendance: Attendance = request.app.state.attendance
    return attendance.visit(request)


async def start(
    request: Request, planned: Planned, *, caller: Caller, key: str | None, answers_late: bool = False
) -> Accepted:
    """Accept the jobs, or join those of the request that this one repeats; from here on errors forbid a repeat.

    Nothing needs to be closed. `answers_late` = the answer comes when the jobs have ended, so the client may give up
    before: then wait within `stays`. A stream that ends while its jobs go on calls `note_unanswered` first.
    """
    visit = visit_of(request)
    if answers_late:
        visit.gives_up_in = read_timeout(request)
    async with _listening(request, visit):
        accepted = await accept(planned, caller=caller, key=key, visit=visit)
    name_job(request, public_id("job", accepted.job_ids[0]), accepted=True)
    if accepted.warnings:
        request.state.budget_warnings = accepted.warnings
    return accepted


async def stays(request: Request, waiting: Coroutine[Any, Any, object]) -> bool:
    """Wait for the end; False at once when the client hangs up, so that its repeat finds its request over."""
    task = asyncio.ensure_future(waiting)
    async with _listening(request, visit_of(request)) as hung_up:
        try:
            await asyncio.wait({task, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    if task.cancelled():
        return False
    task.result()
    return True


def note_unanswered(request: Request) -> None:
    """The jobs go on and the answer has said so: the same request again is a repeat."""
    visit_of(request).out_of_time = True


@contextlib.asynccontextmanager
async def _listening(request: Request, visit: Visit) -> AsyncIterator["asyncio.Task[None]"]:
    """Meanwhile the client may hang up: then `visit.gone` is set and the task is done. It sleeps until then."""
    task = asyncio.create_task(_listen(request, visit))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _listen(request: Request, visit: Visit) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    visit.gone.set()


async def wait_accepted(request: Request, accepted: Accepted, seconds: float) -> None:
    """Wait until the jobs have ended, the time is over, or the client has hung up."""
    await stays(request, _wait_known(request.app.state.hub, accepted.job_ids, seconds))


async def _wait(hub: Hub, watches: list[Watch], accepted: Accepted, seconds: float) -> None:
    if accepted.replayed:
        await _wait_known(hub, accepted.job_ids, seconds)
    else:
        await hub.wait_final(watches, seconds)


async def _wait_known(hub: Hub, job_ids: list[UUID], seconds: float) -> None:
    """Wait for jobs of an earlier request, which may have ended long ago."""
    with hub.watching(job_ids) as watches:
        await catch_up(watches)
        await hub.wait_final(watches, seconds)


async def catch_up(watches: list[Watch]) -> list[JobView]:
    """Read the rows of watched jobs once: what happened before the watch began is told to it."""
    views = await run_in_threadpool(views_of, [watch.job_id for watch in watches])
    for watch, view in zip(watches, views, strict=True):
        watch.tell(view.job.state, view.job.event_seq)
    return views


@retry_when_database_away
def views_of(job_ids: list[UUID]) -> list[JobView]:
    """The jobs of a request as they are now."""
    with transaction() as tx:
        return queries.group_views(tx, job_ids)


async def _answer(
    request: Request, accepted: Accepted, preference: Preference, body_of: BodyOf, more_of: MoreOf, *, keyed: bool
) -> Response:
    views = await run_in_threadpool(views_of, accepted.job_ids)
    base = base_url(request)
    unfinished = any(view.job.finished_at is None for view in views)
    deferred = preference.respond_async and (unfinished or preference.wait_seconds == 0)
    headers = answer_headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return job_answer(views, base, headers, more_of(views))
    if unfinished and request.app.state.hub.stopping:
        return error_response(restarting(request, views, base, keyed=keyed), headers=headers)
    if unfinished:
        return error_response(out_of_time(views, base), headers=headers)
    stored = sum(len(view.files) for view in views)
    if stored == 0:
        error, status = failure_of(views)
        return error_response(error, headers=headers, status=status)
    if stored < accepted.n:
        headers["X-Partial-Results"] = f"{stored}/{accepted.n}"
    return json_response(await run_in_threadpool(body_of, views, base), headers=headers)


def answer_headers(accepted: Accepted, applied: str | None) -> dict[str, str]:
    """Headers of an answer that belongs to accepted jobs."""
    headers = {"Vary": "Prefer"}
    if applied:
        headers["Preference-Applied"] = applied
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


def out_of_time(views: list[JobView], base: str) -> DreameryError:
    """The wait is over and the jobs go on: where they are."""
    where = " and ".join(f"{base}/v1/jobs/{public_id('job', view.job.id)}" for view in views)
    message = (
        f"The generation did not finish in time; it goes on. Get the result from {where} and do not repeat the request."
    )
    return DreameryError("generation_timeout", message, retry_after=forecast_all(views).retry_after)


def restarting(request: Request, views: list[JobView], base: str, *, keyed: bool = False) -> DreameryError:
    """This process ends while the jobs go on: come back, the same request joins them, if such requests do."""
    note_unanswered(request)
    request.state.repeat_joins = keyed or get_settings().join_repeats
    return told_to_come_back(views, base)


def told_to_come_back(views: list[JobView], base: str) -> DreameryError:
    """What whoever waits is told when this process ends."""
    where = " and ".join(f"{base}/v1/jobs/{public_id('job', view.job.id)}" for view in views)
    message = (
        f"This server restarts; the generation goes on. Send the same request again, or get the result from {where}."
    )
    return DreameryError("restarting", message, retry_after=1)


def job_answer(
    views: list[JobView], base: str, headers: dict[str, str], more: Mapping[str, Any] = MappingProxyType({})
) -> Response:
    """The 202 of an asynchronous request: its job, and all of them when there are several; `more` = further keys."""
    objects = [job_object(view, base) for view in views]
    body = {**objects[0], **({"jobs": objects} if len(objects) > 1 else {}), **more}
    location = f"/v1/jobs/{objects[0]['id']}"
    where = {"Location": location, "Retry-After": str(forecast_all(views).retry_after)}
    return json_response(body, status=202, headers={**headers, **where})

"""The one way from a planned request to its answer: accept, wait, then 200, 202, 504 or what the jobs failed with.

Every creating route goes through `create` (it waits) or `start` (it does not, for streams and asynchronous objects).
"""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.deps import Caller, Preference, name_job
from api.errors import error_response
from api.hub import Hub, Watch
from api.intake.accepting import Accepted, Planned, accept
from api.render import base_url, failure_of, job_object, json_response
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db import reports
from worker.db.engine import retry_when_database_away, transaction
from worker.db.reports import JobView

KeyHeader = Annotated[str | None, Header(alias="idempotency-key", description="same key, same body: the same jobs")]

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
        accepted = await start(request, planned, caller=caller, key=key)
        if not accepted.replayed:
            await hub.wait_final(watches, preference.wait_seconds)
    if accepted.replayed:
        await _wait_known(hub, accepted.job_ids, preference.wait_seconds)
    return await _answer(request, accepted, preference, body_of, more_of)


async def start(request: Request, planned: Planned, *, caller: Caller, key: str | None) -> Accepted:
    """Accept the jobs, or join those of an earlier request; from here on errors tell SDKs not to repeat."""
    accepted = await accept(planned, caller=caller, key=key)
    name_job(request, public_id("job", accepted.job_ids[0]), accepted=True)
    return accepted


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
        return reports.group_views(tx, job_ids)


async def _answer(
    request: Request, accepted: Accepted, preference: Preference, body_of: BodyOf, more_of: MoreOf
) -> Response:
    views = await run_in_threadpool(views_of, accepted.job_ids)
    base = base_url(request)
    unfinished = any(view.job.finished_at is None for view in views)
    deferred = preference.respond_async and (unfinished or preference.wait_seconds == 0)
    headers = answer_headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return _job_answer(views, base, headers, more_of(views))
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
    return DreameryError("generation_timeout", message)


def _job_answer(views: list[JobView], base: str, headers: dict[str, str], more: dict[str, Any]) -> Response:
    objects = [job_object(view, base) for view in views]
    body = {**objects[0], **({"jobs": objects} if len(objects) > 1 else {}), **more}
    location = f"/v1/jobs/{objects[0]['id']}"
    return json_response(body, status=202, headers={**headers, "Location": location, "Retry-After": "2"})

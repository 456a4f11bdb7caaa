"""Pictures from text: `POST /v1/images/generations`, OpenAI's shape."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.deps import CallerDep, Preference, PreferenceDep, clean_idempotency_key
from api.errors import error_response
from api.hub import Hub
from api.intake import Accepted, accept, fingerprint, plan_image_jobs
from api.render import base_url, failure_of, image_answer, job_object, json_response
from api.schemas import ImageGenerationRequest
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db import reports
from worker.db.engine import transaction
from worker.db.reports import JobView

router = APIRouter(tags=["images"])

# Sent on every error after a job was accepted: SDKs repeat 5xx and 429 by themselves, and a repeat would be paid again.
_NO_RETRY = {"x-should-retry": "false"}


@router.post("/v1/images/generations", summary="Make pictures from text")
async def create_images(
    request: Request,
    body: ImageGenerationRequest,
    caller: CallerDep,
    preference: PreferenceDep,
    idempotency_key: Annotated[str | None, Header(description="same key, same body: the same jobs")] = None,
) -> Response:
    """Draws `n` pictures and answers when they are stored; links in the answer point to this server and keep working.

    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once; `Prefer: wait=N` waits at most N
    seconds. A wait that runs out answers 504 with `X-Job-Id`; the job goes on.
    """
    if body.run_async:
        preference = Preference(respond_async=True, wait_seconds=0.0, applied=preference.applied)
    planned, n = plan_image_jobs(body, caller)
    hub: Hub = request.app.state.hub
    key = clean_idempotency_key(idempotency_key)
    # Watched before the rows exist, so that no end can fall between the commit and the wait.
    with hub.watching([job.id for job in planned]) as watches:
        accepted = await accept(planned, n, caller=caller, key=key, print_=fingerprint("/v1/images/generations", body))
        if not accepted.replayed:
            if preference.wait_seconds > 0:
                await hub.wait_final(watches, preference.wait_seconds)
            return await _answer(request, accepted, body, preference)
    with hub.watching(accepted.job_ids) as watches:
        for view in await run_in_threadpool(_views, accepted.job_ids):
            next(w for w in watches if w.job_id == view.job.id).tell(view.job.state, view.job.event_seq)
        if preference.wait_seconds > 0:
            await hub.wait_final(watches, preference.wait_seconds)
    return await _answer(request, accepted, body, preference)


def _views(job_ids: list[UUID]) -> list[JobView]:
    with transaction() as tx:
        return reports.group_views(tx, job_ids)


async def _answer(
    request: Request, accepted: Accepted, body: ImageGenerationRequest, preference: Preference
) -> Response:
    views = await run_in_threadpool(_views, accepted.job_ids)
    base = base_url(request)
    job_id = public_id("job", accepted.job_ids[0])
    headers = {"X-Job-Id": job_id, "Vary": "Prefer"}
    if preference.applied:
        headers["Preference-Applied"] = preference.applied
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    unfinished = [view for view in views if view.job.finished_at is None]
    if unfinished or (preference.respond_async and preference.wait_seconds == 0):
        if preference.respond_async:
            return _job_answer(views, base, headers)
        message = (
            f"The generation did not finish in time; it goes on. Get the result from {base}/v1/jobs/{job_id} and do "
            "not repeat the request."
        )
        return error_response(DreameryError("generation_timeout", message), headers={**headers, **_NO_RETRY})
    stored = sum(len(view.files) for view in views)
    if stored == 0:
        error, status = failure_of(views)
        return error_response(error, headers={**headers, **_NO_RETRY}, status=status)
    if stored < accepted.n:
        headers["X-Partial-Results"] = f"{stored}/{accepted.n}"
    answer = await run_in_threadpool(image_answer, views, n=accepted.n, response_format=body.response_format, base=base)
    return json_response(answer, headers=headers)


def _job_answer(views: list[JobView], base: str, headers: dict[str, str]) -> Response:
    objects = [job_object(view, base) for view in views]
    body = {**objects[0], **({"jobs": objects} if len(objects) > 1 else {})}
    location = f"/v1/jobs/{objects[0]['id']}"
    return json_response(body, status=202, headers={**headers, "Location": location, "Retry-After": "2"})

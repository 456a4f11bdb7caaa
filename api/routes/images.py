"""Pictures from text and pictures: `POST /v1/images/generations`, `compositions` and `edits`, OpenAI's shape."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from api.deps import Caller, CallerDep, Preference, PreferenceDep, clean_idempotency_key, name_job
from api.errors import error_response, error_responses
from api.hub import Hub
from api.intake import Accepted, accept, fingerprint, plan_image_jobs, with_pictures
from api.render import base_url, failure_of, image_answer, job_object, json_response
from api.schemas import AcceptedJob, ImageGenerationRequest, ImagesAnswer
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db import reports
from worker.db.engine import retry_when_database_away, transaction
from worker.db.reports import JobView

router = APIRouter(tags=["images"])
# Whose bodies may hold pictures.
PICTURE_PATHS = frozenset({"/v1/images/generations", "/v1/images/compositions", "/v1/images/edits"})


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": ImagesAnswer, "description": "The pictures."},
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
}
KeyHeader = Annotated[str | None, Header(alias="idempotency-key", description="same key, same body: the same jobs")]

# OpenAI's own models of these names know no links, and their clients read none (openai-compat rule 12).
_ANSWER_BYTES = ("gpt-image-", "chatgpt-image-")


@router.post(
    "/v1/images/generations", summary="Make pictures from text, or from text and pictures", responses=_RESPONSES
)
async def create_images(
    request: Request,
    body: ImageGenerationRequest,
    caller: CallerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Draws `n` pictures and answers when they are stored; links in the answer point to this server and keep working.

    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once; `Prefer: wait=N` waits at most N
    seconds. A wait that runs out answers 504 with `X-Job-Id`; the job goes on.
    """
    return await _create(request, body, caller, preference, idempotency_key, from_pictures=False)


@router.post("/v1/images/compositions", summary="Make pictures from pictures", responses=_RESPONSES)
@router.post("/v1/images/edits", summary="Make pictures from pictures (OpenAI's path)", responses=_RESPONSES)
async def create_images_from_pictures(
    request: Request,
    body: ImageGenerationRequest,
    caller: CallerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """The same as `/v1/images/generations`, but `image` or `images` must be there."""
    return await _create(request, body, caller, preference, idempotency_key, from_pictures=True)


async def _create(
    request: Request,
    body: ImageGenerationRequest,
    caller: Caller,
    preference: Preference,
    idempotency_key: str | None,
    *,
    from_pictures: bool,
) -> Response:
    preference = preference.with_async(wanted=body.run_async)
    key = clean_idempotency_key(idempotency_key)
    planned, n = plan_image_jobs(body, caller)
    planned, given = await with_pictures(planned, body, required=from_pictures)
    print_ = fingerprint(request.url.path, body, planned)
    hub: Hub = request.app.state.hub
    # Watched before the rows exist, so that no end can fall between the commit and the wait.
    with hub.watching([job.id for job in planned]) as watches:
        accepted = await accept(planned, n, caller=caller, key=key, print_=print_, given=given)
        name_job(request, public_id("job", accepted.job_ids[0]), accepted=True)
        if not accepted.replayed:
            await hub.wait_final(watches, preference.wait_seconds)
    if accepted.replayed:
        await _wait_known(hub, accepted.job_ids, preference.wait_seconds)
    return await _answer(request, accepted, body, preference)


async def _wait_known(hub: Hub, job_ids: list[UUID], seconds: float) -> None:
    """Wait for jobs of an earlier request, which may have ended long ago."""
    with hub.watching(job_ids) as watches:
        for watch, view in zip(watches, await run_in_threadpool(_views, job_ids), strict=True):
            watch.tell(view.job.state, view.job.event_seq)
        await hub.wait_final(watches, seconds)


@retry_when_database_away
def _views(job_ids: list[UUID]) -> list[JobView]:
    with transaction() as tx:
        return reports.group_views(tx, job_ids)


async def _answer(
    request: Request, accepted: Accepted, body: ImageGenerationRequest, preference: Preference
) -> Response:
    views = await run_in_threadpool(_views, accepted.job_ids)
    base = base_url(request)
    unfinished = any(view.job.finished_at is None for view in views)
    deferred = preference.respond_async and (unfinished or preference.wait_seconds == 0)
    headers = _headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return _job_answer(views, base, headers)
    if unfinished:
        return error_response(_out_of_time(views, base), headers=headers)
    stored = sum(len(view.files) for view in views)
    if stored == 0:
        error, status = failure_of(views)
        return error_response(error, headers=headers, status=status)
    if stored < accepted.n:
        headers["X-Partial-Results"] = f"{stored}/{accepted.n}"
    answer = await run_in_threadpool(image_answer, views, n=accepted.n, response_format=_form(body), base=base)
    return json_response(answer, headers=headers)


def _form(body: ImageGenerationRequest) -> str:
    """Bytes or links: what was asked for, else what clients of the asked model's name expect of OpenAI."""
    by_name = "b64_json" if (body.model or "").startswith(_ANSWER_BYTES) else "url"
    return body.response_format or by_name


def _headers(accepted: Accepted, applied: str | None) -> dict[str, str]:
    headers = {"Vary": "Prefer"}
    if applied:
        headers["Preference-Applied"] = applied
    if accepted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return headers


def _out_of_time(views: list[JobView], base: str) -> DreameryError:
    where = " and ".join(f"{base}/v1/jobs/{public_id('job', view.job.id)}" for view in views)
    message = (
        f"The generation did not finish in time; it goes on. Get the result from {where} and do not repeat the request."
    )
    return DreameryError("generation_timeout", message)


def _job_answer(views: list[JobView], base: str, headers: dict[str, str]) -> Response:
    objects = [job_object(view, base) for view in views]
    body = {**objects[0], **({"jobs": objects} if len(objects) > 1 else {})}
    location = f"/v1/jobs/{objects[0]['id']}"
    return json_response(body, status=202, headers={**headers, "Location": location, "Retry-After": "2"})

"""Pictures from text and pictures: `POST /v1/images/generations`, `compositions` and `edits`, OpenAI's shape."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.creation import KeyHeader, create
from api.deps import Caller, MakerDep, Preference, PreferenceDep, clean_idempotency_key
from api.errors import error_responses
from api.forms import body_docs, read_body
from api.intake.images import plan_images
from api.render import image_answer
from api.schemas import AcceptedJob, ImageGenerationRequest, ImagesAnswer
from worker.db.reports import JobView

router = APIRouter(tags=["images"])

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": ImagesAnswer, "description": "The pictures."},
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
}
_BODY = body_docs(ImageGenerationRequest)

# OpenAI's own models of these names know no links, and their clients read none (openai-compat rule 12).
_ANSWER_BYTES = ("gpt-image-", "chatgpt-image-")


@router.post(
    "/v1/images/generations",
    summary="Make pictures from text, or from text and pictures",
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def create_images(
    request: Request,
    caller: MakerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Draws `n` pictures and answers when they are stored; links in the answer point to this server and keep working.

    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once; `Prefer: wait=N` waits at most N
    seconds. A wait that runs out answers 504 with `X-Job-Id`; the job goes on.
    """
    return await _create(request, caller, preference, idempotency_key, from_pictures=False)


@router.post(
    "/v1/images/compositions", summary="Make pictures from pictures", responses=_RESPONSES, openapi_extra=_BODY
)
@router.post(
    "/v1/images/edits",
    summary="Make pictures from pictures (OpenAI's path)",
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def create_images_from_pictures(
    request: Request,
    caller: MakerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """The same as `/v1/images/generations`, but `image` or `images` must be there."""
    return await _create(request, caller, preference, idempotency_key, from_pictures=True)


async def _create(
    request: Request,
    caller: Caller,
    preference: Preference,
    idempotency_key: str | None,
    *,
    from_pictures: bool,
) -> Response:
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, ImageGenerationRequest)
    planned = await plan_images(request.url.path, body, caller, required=from_pictures)
    preference = preference.with_async(wanted=body.run_async)

    def body_of(views: list[JobView], base: str) -> dict[str, Any]:
        return image_answer(views, n=planned.n, response_format=_form(body), base=base)

    return await create(request, planned, caller=caller, preference=preference, key=key, body_of=body_of)


def _form(body: ImageGenerationRequest) -> str:
    """Bytes or links: what was asked for, else what clients of the asked model's name expect of OpenAI."""
    by_name = "b64_json" if (body.model or "").startswith(_ANSWER_BYTES) else "url"
    return body.response_format or by_name

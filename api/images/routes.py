"""`POST /v1/images/generations`, `compositions` and `edits` in OpenAI's format."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.generation.acceptance import GenerationPlan
from api.generation.response import IdempotencyKeyHeader, accept_jobs, create_and_respond, job_headers
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.preferences import Preference, PreferenceDep, parse_idempotency_key
from api.http.sse import event_stream_response, sse_openapi
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest, ImagesAnswer
from api.images.serialization import images_response
from api.images.streaming import EventFields, image_events
from api.jobs.schemas import AcceptedJob
from worker.db.jobs.queries import JobView

router = APIRouter(tags=["images"])

_EVENT = (
    'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"...",'
    '"background":"auto","created_at":1763000000,"output_format":"jpeg","quality":"auto","size":"2048x2048","usage":{...}}\n\n'
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ImagesAnswer,
        "description": "The images; with `stream: true` events, each with one image.",
        "content": sse_openapi(_EVENT),
    },
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
}
_BODY = body_openapi(ImageGenerationRequest)
_EDIT_BODY = body_openapi(
    ImageGenerationRequest,
    example={"prompt": "the same boat at night", "image": "https://example.org/boat.png", "n": 1},
)

# OpenAI's models with these names return no links, and their clients read none (openai-compat rule 12).
_BASE64_MODELS = ("gpt-image-", "chatgpt-image-")
_ECHOED_QUALITIES = ("low", "medium", "high", "xhigh", "max")


@router.post(
    "/v1/images/generations",
    summary="Generate images from text, or from text and images",
    responses=_RESPONSES,
    openapi_extra=_BODY,
)
async def create_images(
    request: Request,
    caller: GenerateDep,
    preference: PreferenceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Generates `n` images and answers when they are stored. Links in the answer point to this server and stay valid.

    `Prefer: respond-async` (or `"async": true`) answers 202 with the job at once; `Prefer: wait=N` waits at most N
    seconds. A wait that times out answers 504 with `X-Job-Id`; the job continues. When some images failed, the answer
    has the others and the header `X-Partial-Results: 3/4`.

    `"stream": true` answers with server-sent events: `image_generation.completed` for each image as soon as it is
    stored, always with `b64_json`; `error` only when there is no image.
    """
    return await _create(request, caller, preference, idempotency_key, from_images=False)


@router.post(
    "/v1/images/compositions",
    summary="Generate images from images",
    responses=_RESPONSES,
    openapi_extra=_EDIT_BODY,
)
@router.post(
    "/v1/images/edits",
    summary="Generate images from images (OpenAI's path)",
    responses=_RESPONSES,
    openapi_extra=_EDIT_BODY,
)
async def create_images_from_pictures(
    request: Request,
    caller: GenerateDep,
    preference: PreferenceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Like `/v1/images/generations`, but `image` or `images` is required.

    Send JSON, or a form with one file `image` or several `image[]`. Events of a stream are named `image_edit...`.
    """
    return await _create(request, caller, preference, idempotency_key, from_images=True)


@dataclass(frozen=True, slots=True)
class _ResponseOptions:
    """Fields of the request that its answer needs. The body, with up to 100 MB of images, is freed before the wait."""

    response_format: str
    quality: str | None
    background: str | None
    stream: bool
    run_async: bool

    @classmethod
    def of(cls, body: ImageGenerationRequest) -> "_ResponseOptions":
        """Read the options from the body."""
        default_format = "b64_json" if (body.model or "").startswith(_BASE64_MODELS) else "url"
        return cls(
            response_format=body.response_format or default_format,
            quality=body.quality,
            background=body.background,
            stream=bool(body.stream),
            run_async=bool(body.run_async),
        )

    def echoed_fields(self) -> dict[str, str]:
        """Return fields that the answer repeats. Strict clients reject values such as `auto` and `hd` in answers."""
        quality = {"quality": self.quality} if self.quality in _ECHOED_QUALITIES else {}
        return {**quality, **({"background": "opaque"} if self.background == "opaque" else {})}

    def event_fields(self, kind: str) -> EventFields:
        """Return the fields of stream events, where `auto` is a valid value."""
        return EventFields(
            kind=kind,
            quality=self.quality if self.quality in _ECHOED_QUALITIES else "auto",
            background="opaque" if self.background == "opaque" else "auto",
        )


async def _plan(request: Request, caller: Caller, *, from_images: bool) -> tuple[GenerationPlan, _ResponseOptions]:
    try:
        body = await parse_body(request, ImageGenerationRequest)
        plan = await plan_images(request.url.path, body, caller, required=from_images)
        return plan, _ResponseOptions.of(body)
    finally:
        # Closes the temporary files of uploads.
        await request.close()


async def _create(
    request: Request,
    caller: Caller,
    preference: Preference,
    idempotency_key: str | None,
    *,
    from_images: bool,
) -> Response:
    key = parse_idempotency_key(idempotency_key)
    plan, options = await _plan(request, caller, from_images=from_images)
    preference = preference.with_async(enabled=options.run_async)
    if options.stream and not preference.respond_async:
        kind = "image_edit" if from_images else "image_generation"
        accepted = await accept_jobs(request, plan, caller=caller, key=key)
        events = image_events(request.app.state.job_watcher, accepted, options.event_fields(kind), request)
        return event_stream_response(events, job_headers(accepted, None))

    def build_body(views: list[JobView], base: str) -> dict[str, Any]:
        return images_response(
            views, n=plan.n, response_format=options.response_format, base=base, echoed_fields=options.echoed_fields()
        )

    return await create_and_respond(
        request,
        plan,
        caller=caller,
        preference=preference,
        key=key,
        build_body=build_body,
        reads_files=options.response_format == "b64_json",
    )

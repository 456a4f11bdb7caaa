"""`POST /api/v3/images/generations` in the vendor's format."""

from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.generation.acceptance import GenerationPlan
from api.generation.response import IdempotencyKeyHeader, accept_jobs, create_and_respond, job_headers
from api.http.body_parsing import body_openapi, parse_body, validate_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, parse_idempotency_key
from api.http.responses import base_url
from api.http.sse import event_stream_response, sse_openapi
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.images.streaming import image_events
from api.protocols.ark.schemas import ArkImageRequest, ArkImages
from api.protocols.ark.serialization import images_object
from api.protocols.ark.streaming import ArkFrames
from api.protocols.ark.translation import image_fields, sent_names
from worker.db.jobs.queries import JobView

router = APIRouter(prefix="/api/v3", tags=["ark"])

PATH = "/images/generations"
_EVENT = (
    'event: image_generation.partial_succeeded\ndata: {"type":"image_generation.partial_succeeded","model":"...",'
    '"created":1763000000,"image_index":0,"url":"...","size":"2048x2048"}\n\n'
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ArkImages,
        "description": "The images; with `stream: true` events, each with one image.",
        "content": sse_openapi(_EVENT),
    },
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
}


@dataclass(frozen=True, slots=True)
class _ResponseOptions:
    """Fields of the request that its answer needs. The body is freed before the wait."""

    model: str
    response_format: str
    stream: bool


@router.post(
    PATH,
    summary="Generate images (Ark's format)",
    responses=_RESPONSES,
    openapi_extra=body_openapi(ArkImageRequest, form=False),
)
async def create_images(
    request: Request, caller: GenerateDep, preference: PreferenceDep, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """Generates images with any account that has the model; errors have the vendor's shape too.

    Results never have a watermark. A repeated identical call whose answer was lost joins the job of the first one.
    """
    key = parse_idempotency_key(idempotency_key)
    plan, options = await _plan(request, caller)
    if options.stream:
        accepted = await accept_jobs(request, plan, caller=caller, key=key)
        frames = ArkFrames(
            options.model, options.response_format, base_url(request), getattr(request.state, "request_id", "")
        )
        events = image_events(request.app.state.job_watcher, accepted, frames, request)
        return event_stream_response(events, job_headers(accepted, None))

    def build_body(views: list[JobView], base: str) -> dict[str, Any]:
        return images_object(views, n=plan.n, response_format=options.response_format, base=base)

    return await create_and_respond(
        request,
        plan,
        caller=caller,
        preference=preference,
        key=key,
        build_body=build_body,
        reads_files=options.response_format == "b64_json",
    )


async def _plan(request: Request, caller: Caller) -> tuple[GenerationPlan, _ResponseOptions]:
    try:
        body = await parse_body(request, ArkImageRequest)
        fields = image_fields(body)
        # Errors name a field as the vendor's clients know it.
        request.state.sent_names = sent_names(of_image=True)
        ours = validate_body(fields, ImageGenerationRequest)
        plan = await plan_images(request.url.path, ours, caller, required=False)
    finally:
        await request.close()
    if body.watermark:
        jobs = [replace(job, params=_with_watermark(job.params)) for job in plan.jobs]
        plan = replace(plan, jobs=jobs)
    options = _ResponseOptions(body.model, body.response_format or "url", bool(body.stream))
    return plan, options


def _with_watermark(params: dict[str, Any]) -> dict[str, Any]:
    return {**params, "adjusted": {**params.get("adjusted", {}), "watermark": "true"}}

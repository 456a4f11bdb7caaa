"""Pictures from text and pictures: `POST /v1/images/generations`, `compositions` and `edits`, OpenAI's shape."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.auth.dependencies import Caller, MakerDep
from api.generation.acceptance import Planned
from api.generation.response import KeyHeader, answer_headers, create, note_unanswered, start
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.preferences import Preference, PreferenceDep, clean_idempotency_key
from api.http.sse import SSE_HEADERS, stream_docs
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest, ImagesAnswer
from api.images.serialization import image_answer
from api.images.streaming import Told, picture_events
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
        "description": "The pictures; with `stream: true` events, each with one picture.",
        "content": stream_docs(_EVENT),
    },
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 504),
}
_BODY = body_docs(ImageGenerationRequest)
_EDIT_BODY = body_docs(
    ImageGenerationRequest,
    example={"prompt": "the same boat at night", "image": "https://example.org/boat.png", "n": 1},
)

# OpenAI's own models of these names know no links, and their clients read none (openai-compat rule 12).
_ANSWER_BYTES = ("gpt-image-", "chatgpt-image-")
_TOLD_QUALITY = ("low", "medium", "high", "xhigh", "max")


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
    seconds. A wait that runs out answers 504 with `X-Job-Id`; the job goes on. When some of the pictures could not be
    drawn, the answer holds the others and `X-Partial-Results: 3/4` says so.

    `"stream": true` answers with server-sent events: `image_generation.completed` for each picture as soon as it is
    there, always with `b64_json`; `error` only when there is none.
    """
    return await _create(request, caller, preference, idempotency_key, from_pictures=False)


@router.post(
    "/v1/images/compositions",
    summary="Make pictures from pictures",
    responses=_RESPONSES,
    openapi_extra=_EDIT_BODY,
)
@router.post(
    "/v1/images/edits",
    summary="Make pictures from pictures (OpenAI's path)",
    responses=_RESPONSES,
    openapi_extra=_EDIT_BODY,
)
async def create_images_from_pictures(
    request: Request,
    caller: MakerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """The same as `/v1/images/generations`, but `image` or `images` must be there.

    As JSON, or as a form with one file `image` or several `image[]`. Events of a stream are called `image_edit...`.
    """
    return await _create(request, caller, preference, idempotency_key, from_pictures=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the answer needs of the request. The body itself, with 100 MB of pictures, must not wait for the jobs."""

    form: str
    quality: str | None
    background: str | None
    stream: bool
    run_async: bool

    @classmethod
    def of(cls, body: ImageGenerationRequest) -> "_Asked":
        """Read it from the body."""
        by_name = "b64_json" if (body.model or "").startswith(_ANSWER_BYTES) else "url"
        return cls(
            form=body.response_format or by_name,
            quality=body.quality,
            background=body.background,
            stream=bool(body.stream),
            run_async=bool(body.run_async),
        )

    def echoed(self) -> dict[str, str]:
        """What OpenAI's answer may tell back; of other words (`auto`, `hd`) strict clients know nothing."""
        quality = {"quality": self.quality} if self.quality in _TOLD_QUALITY else {}
        return {**quality, **({"background": "opaque"} if self.background == "opaque" else {})}

    def told(self, kind: str) -> Told:
        """What each event of a stream tells; here `auto` is known."""
        return Told(
            kind=kind,
            quality=self.quality if self.quality in _TOLD_QUALITY else "auto",
            background="opaque" if self.background == "opaque" else "auto",
        )


async def _plan(request: Request, caller: Caller, *, from_pictures: bool) -> tuple[Planned, _Asked]:
    try:
        body = await read_body(request, ImageGenerationRequest)
        planned = await plan_images(request.url.path, body, caller, required=from_pictures)
        return planned, _Asked.of(body)
    finally:
        # Uploads lie in temporary files until they are closed.
        await request.close()


async def _create(
    request: Request,
    caller: Caller,
    preference: Preference,
    idempotency_key: str | None,
    *,
    from_pictures: bool,
) -> Response:
    key = clean_idempotency_key(idempotency_key)
    planned, asked = await _plan(request, caller, from_pictures=from_pictures)
    preference = preference.with_async(wanted=asked.run_async)
    if asked.stream and not preference.respond_async:
        kind = "image_edit" if from_pictures else "image_generation"
        accepted = await start(request, planned, caller=caller, key=key)
        events = picture_events(request.app.state.hub, accepted, asked.told(kind), partial(note_unanswered, request))
        return StreamingResponse(
            events, media_type="text/event-stream", headers={**SSE_HEADERS, **answer_headers(accepted, None)}
        )

    def body_of(views: list[JobView], base: str) -> dict[str, Any]:
        return image_answer(views, n=planned.n, response_format=asked.form, base=base, echoed=asked.echoed())

    return await create(request, planned, caller=caller, preference=preference, key=key, body_of=body_of)

"""Finals of drafts: the same video again, in full quality. Everything but the size comes from the draft."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan, fingerprint
from api.generation.models.fields import unsupported, user_params
from api.generation.request_checks import check_regions
from api.jobs.routes import find_job
from api.videos.schemas import PROMPT_OF_DRAFT, VideoGenerationRequest
from worker.core.catalog.models import VideoModel, get_catalog
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.core.job_state import JobState
from worker.db.engine import Row
from worker.db.jobs.state_machine import NewJob

# What may be sent for a final beside the draft.
_OWN = ("return_last_frame", "output_format", "priority")
_FROM_DRAFT = (
    *("duration", "seconds", "ratio", "aspect_ratio", "size", "width", "height", "seed", "generate_audio", "task_type"),
    *("web_search", "camera_fixed", "fps", "draft", "function_mode", "negative_prompt"),
)


async def plan_final(path: str, body: VideoGenerationRequest, caller: Caller, offer: UpstreamModels) -> GenerationPlan:
    """Return the plan of the final of a draft. Raises the error of a draft that cannot be used, or of other fields."""
    if body.model and "final" not in (asked := offer.choose(get_catalog().video_route(body.model)).model).modes:
        raise unsupported(asked, "draft_of", (one for one in get_catalog().video_models if "final" in one.modes))
    draft = await run_in_threadpool(_find_draft, str(body.draft_of), caller)
    model = _model_of(draft, body)
    check_regions(model, caller, offer)
    _reject_fields(body, model)
    order: dict[str, Any] = draft.params["order"]
    options = {name: value for name in _OWN if (value := getattr(body, name))}
    if body.output_format is None and (kept := order["options"].get("output_format")):
        options["output_format"] = kept
    job = NewJob(
        id=new_id(),
        owner=caller.owner,
        kind="video",
        model=model.id,
        params={
            **{name: draft.params[name] for name in ("flags", "openai_size") if name in draft.params},
            "order": {
                **order,
                "resolution": model.final_resolution,
                "parts": [],
                "options": {"mode": "final", "draft_of": draft.upstream_id, **options},
            },
            "n": 1,
            "asked_model": body.model or model.id,
            "adjusted": {},
            "images": [],
            "draft_of": public_id("job", draft.id),
            **user_params(model, body.user),
        },
        # Upstream knows the draft on the account that made it.
        account_ids=[draft.account_id],
        providers=[model.provider],
        user_id=caller.user_id,
        api_key_id=caller.api_key_id,
        webhook_url=body.webhook or None,
        metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
    )
    fields = body.model_dump(mode="json", exclude={"media_inputs"})
    return GenerationPlan(jobs=[job], n=1, fingerprint=fingerprint(path, fields, []), max_cost=body.max_cost)


def _find_draft(text: str, caller: Caller) -> Row[Any]:
    job_id = parse_public_id("job", text) or parse_public_id("video", text)
    if job_id is None:
        message = "`draft_of` must be the id of a job or video, such as `job_...`."
        raise DreameryError("invalid_value", message, param="draft_of")
    job = find_job(caller, job_id).job
    options = (job.params.get("order") or {}).get("options") or {}
    if job.kind != "video" or options.get("mode") != "draft":
        message = "`draft_of` is not a draft: send `draft` with its request."
        raise DreameryError("invalid_value", message, param="draft_of")
    if job.state != JobState.SUCCEEDED or job.upstream_id is None or job.account_id is None:
        message = "`draft_of` is no finished draft. Wait until it is."
        raise DreameryError("invalid_value", message, param="draft_of")
    return job


def _model_of(draft: Row[Any], body: VideoGenerationRequest) -> VideoModel:
    catalog = get_catalog()
    model = catalog.find_video(draft.model)
    asked = [one.id for one in catalog.video_route(body.model).models] if body.model else [draft.model]
    if model is None or model.id not in asked:
        message = f"The draft was made by model {draft.model!r}, which makes its final too. Leave `model` out."
        raise DreameryError("invalid_value", message, param="model")
    if draft.finished_at < datetime.now(UTC) - timedelta(days=model.draft_days):
        message = f"The draft is older than {model.draft_days} days, so upstream does not have it any more."
        raise DreameryError("invalid_value", message, param="draft_of")
    return model


def _reject_fields(body: VideoGenerationRequest, model: VideoModel) -> None:
    """Raise `invalid_value` for what the draft has decided already."""
    if body.prompt != PROMPT_OF_DRAFT:
        raise _decided("prompt")
    if body.media_inputs:
        raise _decided(body.media_inputs[0].param)
    for name in _FROM_DRAFT:
        if getattr(body, name) not in {None, ""}:
            raise _decided(name)
    if body.resolution and body.resolution.strip().lower() != model.final_resolution:
        message = f"The final of a draft has {model.final_resolution}; got {body.resolution[:20]}."
        raise DreameryError("invalid_value", message, param="resolution")


def _decided(name: str) -> DreameryError:
    message = f"The draft decides `{name}`. Leave it out with `draft_of`."
    return DreameryError("invalid_value", message, param=name)

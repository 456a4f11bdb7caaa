"""Checks shared by all creating calls: prompt length, region and permission of the model."""

from api.auth.caller import Caller
from api.generation.models.agent import AGENT
from api.http.bodies.embedded_files import has_reference
from worker.core.catalog.models import ImageModel, VideoModel, get_catalog
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError
from worker.core.settings import get_settings


def check_prompt(text: str, field: str) -> None:
    """Raise `prompt_too_long` for a text that is too long for upstream."""
    max_chars = get_settings().prompt_max_chars
    if has_reference(text):
        message = f"`{field}` contains a file as text. Send files in a field of their own."
        raise DreameryError("prompt_too_long", message, param=field)
    if len(text) > max_chars:
        message = f"`{field}` has {len(text)} characters; the maximum is {max_chars}. Shorten it."
        raise DreameryError("prompt_too_long", message, param=field)


def reject_agent(model: str | None) -> None:
    """Raise `model_not_found` for the agent, which is listed with the models but has a call of its own."""
    if model == AGENT:
        message = f"Model {AGENT!r} answers in a chat: use /v1/chat/completions, or an image or video model."
        raise DreameryError("model_not_found", message, param="model")


def check_regions(model: ImageModel | VideoModel, caller: Caller, offer: UpstreamModels) -> None:
    """Raise an error for a model that no region of the caller offers, or that the key may not use.

    `offer` = the live lists of the caller's accounts, to which the catalog gives way.
    """
    caller.require_model(model.id)
    regions = sorted({token.region for _, token in caller.tokens if token.provider == model.provider})
    if caller.tokens and not regions:
        message = (
            f"Model {model.id!r} runs on accounts of {model.provider}, and none of your session ids is one. "
            "Send such a session id, or choose another model."
        )
        raise DreameryError("model_not_found", message, param="model")
    if regions and not offer.may_offer(model, regions):
        message = f"Model {model.id!r} is not offered in region {', '.join(regions)}; {_alternatives(model, regions)}."
        raise DreameryError("model_not_found", message, param="model")


def _alternatives(model: ImageModel | VideoModel, regions: list[str]) -> str:
    if isinstance(model, ImageModel):
        return f"it is in: {', '.join(sorted(model.sold_in))}"
    catalog = get_catalog()
    able = sorted({n for region in regions for n in catalog.find_video_models(region=region, provider=model.provider)})
    return f"available: {', '.join(able)}"

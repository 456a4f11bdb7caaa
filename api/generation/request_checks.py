"""Checks shared by all creating calls: prompt length, region and permission of the model."""

from api.auth.dependencies import Caller
from worker.core.catalog.models import ImageModel, VideoModel
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

AGENT = "agent"


def check_prompt(text: str, field: str) -> None:
    """Raise `prompt_too_long` for a text that is too long for upstream."""
    max_chars = get_settings().prompt_max_chars
    if len(text) > max_chars:
        message = f"`{field}` has {len(text)} characters; the maximum is {max_chars}. Shorten it."
        raise DreameryError("prompt_too_long", message, param=field)


def check_regions(model: ImageModel | VideoModel, caller: Caller) -> None:
    """Raise an error for a model that no region of the caller offers, or that the key may not use."""
    caller.require_model(model.id)
    regions = {token.region for _, token in caller.tokens}
    if regions and not any(model.is_available_in(region) for region in regions):
        where = ", ".join(sorted(model.where))
        message = f"Model {model.id!r} is not offered in region {', '.join(sorted(regions))}; it is in: {where}."
        raise DreameryError("model_not_found", message, param="model")

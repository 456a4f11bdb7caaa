"""Checks that every creating call shares: prompt length, region of the model."""

from api.auth.dependencies import Caller
from worker.core.catalog.models import ImageModel, VideoModel
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

AGENT = "agent"


def check_prompt(text: str, field: str) -> None:
    """Refuse a text that is too long for upstream."""
    most = get_settings().prompt_max_chars
    if len(text) > most:
        message = f"`{field}` has {len(text)} characters; the most is {most}. Shorten it."
        raise DreameryError("prompt_too_long", message, param=field)


def check_regions(model: ImageModel | VideoModel, caller: Caller) -> None:
    """Refuse a model that none of the caller's session ids can have, or that the key may not use."""
    caller.need_model(model.id)
    regions = {token.region for _, token in caller.tokens}
    if regions and not any(model.offered_in(region) for region in regions):
        where = ", ".join(sorted(model.where))
        message = f"Model {model.id!r} is not offered in region {', '.join(sorted(regions))}; it is in: {where}."
        raise DreameryError("model_not_found", message, param="model")

"""Checks of fields that only some models have, by the data of the model, and what all plans share about the model."""

from collections.abc import Iterable, Sequence
from typing import Any

from api.generation.media.reference_images import ReferenceImage
from api.generation.media.reference_media import ReferenceInput, ReferenceMedia
from api.generation.media.values import InputEntry
from worker.core.catalog.input_limits import find_problem
from worker.core.catalog.models import ImageModel, VideoModel
from worker.core.catalog.prompts.vendor_flags import remove_vendor_flags
from worker.core.catalog.upstream_models import Choice
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

Model = ImageModel | VideoModel


def unsupported(model: Model, field: str, others: Iterable[Model] = ()) -> DreameryError:
    """Return the refusal of a field that the model does not have. `others` = models that have it."""
    able = ", ".join(sorted(other.id for other in others))
    message = f"Model {model.id!r} does not have `{field}`. Leave it out."
    if able:
        message = f"Model {model.id!r} does not have `{field}`. Leave it out. Models that have it: {able}."
    return DreameryError("unsupported_parameter", message, param=field)


def check_seed(model: Model, seed: int | None, others: Iterable[Model] = ()) -> None:
    """Raise an error for a seed that the model does not take."""
    if seed is None:
        return
    if model.seed not in {"always", "documented"}:
        raise unsupported(model, "seed", (other for other in others if other.seed in {"always", "documented"}))
    if seed > model.max_seed:
        message = f"`seed` of model {model.id!r} is at most {model.max_seed}; got {seed}."
        raise DreameryError("invalid_value", message, param="seed")


def order_seed(model: Model, seed: int, *, requested: bool, number: int) -> int:
    """Return the seed of job `number` of a request; -1 = none is sent. Several jobs use different seeds."""
    if not requested and model.seed != "always":
        return -1
    return (seed + number) % (model.max_seed + 1)


def choice_params(choice: Choice[Any]) -> dict[str, Any]:
    """Return what a job keeps about the choice of its model, if the requested name meant several."""
    if len(choice.options) < 2:
        return {}
    options = [{"provider": model.provider, "model": model.id} for model in choice.options]
    return {"route": {"rule": "operator" if choice.by_route else "default", "options": options}}


def user_params(model: Model, *names: str | None) -> dict[str, str]:
    """Return what a job keeps about the end user, for models that ask for a name of them."""
    if "safety_identifier" not in model.fields:
        return {}
    known = [name for name in names if name]
    return {"user": " ".join(known)} if known else {}


def without_vendor_flags(model: Model, prompt: str) -> tuple[str, dict[str, str]]:
    """Return the prompt without flags that upstream would read, and what was removed, for `adjusted`."""
    prompt, removed = remove_vendor_flags(prompt, model.prompt_flags)
    if removed and not prompt:
        message = "The prompt contains only flags. Describe what to generate."
        raise DreameryError("invalid_value", message, param="prompt")
    return prompt, {"prompt": f"removed {' '.join(removed)}"} if removed else {}


def check_input_limits(model: Model, entries: Sequence[InputEntry], references: Sequence[ReferenceInput]) -> None:
    """Raise the error of an input that upstream would not accept; links are checked when they are fetched."""
    for entry, item in zip(entries, references, strict=True):
        limits = model.inputs.get(entry.media)
        if limits is None:
            continue
        if limits.public_link and not get_settings().public_url:
            message = (
                f"Model {model.id!r} reads videos from a public link, and this server has no public address: the "
                "operator must set DREAMERY_PUBLIC_URL."
            )
            raise DreameryError(entry.code, message, param=entry.param)
        problem = None
        if isinstance(item, ReferenceImage) and item.facts is not None:
            problem = find_problem(limits, size=item.size, width=item.facts.width, height=item.facts.height)
        elif isinstance(item, ReferenceMedia) and item.facts is not None:
            facts = item.facts
            problem = find_problem(
                limits, size=item.bytes, width=facts.width, height=facts.height, seconds=facts.milliseconds / 1000
            )
        if problem is not None:
            raise DreameryError(entry.code, f"`{entry.param}` {problem} for model {model.id!r}.", param=entry.param)

"""Many requests from few words: prompts with variants, times models, ratios and sizes. Nothing is planned here.

Estimates, batches and the console all expand here, so that what is shown first is what is made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.generation.variants.prompt_variants import PromptSyntaxError, PromptVariants
from api.http.fields import MAX_IMAGES, NonEmptyText, StorableObject, Text
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

Endpoint = Literal["/v1/images/generations", "/v1/videos/generations"]
IMAGES: Endpoint = "/v1/images/generations"
VIDEOS: Endpoint = "/v1/videos/generations"
_MOST_VALUES = 50
_MOST_PROMPTS = 10_000
_MOST_CHARACTERS = 20_000_000
# Fields of `body` that the matrix decides itself.
_DECIDED = ("prompt", "model", "n", "ratio", "aspect_ratio", "size", "resolution", "width", "height")


class RequestMatrix(BaseModel):
    """Every prompt with every model, ratio, size and resolution: each combination is one request."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"prompts": ["a {red|blue} boat"], "variants": True, "ratios": ["1:1", "16:9"], "n": 1}]
        },
    )

    prompts: list[NonEmptyText] = Field(min_length=1, max_length=_MOST_PROMPTS, description="one or more prompts")
    variants: bool = Field(
        False, description=r"expand `{red|blue}` in prompts; `\{`, `\|` and `\}` are the plain characters"
    )
    models: list[Text] = Field(
        [], max_length=_MOST_VALUES, description="default: the image model of a call without one"
    )
    ratios: list[Text] = Field([], max_length=_MOST_VALUES, description="default: the ratio of the model")
    sizes: list[Text] = Field(
        [], max_length=_MOST_VALUES, description="`WxH`, a ratio or a resolution, without `ratios`"
    )
    resolutions: list[Text] = Field([], max_length=_MOST_VALUES, description="without `sizes`; default: the model's")
    n: int | None = Field(None, ge=1, le=MAX_IMAGES, description="number of results of each request")
    body: StorableObject = Field({}, description="other fields of each request, such as `duration` or `metadata`")


@dataclass(frozen=True, slots=True)
class ExpandedRequest:
    """One request of a matrix: the path of its call, its JSON body, and the prompt it comes from (counted from 0)."""

    endpoint: Endpoint
    body: dict[str, Any]
    prompt: int


def expand_matrix(matrix: RequestMatrix, *, most: int) -> list[ExpandedRequest]:
    """Return the requests, ordered by prompt, variant, model, ratio and size.

    Raises `invalid_value` for braces that do not fit, fields that exclude each other, and more than `most` requests.
    """
    _check_fields(matrix)
    prompts = [_variants(text, n, plain=not matrix.variants) for n, text in enumerate(matrix.prompts)]
    shapes = _shapes(matrix)
    models: list[str | None] = [*matrix.models] or [None]
    each = len(models) * len(shapes)
    total = each * sum(found.count for found in prompts)
    # Before anything is built: a short text can stand for billions.
    if total > most:
        amount = f"{total}" if total < 10**9 else "more than 1000000000"
        message = f"These prompts and values make {amount} requests; the maximum is {most}. Send fewer at a time."
        raise DreameryError("invalid_value", message, param="prompts")
    if sum(found.count * len(text) for found, text in zip(prompts, matrix.prompts, strict=True)) > _MOST_CHARACTERS:
        message = "The variants of these prompts are too long together. Send fewer at a time."
        raise DreameryError("invalid_value", message, param="prompts")
    common = {**matrix.body, **({"n": matrix.n} if matrix.n is not None else {})}
    return [
        ExpandedRequest(_endpoint(model), _body(text, model, shape, common), number)
        for number, variants in enumerate(prompts)
        for text in _checked(variants, number)
        for model, shape in product(models, shapes)
    ]


def _check_fields(matrix: RequestMatrix) -> None:
    for name in _DECIDED:
        if name in matrix.body:
            message = f"`body` must not have `{name}`: send it beside `prompts`."
            raise DreameryError("invalid_value", message, param="body")
    for other in ("ratios", "resolutions"):
        if matrix.sizes and getattr(matrix, other):
            message = f"`sizes` and `{other}` exclude each other. Send one of them."
            raise DreameryError("invalid_value", message, param="sizes")


def _variants(text: str, number: int, *, plain: bool) -> PromptVariants:
    param = f"prompts.{number}"
    if len(text) > (most := get_settings().prompt_max_chars):
        message = f"`{param}` has {len(text)} characters; the maximum is {most}. Shorten it."
        raise DreameryError("prompt_too_long", message, param=param)
    try:
        return PromptVariants.of_plain_text(text) if plain else PromptVariants(text)
    except PromptSyntaxError as error:
        message = f"The variants of `{param}` cannot be read: {error}."
        raise DreameryError("invalid_value", message, param=param) from None


def _checked(texts: Iterable[str], number: int) -> list[str]:
    """Return the texts of one prompt. Raises an error for an alternative that leaves nothing."""
    found = [text.strip() for text in texts]
    if not all(found):
        param = f"prompts.{number}"
        message = f"A variant of `{param}` is empty. Write words that all variants have."
        raise DreameryError("invalid_value", message, param=param)
    return found


def _shapes(matrix: RequestMatrix) -> list[dict[str, str]]:
    names: dict[str, Sequence[str]] = {
        "ratio": matrix.ratios,
        "size": matrix.sizes,
        "resolution": matrix.resolutions,
    }
    used = {name: values for name, values in names.items() if values}
    return [dict(zip(used, values, strict=True)) for values in product(*used.values())]


def _endpoint(model: str | None) -> Endpoint:
    return VIDEOS if model is not None and get_catalog().knows_video(model) else IMAGES


def _body(text: str, model: str | None, shape: dict[str, str], common: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": text, **({"model": model} if model is not None else {}), **shape, **common}

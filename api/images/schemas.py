"""Bodies of `/v1/images/*`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from api.generation.media.fields import collect_media
from api.generation.media.values import InputEntry
from api.http.fields import (
    IMAGE_MODEL,
    MAX_COST_TEXT,
    MAX_IMAGES,
    RETRY_UNCLEAR_TEXT,
    MaxCost,
    Metadata,
    NonEmptyText,
    Text,
    Webhook,
    example,
    lowercase_or_none,
)

_Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]


class ImageGenerationRequest(BaseModel):
    """Body of `/v1/images/...`: OpenAI's fields and our own for other abilities of the models."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": IMAGE_MODEL, "prompt": "a red paper boat on a calm lake", "size": "2048x2048", "n": 1}
            ]
        },
    )

    prompt: NonEmptyText = Field(description="what to generate; may contain flags: `-re 2k`, `-ra 16:9`")
    model: Text | None = Field(
        None, description=f"public id of `GET /v1/models`; default `{IMAGE_MODEL}`", max_length=200
    )
    n: int | None = Field(None, ge=1, le=MAX_IMAGES, description="number of images; default: the model's (4)")
    size: Text | None = Field(
        None,
        description="`WxH` (mapped to the nearest size of the model), a ratio, a resolution, `auto`, `adaptive` (the "
        "ratio of the reference), or an object with `width` and `height`",
    )
    width: int | None = Field(None, ge=64, le=16384, description="with `height`: the same as `size`")
    height: int | None = Field(None, ge=64, le=16384)
    ratio: Text | None = Field(None, description="`1:1`, `4:3`, `3:4`, `16:9`, `9:16`, `3:2`, `2:3` or `21:9`")
    aspect_ratio: Text | None = Field(None, description="another name for `ratio`")
    resolution: Text | None = Field(None, description="`1k`, `1.5k`, `2k` or `4k`, as the model offers")
    negative_prompt: Text | None = Field(None, description="what to leave out of the image")
    sample_strength: float | None = Field(None, ge=0, le=1, description="0..1, default 0.5")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="random seed; default or -1: random")
    quality: Annotated[_Quality | None, BeforeValidator(lowercase_or_none)] = Field(
        None,
        description="selects the resolution when no other field does: `low` = the model's lowest, `high`, `hd` and "
        "above = its highest, `medium` = between them where the model has one, other values = its default",
    )
    response_format: Annotated[Literal["url", "b64_json"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, description="default `url`; `b64_json` for models named `gpt-image-...` or `chatgpt-image-...`"
    )
    output_format: Annotated[Text | None, BeforeValidator(lowercase_or_none)] = Field(
        None,
        description="`png`, `jpeg` or `webp`: format of the stored images; default: upstream's format",
        json_schema_extra={"enum": ["png", "jpeg", "webp", None]},
    )
    output_compression: int | None = Field(
        None, ge=0, le=100, description="quality of `jpeg` and `webp`, 100 = best; default 95"
    )
    background: Annotated[Literal["auto", "opaque", "transparent"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, description="`auto` or `opaque`; `transparent` with models that support it"
    )
    series: bool | None = Field(None, description="one set of `n` different pictures, of which fewer may come")
    layers: bool | None = Field(None, description="take one picture apart into layers")
    web_search: bool | None = Field(None, description="let the model look things up")
    optimize_prompt_options: dict[str, Any] | None = Field(
        None, description="how the model rewrites the prompt: `mode` is `standard` or `fast`"
    )
    run_async: bool | None = Field(None, alias="async", description="true = answer 202 with the job at once")
    webhook: Webhook | None = Field(None, max_length=2000, description="https address called when the job has ended")
    max_cost: MaxCost | None = Field(None, description=MAX_COST_TEXT)
    retry_unclear: bool | None = Field(None, description=RETRY_UNCLEAR_TEXT)
    metadata: Metadata | None = Field(None, description="up to 16 strings kept with the job")
    user: Text | None = Field(None, max_length=200, description="kept with the job")
    safety_identifier: Text | None = Field(None, max_length=200, description="kept with the job and returned")
    stream: bool | None = Field(None, description="true = server-sent events, one per image as soon as it is stored")
    partial_images: int | None = Field(
        None, ge=0, le=3, exclude=True, description="validated only: models have no partial images, so none are sent"
    )
    moderation: Annotated[Literal["low", "auto"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, exclude=True, description="validated only: upstream decides on moderation"
    )
    style: Annotated[Literal["vivid", "natural"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, exclude=True, description="validated only: describe the style in `prompt`"
    )
    input_fidelity: Annotated[Literal["high", "low"] | None, BeforeValidator(lowercase_or_none)] = Field(
        None, exclude=True, description="validated only: use `sample_strength` to control how much of the image is kept"
    )
    image: Any = Field(
        None,
        description="a reference image, or a list: link, data URL, base64, file part, or an object such as "
        '`{"type": "image_url", "image_url": {"url": "..."}}` or `{"b64_json": "..."}`; docs/api.md lists other names',
    )
    images: Any = Field(None, description="the same as `image`; all are combined")
    mask: Any = Field(None, description="not supported by any model: 400")
    markup: Any = Field(None, description="not supported by any model: 400")
    media_inputs: SkipJsonSchema[list[InputEntry]] = Field([], exclude=True, description="all reference images")

    @model_validator(mode="before")
    @classmethod
    def _collect_media(cls, fields: Any) -> Any:
        return collect_media(fields, "images", cls.model_fields) if isinstance(fields, dict) else fields


class Picture(BaseModel):
    """One image of an answer: a link or its bytes."""

    url: str | None = Field(None, description="a link to this server; readable without a key")
    b64_json: str | None = Field(None, description="the bytes, with `response_format: b64_json`")
    revised_prompt: str | None


class ImagesAnswer(BaseModel):
    """OpenAI's ImagesResponse."""

    model_config = example(
        created=1763000000,
        data=[{"url": "http://127.0.0.1:8000/v1/files/file_.../content", "revised_prompt": None}],
        size="2048x2048",
        output_format="jpeg",
    )

    created: int
    data: list[Picture]
    size: str = Field(description="size of the first image, `WxH`")
    output_format: str = Field(description="format of the bytes: `png`, `jpeg`, `webp` or `gif`")
    quality: str | None = Field(None, description="as requested, if `low`, `medium`, `high`, `xhigh` or `max`")
    background: str | None = Field(None, description="`opaque` if requested")
    safety_identifier: str | None = Field(None, description="as requested, or `user`")
    adjusted: dict[str, str] | None = Field(
        None,
        description="what was adjusted: requested values by field, changes of images by the field that carried them",
    )

"""Request bodies. Unknown fields are ignored (clients add many); a known field with a bad value is a 400 with `param`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

MAX_PICTURES = 32
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ImageGenerationRequest(BaseModel):
    """`POST /v1/images/generations`: OpenAI's fields, and ours for what the models can do beyond them."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "jimeng-4.0", "prompt": "a red paper boat on a calm lake", "size": "2048x2048", "n": 1}
            ]
        },
    )

    prompt: _Text = Field(description="what to draw")
    model: str | None = Field(None, description="public id of `GET /v1/models`; default `jimeng-4.0`", max_length=200)
    n: int | None = Field(None, ge=1, le=MAX_PICTURES, description="pictures wanted; absent = what the model makes (4)")
    size: str | None = Field(None, description="`WxH` or `auto`; mapped to the nearest size the model draws")
    width: int | None = Field(None, ge=64, le=16384, description="with `height`: the same as `size`")
    height: int | None = Field(None, ge=64, le=16384)
    ratio: str | None = Field(None, description="`1:1`, `4:3`, `3:4`, `16:9`, `9:16`, `3:2`, `2:3` or `21:9`")
    aspect_ratio: str | None = Field(None, description="another name for `ratio`")
    resolution: str | None = Field(None, description="`1k`, `1.5k`, `2k` or `4k`, as the model offers")
    negative_prompt: str | None = Field(None, description="what should not be in the picture")
    sample_strength: float | None = Field(None, ge=0, le=1, description="0..1, default 0.5")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="same seed, same start; default random")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="default `url`")
    run_async: bool | None = Field(None, alias="async", description="true = answer 202 with the job at once")
    webhook: str | None = Field(None, max_length=2000, description="https address told when the job has ended")
    metadata: dict[str, str] | None = Field(None, description="up to 16 strings kept with the job")
    user: str | None = Field(None, max_length=200, description="kept with the job")
    stream: bool | None = Field(None, description="not offered for pictures yet")
    image: Any = Field(None, description="not offered on this route yet")
    images: Any = Field(None, description="not offered on this route yet")

    @field_validator("metadata")
    @classmethod
    def _small_metadata(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value and (len(value) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in value.items())):
            raise ValueError("at most 16 pairs, keys up to 64 and values up to 512 characters")
        return value

    @field_validator("webhook")
    @classmethod
    def _http_webhook(cls, value: str | None) -> str | None:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return value

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _storable(cls, value: str | None) -> str | None:
        if value and "\x00" in value:
            raise ValueError("must not contain a NUL character")
        return value

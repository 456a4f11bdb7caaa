"""Answers of `/v1/models`."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class ModelField(BaseModel):
    """A field of a request that not all models take."""

    name: str
    type: Literal["boolean", "integer", "number", "text", "choice"]
    values: list[str | int] | None = Field(None, description="of a choice; the first is the default")
    default: bool | None = Field(None, description="of a switch")


class ModelPrice(BaseModel):
    """What a request with the defaults of the model is expected to cost, on the most expensive fitting account."""

    credits: int = Field(description="in thousandths of `currency` if there is one")
    currency: str | None = Field(description="null = credits of upstream's own")
    cost: float | None = Field(description="the same in `currency`: the most that it may be")
    source: Literal["learned", "scaled", "catalog"] = Field(description="as in `POST /v1/estimate`")
    resolution: str
    pictures: int | None = Field(description="(image models) number of images of such a request")
    seconds: int | None = Field(description="(video models) length of such a request")


class InputLimit(BaseModel):
    """What upstream accepts of one kind of input; a pair is the least and the most, null = no limit is known."""

    bytes: int | None
    side: list[int] | None = Field(description="pixels of each side")
    area: list[int] | None = Field(description="width x height in pixels")
    ratio: list[float] | None = Field(description="width / height")
    seconds: list[float] | None


class Model(BaseModel):
    """A model: OpenAI's four keys, three of other gateways (`model_...`), and our own.

    Keys from `durations` on exist only for video models, `formats` only for image models, those from `listed` on only
    in a list with `details=true`.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str
    model_name: str
    model_tip: str
    model_req_key: str = Field(description="upstream's key")
    provider: str = Field(description="whose accounts run it, see `GET /v1/accounts/providers`")
    alias_of: str | None = Field(description="the id this name stands for; null for an id itself")
    remark: str | None = Field(description="what a name that tools have built in means here")
    resolutions: list[str]
    counts: list[int]
    default_count: int
    references: int = Field(description="maximum number of reference images; 0 = none")
    regions: list[str]
    fields: list[ModelField] = Field(description="optional fields of a request that the model takes")
    ends: dict[str, str] = Field(description="places where it will not be sold, or is not any more: the first such day")
    ratios: list[str] | None = Field(None, description="the first is the default")
    formats: list[str] | None = Field(None, description="formats that upstream makes; others are made here")
    durations: list[int] | None = Field(None, description="lengths in seconds; the first is the default")
    fps: list[int] | None = None
    first_frame: bool | None = None
    end_frame: bool | None = Field(None, description="accepts an image of the last frame")
    frame_decides_ratio: bool | None = Field(
        None, description="with a first frame, its ratio replaces the requested one"
    )
    reference_videos: int | None = Field(None, description="maximum number of reference videos")
    reference_audios: int | None = Field(None, description="maximum number of reference sounds")
    omni: bool | None = Field(None, description="accepts images, videos and audio that the prompt refers to")
    listed: bool | None = Field(None, description="whether lists without details have it too")
    available: bool | None = Field(None, description="whether one of your accounts can run it now")
    obstacle: Literal["not_allowed", "no_account", "not_in_region", "resting"] | None = Field(
        None,
        description="why not: your key may not use it; you may use no account of its provider; none is in one of its "
        "regions; all that have it rest now",
    )
    price: ModelPrice | None = Field(None, description="null = not known")
    typical_seconds: float | None = Field(None, description="median of such jobs; null = too few have ended")
    sample: dict[str, Any] | None = Field(
        None, description="a file (as in the `output` of a job) of your newest job of it, and `job`, the id of that job"
    )
    input_limits: dict[str, InputLimit] | None = Field(None, description="by kind of input: image, video, audio")


class ModelList(BaseModel):
    """Every model and alias."""

    object: Literal["list"]
    data: list[Model]

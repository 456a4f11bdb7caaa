"""Answers of `/v1/models`."""

from typing import Literal

from pydantic import BaseModel, Field


class ModelField(BaseModel):
    """A field of a request that not all models take."""

    name: str
    type: Literal["boolean", "integer", "number", "text", "choice"]
    values: list[str | int] | None = Field(None, description="of a choice; the first is the default")
    default: bool | None = Field(None, description="of a switch")


class Model(BaseModel):
    """A model: OpenAI's four keys, three of other gateways (`model_...`), and our own.

    Keys from `durations` on exist only for video models, `formats` only for image models.
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


class ModelList(BaseModel):
    """Every model and alias."""

    object: Literal["list"]
    data: list[Model]

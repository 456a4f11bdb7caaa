"""Answers of `/v1/models`."""

from typing import Literal

from pydantic import BaseModel, Field


class Model(BaseModel):
    """A model: OpenAI's four keys, three of other gateways (`model_...`), and our own.

    Keys from `durations` on exist only for video models.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: str
    model_name: str
    model_tip: str
    model_req_key: str = Field(description="upstream's key")
    alias_of: str | None = Field(description="the id this name stands for; null for an id itself")
    remark: str | None = Field(description="what a name that tools have built in means here")
    resolutions: list[str]
    counts: list[int]
    default_count: int
    references: int = Field(description="maximum number of reference images; 0 = none")
    regions: list[str]
    durations: list[int] | None = Field(None, description="lengths in seconds; the first is the default")
    ratios: list[str] | None = Field(None, description="the first is the default")
    fps: list[int] | None = None
    first_frame: bool | None = None
    end_frame: bool | None = Field(None, description="accepts an image of the last frame")
    omni: bool | None = Field(None, description="accepts images, videos and audio that the prompt refers to")


class ModelList(BaseModel):
    """Every model and alias."""

    object: Literal["list"]
    data: list[Model]

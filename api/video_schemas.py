"""Bodies of requests for videos."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Text


class VideoGenerationRequest(BaseModel):
    """A video from text, or from its first frame, or from its first and last frame."""

    model_config = ConfigDict(extra="ignore")

    prompt: Text = Field(min_length=1, description="what to show; may hold flags: `-d 5`, `-ra 16:9`, `-re 720p`")
    model: Text | None = Field(None, max_length=200)
    images: Any = Field(None, description="one picture = the first frame, two = the first and the last")
    first_frame_image: Any = None
    end_frame_image: Any = None
    duration: int | None = Field(None, ge=1, le=3600, description="seconds")
    ratio: Text | None = None
    resolution: Text | None = None
    seed: int | None = Field(None, ge=0, le=2**32 - 1)
    webhook: Text | None = Field(None, max_length=2000)
    metadata: dict[Text, Text] | None = None
    user: Text | None = Field(None, max_length=200)

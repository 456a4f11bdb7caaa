"""The content of a valid submit."""

from dataclasses import dataclass
from typing import Literal

from worker.sandbox.models.image_models import ImageModel
from worker.sandbox.models.video_models import VideoModel
from worker.sandbox.uploads.file_inspection import Thumbnail

Kind = Literal["image", "blend", "video"]


@dataclass(frozen=True)
class VideoOptions:
    """The fields of an order that only videos have."""

    seconds: int
    resolution: str
    ratio: str
    fps: int
    first: Thumbnail | None = None
    last: Thumbnail | None = None


@dataclass(frozen=True)
class Order:
    submit_id: str
    prompt: str
    model: ImageModel | VideoModel
    seed: int
    width: int
    height: int
    count: int
    price: int
    kind: Kind = "image"
    # Thumbnails of the references, drawn into the result.
    references: tuple[Thumbnail, ...] = ()
    video: VideoOptions | None = None

"""What a submit that passed every check asks for."""

from dataclasses import dataclass
from typing import Literal

from worker.sandbox.models.image_models import Model
from worker.sandbox.models.video_models import VideoModel
from worker.sandbox.uploads.file_inspection import Thumb

Kind = Literal["image", "blend", "video"]


@dataclass(frozen=True)
class Film:
    """The part of an order only videos have."""

    seconds: int
    resolution: str
    ratio: str
    fps: int
    first: Thumb | None = None
    last: Thumb | None = None


@dataclass(frozen=True)
class Order:
    submit_id: str
    prompt: str
    model: Model | VideoModel
    seed: int
    width: int
    height: int
    count: int
    price: int
    kind: Kind = "image"
    # Small copies of the references, to be seen in the result.
    pasted: tuple[Thumb, ...] = ()
    film: Film | None = None

"""The models that an upstream lists for an account, for upstreams that have such a list."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LiveImageModel:
    """An image model in upstream's list for an account. A listed model is not always usable by the account."""

    key: str
    name: str
    tip: str = ""
    resolutions: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    references: int = 0
    # (resolution, upstream's ratio number, width, height)
    sizes: tuple[tuple[str, int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LiveVideoModel:
    """A video model in upstream's list for an account. Empty or None = not reported."""

    key: str
    name: str
    tip: str = ""
    durations: tuple[int, ...] = ()
    ratios: tuple[str, ...] = ()
    fps: int | None = None
    first_frame: bool | None = None
    end_frame: bool | None = None
    own: Mapping[str, Any] = field(default_factory=dict)  # what only its provider reads


@dataclass(frozen=True, slots=True)
class LiveModels:
    """The models that upstream currently lists for an account."""

    images: tuple[LiveImageModel, ...] = ()
    videos: tuple[LiveVideoModel, ...] = ()

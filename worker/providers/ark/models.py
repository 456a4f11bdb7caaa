"""The models of Ark: ids, sizes, limits, fields and prices, read from `models.toml`.

`read_models` takes changes of the operator: rows of `image` and `video` with the same `name` replace single values.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from worker.core.catalog.money import (
    ImagePrice,
    ImagePricing,
    VideoPrice,
    VideoPricing,
    read_image_price,
    read_video_price,
)

_FILE = Path(__file__).with_name("models.toml")
CHINA, INTERNATIONAL = "cn", "intl"


@dataclass(frozen=True, slots=True)
class ImageModel:
    """An image model. `sizes`: resolution -> ratio -> (width, height). `max_set` 0 = makes no sets."""

    name: str
    status: str
    ids: Mapping[str, str]
    sizes: Mapping[str, Mapping[str, tuple[int, int]]]
    free_area: tuple[int, int]  # pixels of a free size, least and most
    references: int
    max_set: int
    streams: bool
    formats: tuple[str, ...]
    default_format: str
    backgrounds: tuple[str, ...]
    max_layers: int
    seed: str
    web_search: bool
    optimize_modes: tuple[str, ...]
    fields: frozenset[str]
    images_per_minute: int
    prices: tuple[ImagePrice, ...]

    @property
    def pricing(self) -> ImagePricing:
        """What the price of its images depends on."""
        return ImagePricing(self.name, self.sizes, self.max_layers, self.prices)

    def accepts_size(self, width: int, height: int) -> bool:
        """Whether upstream makes exactly this size."""
        least, most = self.free_area
        return least <= width * height <= most and 1 / 16 <= width / height <= 16

    def nearest_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the table's size nearest to the requested one: nearest ratio, then nearest area."""
        options = [size for ratios in self.sizes.values() for size in ratios.values()]
        wanted = width / height

        def distance(size: tuple[int, int]) -> tuple[float, int]:
            ratio = size[0] / size[1]
            return round(max(ratio / wanted, wanted / ratio), 2), abs(size[0] * size[1] - width * height)

        return min(options, key=distance)


@dataclass(frozen=True, slots=True)
class References:
    """How many inputs a video model takes, and their seconds together. 0 = none, or no limit for seconds."""

    images: int = 0
    videos: int = 0
    audios: int = 0
    total: int = 0
    video_seconds: int = 0
    audio_seconds: int = 0
    audio_alone: bool = False


@dataclass(frozen=True, slots=True)
class VideoModel:
    """A video model. `frames`: resolution -> ratio -> (width, height). `adaptive_only`: modes that choose the ratio."""

    name: str
    status: str
    ids: Mapping[str, str]
    modes: frozenset[str]
    resolutions: tuple[str, ...]
    ratios: tuple[str, ...]
    adaptive_only: frozenset[str]
    min_seconds: int
    max_seconds: int
    default_seconds: int
    auto_seconds: bool  # the model may choose the length (-1)
    fps: int
    makes_audio: bool
    references: References
    mention: str  # how a prompt names an input, with {kind} and {n}
    fields: frozenset[str]
    seed: str
    flex: bool
    draft_resolution: str
    final_resolution: str
    frames: Mapping[str, Mapping[str, tuple[int, int]]]
    requests_per_minute: int
    in_flight: int
    prices: tuple[VideoPrice, ...]

    @property
    def pricing(self) -> VideoPricing:
        """What the price of its videos depends on."""
        return VideoPricing(
            self.name, self.frames, self.fps, self.max_seconds, self.references.video_seconds, self.prices
        )


Model = TypeVar("Model", ImageModel, VideoModel)


@dataclass(frozen=True, slots=True)
class Models:
    """All models by their name and by the vendor's ids, sold and retired ones."""

    checked: str  # the day of the data
    images: Mapping[str, ImageModel]
    videos: Mapping[str, VideoModel]
    retired: frozenset[str]

    def sold_in(self, place: str) -> list[ImageModel | VideoModel]:
        """Return the models sold in `cn` or `intl`."""
        models: Iterable[ImageModel | VideoModel] = [*self.images.values(), *self.videos.values()]
        return [model for model in models if model.status == "live" or place == INTERNATIONAL]

    def find_image(self, name: str) -> ImageModel | None:
        """Return the image model of this name or id."""
        return _find(self.images, name)

    def find_video(self, name: str) -> VideoModel | None:
        """Return the video model of this name or id."""
        return _find(self.videos, name)


def _find(models: Mapping[str, Model], name: str) -> Model | None:
    return models.get(name) or next((model for model in models.values() if name in model.ids.values()), None)


@lru_cache(maxsize=1)
def built_in_models() -> Models:
    """Return the models that ship with the product."""
    return read_models({})


def read_models(changes: Mapping[str, list[dict[str, Any]]]) -> Models:
    """Return the models with the operator's changes: rows that name a model and the values that replace its own."""
    data = tomllib.loads(_FILE.read_text())
    rows = {kind: _changed(data[kind], changes.get(kind, ())) for kind in ("image", "video")}
    sold = {kind: [row for row in rows[kind] if row["status"] != "retired"] for kind in rows}
    return Models(
        checked=data["checked"],
        images={row["name"]: _image_model(row, data["sizes"]) for row in sold["image"]},
        videos={row["name"]: _video_model(row, data["frames"]) for row in sold["video"]},
        retired=frozenset(row["name"] for kind in rows.values() for row in kind if row["status"] == "retired"),
    )


def _changed(rows: list[dict[str, Any]], changes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name = {row["name"]: dict(row) for row in rows}
    for change in changes:
        by_name.setdefault(change["name"], {}).update(change)
    return list(by_name.values())


def _sizes(table: Mapping[str, list[int]]) -> dict[str, tuple[int, int]]:
    return {ratio: (width, height) for ratio, (width, height) in table.items()}


def _image_model(row: dict[str, Any], tables: dict[str, Any]) -> ImageModel:
    def table(resolution: str) -> dict[str, tuple[int, int]]:
        return _sizes(tables[row.get(f"size_table_{resolution}", row["size_table"])][resolution])

    sets = row.get("sets") or {}
    layers = row.get("layers") or {}
    least, most = row["free_area"]
    return ImageModel(
        name=row["name"],
        status=row["status"],
        ids=row["ids"],
        sizes={resolution: table(resolution) for resolution in row["resolutions"]},
        free_area=(least, most),
        references=row["references"],
        max_set=sets.get("max", 0),
        streams=row.get("stream", False),
        formats=tuple(row["formats"]),
        default_format=row["default_format"],
        backgrounds=tuple(row.get("background", ())),
        max_layers=layers.get("max", 0),
        seed=row.get("seed", "none"),
        web_search=row.get("web_search", False),
        optimize_modes=tuple(row.get("optimize_modes", ())),
        fields=frozenset(row["fields"]),
        images_per_minute=row["limits"]["ipm"],
        prices=tuple(read_image_price(price) for price in row["prices"]),
    )


def _video_model(row: dict[str, Any], frames: dict[str, Any]) -> VideoModel:
    own, shared = frames.get(row.get("frames", "seedance_20"), {}), frames["any"]
    duration, references, draft = row["duration"], dict(row["references"]), row.get("draft") or {}
    references["video_seconds"] = references.pop("video_seconds_total", 0)
    references["audio_seconds"] = references.pop("audio_seconds_total", 0)
    return VideoModel(
        name=row["name"],
        status=row["status"],
        ids=row["ids"],
        modes=frozenset(row["modes"]),
        resolutions=tuple(row["resolutions"]),
        ratios=tuple(row["ratios"]),
        adaptive_only=frozenset(row.get("adaptive_only", ())),
        min_seconds=duration["min"],
        max_seconds=duration["max"],
        default_seconds=max(duration["vendor_default"], 5),
        auto_seconds=duration.get("auto", False),
        fps=row["fps"],
        makes_audio=row["audio"]["makes"],
        references=References(**references),
        mention=row.get("prompt_mark", "Image {n}").replace("Image", "{kind}"),
        fields=frozenset(row["fields"]),
        seed=row.get("seed", "none"),
        flex=row["flex"],
        draft_resolution=draft.get("resolution", ""),
        final_resolution=draft.get("final_resolution", ""),
        frames={resolution: _sizes(own.get(resolution) or shared[resolution]) for resolution in row["resolutions"]},
        requests_per_minute=row["limits"]["rpm"],
        in_flight=row["limits"]["inflight"],
        prices=tuple(read_video_price(price) for price in row["prices"]),
    )

"""The model catalog: models, their regions, sizes and lengths, and the number of images per job.

The data is in `models.toml`; no code names a model.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from worker.core import catalog_overrides
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

DEFAULT_COUNT = 4
_HARD_CODED = frozenset(catalog_overrides.HARD_CODED_IMAGE_MODELS + catalog_overrides.HARD_CODED_VIDEO_MODELS)


@dataclass(frozen=True, slots=True)
class Size:
    """An image size that upstream supports: pixels, ratio as `W:H`, resolution such as `2k`."""

    width: int
    height: int
    ratio: str
    resolution: str


@dataclass(frozen=True, slots=True)
class ImageModel:
    """One image model. Empty `counts` = the count cannot be chosen; it makes `default_count`."""

    id: str
    name: str
    key: str
    key_cn: str
    where: frozenset[str]
    resolutions: tuple[str, ...]
    counts: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    only_us: Size | None = None
    default_count: int = DEFAULT_COUNT
    references: int = 0  # maximum number of reference images; 0 = none
    series: bool = False  # supports series of images (protocol section 6.7)
    listed: bool = False  # only in upstream's model list (`worker.core.catalog.upstream_models`)
    disputed: frozenset[str] = frozenset()  # regions where sources disagree

    @property
    def default_resolution(self) -> str:
        """2k if the model supports it, otherwise its smallest (protocol section 6.4)."""
        return "2k" if "2k" in self.resolutions else self.resolutions[0]

    @property
    def max_per_job(self) -> int:
        """Maximum number of images of one upstream job."""
        return max(self.counts, default=self.default_count)

    def upstream_key(self, region: str) -> str:
        """Return the `model_req_key` for a region."""
        return self.key_cn if region == "cn" else self.key

    def is_available_in(self, region: str) -> bool:
        """Return whether accounts of this region have the model. An undetected region counts as available."""
        return _is_available(self.where, region)

    def is_disputed_in(self, region: str) -> bool:
        """Return whether sources disagree about the model in this region."""
        return place_of(region) in self.disputed

    def split_into_jobs(self, n: int) -> list[int]:
        """Split `n` images into upstream jobs. Returns the number of images of each job."""
        full, rest = divmod(n, self.max_per_job)
        return [self.max_per_job] * full + ([rest] if rest else [])


@dataclass(frozen=True, slots=True)
class VideoModel:
    """One video model (protocol sections 7 and 10.2). The first of durations, resolutions and ratios is the default."""

    id: str
    name: str
    key: str
    where: frozenset[str]
    durations: tuple[int, ...]
    resolutions: tuple[str, ...]
    ratios: tuple[str, ...]
    benefit: str
    aliases: tuple[str, ...] = ()
    first_frame: bool = True
    end_frame: bool = False
    omni: bool = False
    sends_resolution: bool = False
    amount: bool = False
    draft_mode: bool = False
    min_version: str = ""
    features: tuple[str, ...] = ()
    benefit_omni: str = ""
    benefit_resolution: tuple[tuple[str, str], ...] = ()
    benefit_up_to: tuple[tuple[int, str], ...] = ()
    disputed: frozenset[str] = frozenset()

    def benefit_for(self, *, seconds: int, resolution: str, omni: bool = False) -> str:
        """Return the `benefit_type` of a job (section 7.3); "" = unknown, so none is declared."""
        if omni and self.benefit_omni:
            return self.benefit_omni
        by_resolution = dict(self.benefit_resolution).get(resolution)
        by_seconds = next((benefit for limit, benefit in self.benefit_up_to if seconds <= limit), None)
        return by_resolution or by_seconds or self.benefit

    def is_available_in(self, region: str) -> bool:
        """Return whether accounts of this region have the model. An undetected region counts as available."""
        return _is_available(self.where, region)

    def is_disputed_in(self, region: str) -> bool:
        """Return whether sources disagree about the model in this region."""
        return place_of(region) in self.disputed


def _is_available(where: frozenset[str], region: str) -> bool:
    if region in {"sandbox", "auto"}:
        return True
    return place_of(region) in where


def place_of(region: str) -> str:
    """Return the catalog's name of a region: sg, hk and jp are one site, `asia`."""
    return "asia" if region in {"sg", "hk", "jp"} else region


class Catalog:
    """Models by public id or alias, sizes and default prices."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.ratios: dict[str, int] = data["ratios"]
        self.sizes: dict[str, dict[str, list[int]]] = data["sizes"]
        self.image_models = [_image_model(row) for row in data["image"]]
        self.default_image_model: str = data["default_image_model"]
        self._images_by_name = {name: m for m in self.image_models for name in (m.id, *m.aliases)}
        self.video_models = [_video_model(row, data["video_ratios"]) for row in data["video"]]
        self.default_video_model: str = data["default_video_model"]
        self._short_sides: dict[str, int] = data["video_lines"]
        self._videos_by_name = {name: m for m in self.video_models for name in (m.id, *m.aliases)}
        self._prices: dict[str, dict[str, dict[str, float]]] = data.get("prices", {})
        self._name_patterns = [
            (_compile_pattern(pattern), target) for pattern, target in data.get("name_patterns", {}).items()
        ]
        self._removed_names = frozenset(data.get("removed_names", ()))

    def image_model(self, name: str | None) -> ImageModel:
        """Return the model with this public id, alias or built-in name; None = the default model.

        Raises `model_not_found`, for a video model with the call that takes it.
        """
        model = self._images_by_name.get(self._resolve(name or self.default_image_model))
        if model is None and name and self.knows_video(name):
            message = (
                f"Model {name[:80]!r} generates videos: use /v1/videos, or an image model such as "
                f"{self.default_image_model!r}."
            )
            raise DreameryError("model_not_found", message, param="model")
        if model is None:
            raise _unknown(name, self.default_image_model)
        return model

    def video_model(self, name: str | None) -> VideoModel:
        """Return the model with this public id, alias or built-in name; None = the default model.

        Raises `model_not_found`, for an image model with the call that takes it.
        """
        model = self._videos_by_name.get(self._resolve(name or self.default_video_model))
        if model is None and name and self.knows_image(name):
            message = (
                f"Model {name[:80]!r} generates images: use /v1/images/generations, or a video model such as "
                f"{self.default_video_model!r}."
            )
            raise DreameryError("model_not_found", message, param="model")
        if model is None:
            raise _unknown(name, self.default_video_model)
        return model

    def knows_image(self, name: str) -> bool:
        """Return whether this public id, alias or built-in name is an image model."""
        return self._resolve(name) in self._images_by_name

    def knows_video(self, name: str) -> bool:
        """Return whether this public id, alias or built-in name is a video model."""
        return self._resolve(name) in self._videos_by_name

    def is_matched_by_pattern(self, name: str | None) -> bool:
        """Return whether only a pattern gives this name a model (`name_patterns`), so that the answer reports it."""
        return name is not None and self._resolve(name) != name

    def is_built_in_name(self, name: str | None) -> bool:
        """Return whether tools have this name built in, whatever model it means here."""
        return name is not None and (name in _HARD_CODED or any(one.fullmatch(name) for one, _ in self._name_patterns))

    def _resolve(self, name: str) -> str:
        """Return the name, or the model that a pattern gives a name that no model has."""
        if name in self._images_by_name or name in self._videos_by_name or name in self._removed_names:
            return name
        return next((target for pattern, target in self._name_patterns if pattern.fullmatch(name)), name)

    def find_video_models(
        self,
        *,
        end_frame: bool = False,
        omni: bool = False,
        seconds: int | None = None,
        resolution: str | None = None,
        ratio: str | None = None,
        region: str = "auto",
    ) -> list[str]:
        """Return the public ids of the models that support all of it, for error messages."""
        return [
            model.id
            for model in self.video_models
            if (model.end_frame or not end_frame)
            and (model.omni or not omni)
            and (seconds is None or seconds in model.durations)
            and (resolution is None or resolution in model.resolutions)
            and (ratio is None or ratio in model.ratios)
            and model.is_available_in(region)
        ]

    def size(self, ratio: str, resolution: str) -> Size:
        """Return the size of a ratio in a resolution."""
        width, height = self.sizes[resolution][ratio]
        return Size(width=width, height=height, ratio=ratio, resolution=resolution)

    def video_size(self, ratio: str, resolution: str) -> tuple[int, int]:
        """Return the expected width and height of a video; sides are even."""
        wide, high = _sides(ratio)
        short = self._short_sides.get(resolution, self._short_sides["720p"])
        long = round(short * max(wide, high) / min(wide, high) / 2) * 2
        return (long, short) if wide >= high else (short, long)

    def default_price(
        self, place: str, kind: str, model: str, *, size: str, units: int, variant: str = ""
    ) -> int | None:
        """Return the credits of a job by the catalog, or None. `units`: images, or seconds of video.

        The table of a model takes precedence over that of its kind, a total price (`2k x4`, `720p 10s`) over a rate
        (`2k`, `720p`).
        """
        total = f"{units}s" if kind == "video" else f"x{units}"
        sizes = [f"{size} {variant}", size] if variant else [size]
        for name in (model, kind):
            table = self._prices.get(place, {}).get(name, {})
            for name_of_size in sizes:
                if (price := table.get(f"{name_of_size} {total}")) is not None:
                    return math.ceil(price)
                if (rate := table.get(name_of_size)) is not None:
                    return math.ceil(rate * units)
        return None

    def default_prices(self) -> list[tuple[str, str, str, str, float]]:
        """Return all default prices: place, kind, model (or kind), shape, credits."""
        return [
            (place, "video" if name == "video" or self.knows_video(name) else "image", name, shape, price)
            for place, tables in self._prices.items()
            for name, lines in tables.items()
            for shape, price in lines.items()
        ]

    def nearest_resolution(self, model: VideoModel, width: int, height: int) -> str:
        """Return the model's resolution whose short side is nearest to that of the requested size."""
        short = min(width, height)
        return min(model.resolutions, key=lambda name: abs(min(self.video_size("1:1", name)) - short))

    def nearest_size(self, model: ImageModel, width: int, height: int) -> Size:
        """Return the model's size nearest to the requested one: nearest ratio, then nearest longer side."""
        ratio = nearest_ratio(self.ratios, width, height)
        options = [self.size(ratio, resolution) for resolution in model.resolutions]
        return min(options, key=lambda s: abs(max(s.width, s.height) - max(width, height)))


def _sides(ratio: str) -> tuple[int, int]:
    wide, _, high = ratio.partition(":")
    return int(wide), int(high)


def nearest_ratio(ratios: Iterable[str], width: int, height: int) -> str:
    """Return the ratio nearest to the requested size."""
    requested = width / height

    def distance(ratio: str) -> float:
        wide, high = _sides(ratio)
        return max(requested / (wide / high), (wide / high) / requested)

    return min(ratios, key=distance)


def _unknown(name: str | None, example: str) -> DreameryError:
    return DreameryError(
        "model_not_found",
        f"Unknown model {(name or '')[:80]!r}. `GET /v1/models` lists the available ones, for example {example!r}.",
        param="model",
    )


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    # Not a colon: what follows it is a suffix such as `:2k`.
    return re.compile("[^:]*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)


def _fixed_size(row: dict[str, Any]) -> Size:
    width, height = row["size"]
    return Size(width=width, height=height, ratio=row["ratio"], resolution=row["resolution"])


def _image_model(row: dict[str, Any]) -> ImageModel:
    only_us = row.get("only_us")
    return ImageModel(
        id=row["id"],
        name=row["name"],
        key=row["key"],
        key_cn=row.get("key_cn", row["key"]),
        where=frozenset(row["where"]),
        resolutions=tuple(row["resolutions"]),
        counts=tuple(row["counts"]),
        aliases=tuple(row["aliases"]),
        only_us=_fixed_size(only_us) if only_us else None,
        references=row.get("references", 0),
        series=row.get("series", False),
        disputed=frozenset(row.get("disputed", ())),
    )


def _video_model(row: dict[str, Any], ratios: list[str]) -> VideoModel:
    up_to = {int(limit): benefit for limit, benefit in row.get("benefit_up_to", {}).items()}
    return VideoModel(
        id=row["id"],
        name=row["name"],
        key=row["key"],
        where=frozenset(row["where"]),
        durations=tuple(row["durations"]),
        resolutions=tuple(row["resolutions"]),
        ratios=tuple(row.get("ratios", ratios)),
        benefit=row["benefit"],
        aliases=tuple(row["aliases"]),
        first_frame=row.get("first_frame", True),
        end_frame=row.get("end_frame", False),
        omni=row.get("omni", False),
        sends_resolution=row.get("sends_resolution", False),
        amount=row.get("amount", False),
        draft_mode=row.get("draft_mode", False),
        min_version=row.get("min_version", ""),
        features=tuple(row.get("features", ())),
        benefit_omni=row.get("benefit_omni", ""),
        benefit_resolution=tuple(row.get("benefit_resolution", {}).items()),
        benefit_up_to=tuple(sorted(up_to.items())),
        disputed=frozenset(row.get("disputed", ())),
    )


@lru_cache(maxsize=1)
def get_catalog() -> Catalog:
    """Return the built-in catalog with the changes of the operator's file."""
    return Catalog(catalog_overrides.load(get_settings().catalog_file, catalog_overrides.shipped_data()))

"""The model catalog: the models of all providers by name, their regions, sizes and lengths.

The data is in `providers/NAME.toml`, and names that tools have built in are in `names.toml`; no code names a model.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic

from worker.core import catalog_overrides
from worker.core.catalog.model_rows import image_model, video_model
from worker.core.catalog.model_types import ADAPTIVE, DEFAULT_COUNT, ImageModel, Kind, Model, Size, VideoModel
from worker.core.errors import DreameryError
from worker.core.settings import get_settings

__all__ = [
    "DEFAULT_COUNT",
    "Catalog",
    "ImageModel",
    "Kind",
    "Model",
    "Route",
    "Size",
    "VideoModel",
    "get_catalog",
    "nearest_ratio",
]


@dataclass(frozen=True, slots=True)
class Route(Generic[Kind]):
    """The models that a name may mean, best first.

    `chosen` = the operator's file has a route for the name: then the next model is used if no account of the one before
    it can work now. Otherwise the first model of which there is an account is used, and no other.
    """

    models: tuple[Kind, ...]
    chosen: bool = False


class _Names(Generic[Kind]):
    """The models of one kind by their names."""

    def __init__(self, models: list[Kind], defaults: list[str], routes: dict[str, list[str]]) -> None:
        self.models: list[Kind] = models
        self.by_id: dict[str, Kind] = {one.id: one for one in models}
        self.defaults: list[Kind] = [self.by_id[name] for name in defaults]
        self._by_name: dict[str, list[Kind]] = {}
        model: Kind
        for model in models:
            for name in (model.id, *model.aliases):
                self._by_name.setdefault(name, []).append(model)
        for model in models:
            # A vendor's own name means first its model, then those that other providers have under the public name.
            others = [other for other in self._by_name[model.id] if other.provider != model.provider]
            for name in model.keys.intersection(model.aliases):
                self._by_name[name] += [other for other in others if other not in self._by_name[name]]
        self._routes = routes

    def route(self, name: str | None) -> Route[Kind] | None:
        """Return what a name means; None = no name of this kind. Without a name the default models."""
        if name is not None and (
            chosen := [self.by_id[one] for one in self._routes.get(name, ()) if one in self.by_id]
        ):
            return Route(tuple(chosen), chosen=True)
        found = self.defaults if name is None else self._by_name.get(name)
        return Route(tuple(found)) if found else None


class Catalog:
    """Models by public id or alias, sizes and default prices."""

    def __init__(self, data: dict[str, Any]) -> None:
        tables = data["providers"]
        self.ratios: tuple[str, ...] = tuple(data["ratios"])
        self.sizes: dict[str, dict[str, list[int]]] = data["sizes"]
        routes: dict[str, list[str]] = data["routes"]
        self._images = _Names(
            [image_model(row, tables[row["provider"]]) for row in data["image"]], data["defaults"]["image"], routes
        )
        self._videos = _Names(
            [video_model(row, tables[row["provider"]]) for row in data["video"]], data["defaults"]["video"], routes
        )
        self.image_models, self.video_models = self._images.models, self._videos.models
        self.default_image_model: str = data["default_image_model"]
        self.default_video_model: str = data["default_video_model"]
        # The operator's order of currencies, where accounts in several of them fit a job.
        self.currencies: tuple[str, ...] = tuple(data["currencies"])
        self._prices: dict[str, dict[str, dict[str, float]]] = data.get("prices", {})
        self._name_patterns = [
            (_compile_pattern(pattern), targets) for pattern, targets in data["name_patterns"].items()
        ]
        self._removed_names = frozenset(data.get("removed_names", ()))
        self._ended = {name: row for row in data["ended"] for name in (row["id"], *row.get("ids", {}).values())}

    # --- by name

    def find_image(self, model_id: str) -> ImageModel | None:
        """Return the image model with this public id, such as `jobs.model`; None = there is none."""
        return self._images.by_id.get(model_id)

    def find_video(self, model_id: str) -> VideoModel | None:
        """Return the video model with this public id, such as `jobs.model`; None = there is none."""
        return self._videos.by_id.get(model_id)

    def image_route(self, name: str | None) -> Route[ImageModel]:
        """Return the models that a public id, alias or built-in name may mean; None = the default models.

        Raises `model_not_found`, for a video model with the call that takes it.
        """
        route = self._route(self._images, name)
        if route is None:
            if name and self.knows_video(name):
                message = (
                    f"Model {name[:80]!r} generates videos: use /v1/videos, or an image model such as "
                    f"{self.default_image_model!r}."
                )
                raise DreameryError("model_not_found", message, param="model")
            raise self._unknown(name, self.default_image_model)
        return route

    def video_route(self, name: str | None) -> Route[VideoModel]:
        """Return the models that a public id, alias or built-in name may mean; None = the default models.

        Raises `model_not_found`, for an image model with the call that takes it.
        """
        route = self._route(self._videos, name)
        if route is None:
            if name and self.knows_image(name):
                message = (
                    f"Model {name[:80]!r} generates images: use /v1/images/generations, or a video model such as "
                    f"{self.default_video_model!r}."
                )
                raise DreameryError("model_not_found", message, param="model")
            raise self._unknown(name, self.default_video_model)
        return route

    def image_model(self, name: str | None, providers: Collection[str] = ()) -> ImageModel:
        """Return the first model that a name may mean, of these providers if one of them has it. Raises like
        `image_route`.
        """
        return _first(self.image_route(name), providers)

    def video_model(self, name: str | None, providers: Collection[str] = ()) -> VideoModel:
        """Return the first model that a name may mean, of these providers if one of them has it. Raises like
        `video_route`.
        """
        return _first(self.video_route(name), providers)

    def knows_image(self, name: str) -> bool:
        """Return whether this public id, alias or built-in name is an image model."""
        return self._route(self._images, name) is not None

    def knows_video(self, name: str) -> bool:
        """Return whether this public id, alias or built-in name is a video model."""
        return self._route(self._videos, name) is not None

    def is_matched_by_pattern(self, name: str | None) -> bool:
        """Return whether only a pattern gives this name a model (`name_patterns`), so that the answer reports it."""
        return name is not None and bool(self._targets(name))

    def is_built_in_name(self, name: str | None) -> bool:
        """Return whether tools have this name built in, whatever model it means here."""
        return name is not None and (
            name in catalog_overrides.BUILT_IN_NAMES or any(one.fullmatch(name) for one, _ in self._name_patterns)
        )

    def _route(self, names: _Names[Kind], name: str | None) -> Route[Kind] | None:
        targets = [] if name is None else self._targets(name)
        models = tuple(names.by_id[one] for one in targets if one in names.by_id)
        return Route(models) if models else names.route(name or None)

    def _targets(self, name: str) -> list[str]:
        """Return the models that a pattern gives a name that no model has."""
        if name in self._removed_names or any(names.route(name) for names in (self._images, self._videos)):
            return []
        return next((targets for pattern, targets in self._name_patterns if pattern.fullmatch(name)), [])

    def _unknown(self, name: str | None, example: str) -> DreameryError:
        ended = self._ended.get(name or "")
        if ended is None:
            asked = (name or "")[:80]
            message = f"Unknown model {asked!r}. `GET /v1/models` lists the available ones, for example {example!r}."
        elif "follower" in ended:
            message = f"Model {ended['id']!r} is not sold any more. Use {ended['follower']!r}, its successor."
        else:
            message = f"Model {ended['id']!r} is not sold any more. `GET /v1/models` lists the available ones."
        return DreameryError("model_not_found", message, param="model")

    def find_video_models(
        self,
        *,
        first_frame: bool = False,
        end_frame: bool = False,
        omni: bool = False,
        seconds: int | None = None,
        resolution: str | None = None,
        ratio: str | None = None,
        region: str = "",
        provider: str | None = None,
    ) -> list[str]:
        """Return the public ids of the models that support all of it, for error messages."""
        return [
            model.id
            for model in self.video_models
            if (provider is None or model.provider == provider)
            and (model.first_frame or not first_frame)
            and (model.end_frame or not end_frame)
            and (model.omni or not omni)
            and (seconds is None or seconds in model.durations)
            and (resolution is None or resolution in model.resolutions)
            and (ratio is None or ratio in model.ratios)
            and (model.is_available_in(region) if region else bool(model.sold_in))
        ]

    # --- sizes

    def video_size(self, ratio: str, resolution: str, model: str = "") -> tuple[int, int]:
        """Return the expected width and height of a video; sides are even. Without a known model: of a usual one."""
        known = self.find_video(model) or next(
            one for one in (*self.video_models, self.video_models[0]) if resolution in one.resolutions or not resolution
        )
        return known.frame(ratio, resolution if resolution in known.resolutions else known.resolutions[0])

    def nearest_resolution(self, model: VideoModel, width: int, height: int) -> str:
        """Return the model's resolution whose short side is nearest to that of the requested size."""
        short = min(width, height)
        return min(model.resolutions, key=lambda name: abs(min(model.frame("16:9", name)) - short))

    def nearest_size(self, model: ImageModel, width: int, height: int) -> Size:
        """Return the size that the model makes: exactly the requested one if it can, else the nearest of its table.

        With a table alone the nearest is that of the nearest ratio, then of the nearest longer side.
        """
        ratio = nearest_ratio(model.ratios, width, height)
        if model.free_area is not None:
            exact = (width, height) if model.accepts_size(width, height) else model.nearest_size(width, height)
            ratio = nearest_ratio(model.ratios, *exact)
            resolution = min(model.resolutions, key=lambda name: abs(_area(model, name) - exact[0] * exact[1]))
            return Size(*exact, ratio, resolution)
        options = [model.size(ratio, resolution) for resolution in model.resolutions]
        return min(options, key=lambda s: abs(max(s.width, s.height) - max(width, height)))

    # --- prices in credits

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


def _first(route: Route[Kind], providers: Collection[str]) -> Kind:
    return next((model for model in route.models if model.provider in providers), route.models[0])


def _area(model: ImageModel, resolution: str) -> int:
    width, height = next(iter(model.sizes[resolution].values()))
    return width * height


def nearest_ratio(ratios: Iterable[str], width: int, height: int) -> str:
    """Return the ratio nearest to the requested size."""
    requested = width / height

    def distance(ratio: str) -> float:
        wide, high = (int(side) for side in ratio.split(":"))
        return max(requested / (wide / high), (wide / high) / requested)

    return min((ratio for ratio in ratios if ratio != ADAPTIVE), key=distance)


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    # Not a colon: what follows it is a suffix such as `:2k`.
    return re.compile("[^:]*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE)


@lru_cache(maxsize=1)
def get_catalog() -> Catalog:
    """Return the built-in catalog with the changes of the operator's file."""
    return Catalog(catalog_overrides.load(get_settings().catalog_file, catalog_overrides.shipped_data()))

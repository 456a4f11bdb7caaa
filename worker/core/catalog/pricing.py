"""The price of a job in credits: learned prices first, then the catalog's default prices. Pure; no I/O.

A price belongs to a place (the region of an account), a model and a shape: the resolution, a variant (`omni` videos)
and the units (images, or seconds of video). A job without a learned or default price has no price; nothing is guessed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.core.catalog.models import DEFAULT_COUNT, Catalog
from worker.core.catalog.prompt_flags import requested_series_count

LEARNED, SCALED, CATALOG = "learned", "scaled", "catalog"


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties of an order that determine its price. `units`: images, or seconds of video."""

    size: str
    units: int
    variant: str = ""


@dataclass(frozen=True, slots=True)
class KnownPrice:
    """A price that upstream has charged."""

    place: str
    shape: Shape
    credits: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """The credits of one job and the source of the price.

    `learned` = upstream charged it for such a job, `scaled` = computed from another number or length, `catalog` = the
    default price.
    """

    credits: int
    source: str
    place: str
    at: datetime | None = None  # when it was learned


def shape_of(kind: str, model: str, params: dict[str, Any], catalog: Catalog) -> Shape | None:
    """Return the shape of a job's order, or None (conversations and jobs started by the agent have none)."""
    order = params.get("order", {})
    size = order.get("resolution")
    if not size:
        return None
    if kind == "video":
        seconds = order.get("seconds")
        return Shape(size, int(seconds), "omni" if order.get("parts") else "") if seconds else None
    return Shape(size, order.get("count") or _image_count(model, order, catalog)) if kind == "image" else None


def _image_count(model: str, order: dict[str, Any], catalog: Catalog) -> int:
    """Return the number of images of an order without a count."""
    if not catalog.knows_image(model):
        return DEFAULT_COUNT
    image_model = catalog.image_model(model)
    series = requested_series_count(order.get("prompt", "")) if image_model.series else None
    return series or image_model.default_count


def find_price(
    place: str, *, kind: str, model: str, shape: Shape, known: Iterable[KnownPrice], catalog: Catalog
) -> Price | None:
    """Return the price of a job of this shape in one place, or None."""
    candidates = [one for one in known if one.place == place and one.shape.size == shape.size]
    # An omni video costs at least as much as a plain one, so the plain price is a lower estimate.
    for variant in dict.fromkeys((shape.variant, "")):
        same_variant = [one for one in candidates if one.shape.variant == variant]
        if exact := [one for one in same_variant if one.shape.units == shape.units]:
            newest = max(exact, key=lambda one: one.at)
            return Price(newest.credits, LEARNED if variant == shape.variant else SCALED, place, newest.at)
        if same_variant:
            newest = max(same_variant, key=lambda one: one.at)
            scaled = math.ceil(newest.credits * shape.units / newest.shape.units)
            return Price(scaled, SCALED, place, newest.at)
    default = catalog.default_price(place, kind, model, size=shape.size, units=shape.units, variant=shape.variant)
    return None if default is None else Price(default, CATALOG, place)


def find_highest_price(
    places: Iterable[str], *, kind: str, model: str, shape: Shape, known: list[KnownPrice], catalog: Catalog
) -> Price | None:
    """Return the highest price of all places in which the job can run, or None."""
    prices = (
        find_price(place, kind=kind, model=model, shape=shape, known=known, catalog=catalog) for place in sorted(places)
    )
    return max((price for price in prices if price), key=lambda price: price.credits, default=None)

"""The price of a job. In credits: learned prices first, then the catalog's default prices. Pure; no I/O.

A price belongs to a place (the region of an account), a model and a shape: the resolution, a variant (`omni` videos)
and the units (images, or seconds of video). A job without a learned or default price has no price; nothing is guessed.
Prices in money are those of the model and the account (`worker.core.catalog.money`).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.core.catalog.models import DEFAULT_COUNT, Catalog
from worker.core.catalog.money import Pricing, find_cost
from worker.core.catalog.prompts.prompt_flags import requested_series_count

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
    """The credits of one job, or its thousandths of `currency`, and the source of the price.

    `learned` = upstream charged it for such a job, `scaled` = computed from another number or length, `catalog` = the
    default price.
    """

    credits: int
    source: str
    place: str
    at: datetime | None = None  # when it was learned
    currency: str | None = None


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
    image_model = catalog.find_image(model)
    if image_model is None:
        return DEFAULT_COUNT
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


def find_pricing(catalog: Catalog, kind: str, model: str) -> Pricing | None:
    """Return what the price of a model in money depends on; None = unknown model."""
    found = catalog.find_video(model) if kind == "video" else catalog.find_image(model)
    return found.pricing if found is not None else None


def find_price_in_money(
    pricing: Pricing | None, params: Mapping[str, Any], currency: str, accounts: Iterable[Mapping[str, Any]]
) -> Price | None:
    """Return the highest price of a job on accounts with these own prices (`accounts.prices`); None = unknown."""
    costs = [find_cost(pricing, params, currency, own) if pricing else None for own in accounts]
    known = [cost[1] for cost in costs if cost is not None]
    return Price(max(known), CATALOG, currency, currency=currency) if known and len(known) == len(costs) else None

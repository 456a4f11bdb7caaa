"""What a job costs in credits: learned prices first, the catalog's starting values after them. Pure; no I/O.

A price belongs to a place (an account's region), a model and a shape: the resolution, a variant (`omni` videos), and
how much is made of it (pictures, or seconds of video). Nothing is guessed: what neither was learned nor stands in the
catalog has no price.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from worker.core.catalog.models import DEFAULT_COUNT, Catalog
from worker.core.catalog.prompt_flags import series_asked

LEARNED, SCALED, CATALOG = "learned", "scaled", "catalog"


@dataclass(frozen=True, slots=True)
class Shape:
    """What of an order decides its price. `units`: pictures, or seconds."""

    size: str
    units: int
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A price that upstream was seen to charge."""

    place: str
    shape: Shape
    credits: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """Credits of one job and how they are known.

    `learned` = upstream charged it for such a job, `scaled` = for another number or length of them, `catalog` = a
    starting value.
    """

    credits: int
    source: str
    place: str
    at: datetime | None = None  # when it was learned


def shape_of(kind: str, model: str, params: dict[str, Any], catalog: Catalog) -> Shape | None:
    """The shape of a job's order; None when it has none (conversations, and what an agent started)."""
    order = params.get("order", {})
    size = order.get("resolution")
    if not size:
        return None
    if kind == "video":
        seconds = order.get("seconds")
        return Shape(size, int(seconds), "omni" if order.get("parts") else "") if seconds else None
    return Shape(size, order.get("count") or _pictures(model, order, catalog)) if kind == "image" else None


def _pictures(model: str, order: dict[str, Any], catalog: Catalog) -> int:
    """How many pictures come of an order that names no number."""
    if not catalog.knows_image(model):
        return DEFAULT_COUNT
    known = catalog.image_model(model)
    series = series_asked(order.get("prompt", "")) if known.series else None
    return series or known.default_count


def price_in(
    place: str, *, kind: str, model: str, shape: Shape, known: Iterable[Known], catalog: Catalog
) -> Price | None:
    """The price of a job of that shape at one place; None = not known."""
    here = [one for one in known if one.place == place and one.shape.size == shape.size]
    # An omni video costs at least what the plain one does, which is better than nothing to go by.
    for variant in dict.fromkeys((shape.variant, "")):
        alike = [one for one in here if one.shape.variant == variant]
        if exact := [one for one in alike if one.shape.units == shape.units]:
            newest = max(exact, key=lambda one: one.at)
            return Price(newest.credits, LEARNED if variant == shape.variant else SCALED, place, newest.at)
        if alike:
            newest = max(alike, key=lambda one: one.at)
            scaled = math.ceil(newest.credits * shape.units / newest.shape.units)
            return Price(scaled, SCALED, place, newest.at)
    started = catalog.starting_price(place, kind, model, size=shape.size, units=shape.units, variant=shape.variant)
    return None if started is None else Price(started, CATALOG, place)


def price_anywhere(
    places: Iterable[str], *, kind: str, model: str, shape: Shape, known: list[Known], catalog: Catalog
) -> Price | None:
    """The price to reckon with when the job may run at several places: the highest that is known."""
    found = (
        price_in(place, kind=kind, model=model, shape=shape, known=known, catalog=catalog) for place in sorted(places)
    )
    return max((price for price in found if price), key=lambda price: price.credits, default=None)

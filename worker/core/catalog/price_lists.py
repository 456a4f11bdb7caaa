"""Price lists in money: the lines of a model's list, and the check of an account's own prices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.core.catalog.money import (
    ALL_MODELS,
    CURRENCIES,
    Pricing,
    VideoPrice,
    read_image_price,
    read_video_price,
)

_HIGHEST_FACTOR, _HIGHEST_PRICE = 100, 1_000_000


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One number of a price list: what it is for, such as `720p with clips`, and of what it is the price."""

    currency: str
    shape: str
    price: float
    unit: str


def price_lines(pricing: Pricing) -> list[PriceLine]:
    """Return the list prices of a model."""
    lines: list[tuple[str, str, float | None, str]] = []
    for price in pricing.prices:
        if isinstance(price, VideoPrice):
            shape, tokens = " ".join(price.resolutions), "million tokens"
            lines.append((price.currency, shape, price.plain, tokens))
            lines.append((price.currency, f"{shape} with clips", price.clip, tokens))
            lines.append((price.currency, f"{shape} flex", price.flex, tokens))
        else:
            shape = f"up to {price.max_area} pixels" if price.max_area else "any size"
            lines.append((price.currency, shape, price.image, "image"))
            lines.append((price.currency, shape, price.layer or None, "layer"))
            lines.append((price.currency, shape, price.per_input or None, "input image"))
            lines.append((price.currency, shape, price.per_input_from_second or None, "input image after the first"))
    return [PriceLine(currency, shape, number, unit) for currency, shape, number, unit in lines if number is not None]


def check_own_prices(own: Mapping[str, Any]) -> None:
    """Check `accounts.prices`: model, or `*` for all -> `factor` of the list price, or `prices` as in the data.

    Raises ValueError with what is wrong.
    """
    for model, entry in own.items():
        if not isinstance(entry, Mapping) or not entry or set(entry) - {"factor", "prices"}:
            raise ValueError(f"{model}: has `factor`, or `prices`, or both")
        factor = entry.get("factor", 1)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor <= _HIGHEST_FACTOR:
            raise ValueError(f"{model}: `factor` is a number from 0 to {_HIGHEST_FACTOR}, such as 0.8")
        rows = entry.get("prices", [])
        if not isinstance(rows, list) or (model == ALL_MODELS and rows):
            raise ValueError(f"{model}: `prices` is a list of rows of one model")
        for row in rows:
            _check_row(model, row)


def _check_row(model: str, row: Any) -> None:
    read = read_video_price if isinstance(row, Mapping) and "resolutions" in row else read_image_price
    try:
        price = read({"currency": CURRENCIES[0], **row})
        numbers = [getattr(price, name) for name in price.__slots__ if name not in {"currency", "resolutions"}]
    except (KeyError, TypeError):
        raise ValueError(f"{model}: a row of `prices` has the fields of the data (`picture`, or `plain`)") from None
    for number in numbers:
        if number is not None and (
            isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= _HIGHEST_PRICE
        ):
            raise ValueError(f"{model}: {number!r} is no price")

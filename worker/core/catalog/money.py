"""Prices of models that an upstream sells for money, per image or per token. Pure; no I/O.

Amounts of money are thousandths of a currency, as whole numbers. A job holds the most that it may cost (rounded up)
from its acceptance on; its `Rates` are kept with it when it is submitted, and settle what upstream reports at its end.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

CURRENCIES = ("USD", "CNY")
PER_UNIT = 1000
# What a column of the database holds: two million of a currency. More is a mistake in a price.
_MOST = 2**31 - 1
_TOKENS_PER_PRICE = 1_000_000
_PIXELS_PER_TOKEN = 1024
# In `accounts.prices`: for all models without an entry of their own.
ALL_MODELS = "*"
_COST_LIMIT = re.compile(
    rf"(?P<amount>[0-9]{{1,7}}(\.[0-9]{{1,9}})?)( ?(?P<currency>{'|'.join(CURRENCIES)}))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ImagePrice:
    """Prices of images up to `max_area` pixels (0 = any), in `currency`. `layer` 0 = like an image."""

    currency: str
    max_area: int
    image: float
    per_input: float = 0.0
    per_input_from_second: float = 0.0
    layer: float = 0.0


@dataclass(frozen=True, slots=True)
class VideoPrice:
    """Prices per million output tokens in these resolutions; None = not sold that way or unknown."""

    currency: str
    resolutions: tuple[str, ...]
    plain: float
    clip: float | None = None
    flex: float | None = None


def read_image_price(row: Mapping[str, Any]) -> ImagePrice:
    """Return the price of a row of the data."""
    return ImagePrice(
        currency=row["currency"],
        max_area=row.get("max_area", 0),
        image=row["picture"],
        per_input=row.get("per_input_image", 0.0),
        per_input_from_second=row.get("per_input_image_from_second", 0.0),
        layer=row.get("layer", 0.0),
    )


def read_video_price(row: Mapping[str, Any]) -> VideoPrice:
    """Return the price of a row of the data."""
    return VideoPrice(row["currency"], tuple(row["resolutions"]), row["plain"], row.get("clip"), row.get("flex"))


Frames = Mapping[str, Mapping[str, tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class ImagePricing:
    """What the price of a model's images depends on. `sizes`: resolution -> ratio -> (width, height)."""

    name: str
    sizes: Frames
    max_layers: int
    prices: Sequence[ImagePrice]


@dataclass(frozen=True, slots=True)
class VideoPricing:
    """What the price of a model's videos depends on. `frames`: resolution -> ratio -> (width, height)."""

    name: str
    frames: Frames
    fps: int
    max_seconds: int
    max_clip_seconds: int  # of all reference videos together; 0 = no limit
    prices: Sequence[VideoPrice]


Pricing = ImagePricing | VideoPricing


@dataclass(frozen=True, slots=True)
class Clips:
    """The reference videos of an order: how many, and their seconds together."""

    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """The unit prices of one job. Video: `per_million` tokens. Images: `images` = (largest area, price of each)."""

    currency: str
    per_million: Decimal | None = None
    images: tuple[tuple[int, Decimal], ...] = ()
    per_input: Decimal = Decimal(0)
    per_input_from_second: Decimal = Decimal(0)

    def as_dict(self) -> dict[str, Any]:
        """Return the rates as `jobs.rates` keeps them."""
        if self.per_million is not None:
            return {"currency": self.currency, "per_million": str(self.per_million)}
        return {
            "currency": self.currency,
            "images": [[area, str(each)] for area, each in self.images],
            "per_input": str(self.per_input),
            "per_input_from_second": str(self.per_input_from_second),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Rates":
        """Return the rates of `jobs.rates`."""
        if "per_million" in values:
            return cls(values["currency"], Decimal(values["per_million"]))
        return cls(
            values["currency"],
            images=tuple((area, Decimal(each)) for area, each in values["images"]),
            per_input=Decimal(values["per_input"]),
            per_input_from_second=Decimal(values["per_input_from_second"]),
        )

    def image_price(self, area: int) -> Decimal:
        """Return the price of one image of this area in pixels; 0 = unknown, the highest price."""
        fitting = [each for limit, each in self.images if area > 0 and (not limit or area <= limit)]
        return fitting[0] if fitting else max(each for _, each in self.images)


# ---- what a job may cost


def find_rates(
    pricing: Pricing, params: Mapping[str, Any], currency: str, own: Mapping[str, Any] | None = None
) -> Rates | None:
    """Return the unit prices of a job in a currency; None = unknown. `own` = `accounts.prices` of the account."""
    factor, rows = _own_prices(pricing.name, own or {})
    if isinstance(pricing, VideoPricing):
        videos = pricing.prices if rows is None else [read_video_price({"currency": currency, **row}) for row in rows]
        return _video_rates(videos, params, currency, factor)
    images = pricing.prices if rows is None else [read_image_price({"currency": currency, **row}) for row in rows]
    return _image_rates(images, params, currency, factor)


def _video_rates(
    prices: Iterable[VideoPrice], params: Mapping[str, Any], currency: str, factor: Decimal
) -> Rates | None:
    order = params["order"]
    price = next((one for one in prices if one.currency == currency and order["resolution"] in one.resolutions), None)
    if price is None:
        return None
    options = order.get("options") or {}
    unit = price_per_million(price, has_clip=clips_of(params) is not None, flex=options.get("service_tier") == "flex")
    return Rates(currency, _exact(unit) * factor)


def _image_rates(
    prices: Iterable[ImagePrice], params: Mapping[str, Any], currency: str, factor: Decimal
) -> Rates | None:
    rows = [one for one in prices if one.currency == currency]
    if not rows:
        return None
    layers = _makes_layers(params["order"])
    return Rates(
        currency,
        images=tuple(
            (one.max_area, _exact(one.layer if layers and one.layer else one.image) * factor)
            for one in sorted(rows, key=lambda row: row.max_area or math.inf)
        ),
        per_input=_exact(rows[0].per_input) * factor,
        per_input_from_second=_exact(rows[0].per_input_from_second) * factor,
    )


def price_per_million(price: VideoPrice, *, has_clip: bool, flex: bool) -> float:
    """Return the price of a million tokens. A price that is not known counts as the plain one."""
    if flex and price.flex is not None:
        return price.flex
    if has_clip and price.clip is not None:
        return price.clip
    return price.plain


def clips_of(params: Mapping[str, Any]) -> Clips | None:
    """Return the reference videos of a video job; None = it has none.

    `params["clips"]` = their seconds, None where the length is not known yet.
    """
    clips = params.get("clips") or []
    if not clips:
        return None
    known = all(seconds is not None for seconds in clips)
    return Clips(len(clips), math.fsum(clips) if known else math.inf)


def highest_cost(pricing: Pricing, params: Mapping[str, Any], rates: Rates) -> int:
    """Return the most that a job may cost.

    A length that the model chooses counts as its longest, a ratio that it chooses as the largest frame, layers as the
    most it may make.
    """
    order = params["order"]
    if isinstance(pricing, VideoPricing):
        return _round_up(_video_cost(_most_tokens(pricing, order, clips_of(params)), rates))
    images = 1 + pricing.max_layers if _makes_layers(order) else order.get("count") or 1
    inputs = len(params.get("images") or ())
    return _round_up(_image_cost([_largest_area(pricing, order)] * images, inputs, rates))


def find_cost(
    pricing: Pricing, params: Mapping[str, Any], currency: str, own: Mapping[str, Any]
) -> tuple[Rates, int] | None:
    """Return the unit prices of a job on an account, and the most that it may cost; None = unknown."""
    rates = find_rates(pricing, params, currency, own)
    return None if rates is None else (rates, min(highest_cost(pricing, params, rates), _MOST))


def _makes_layers(order: Mapping[str, Any]) -> bool:
    return bool((order.get("options") or {}).get("layers"))


def _most_tokens(pricing: VideoPricing, order: Mapping[str, Any], clips: Clips | None) -> int:
    """Return the most tokens of a video. With clips, upstream charges a minimum that it does not publish: at least
    twice the output counts.
    """
    seconds = order.get("seconds") or -1
    length = pricing.max_seconds if seconds < 0 else seconds
    frames = pricing.frames[order["resolution"]]
    width, height = frames.get(order.get("ratio") or "") or max(frames.values(), key=_area)
    own = video_tokens(width, height, length, fps=pricing.fps)
    if clips is None:
        return own
    clip_seconds = min(clips.seconds, pricing.max_clip_seconds or clips.count * length)
    return max(video_tokens(width, height, length, fps=pricing.fps, clip_seconds=clip_seconds), 2 * own)


def _largest_area(pricing: ImagePricing, order: Mapping[str, Any]) -> int:
    """Return the pixels of an image; of a size class, those of its largest ratio."""
    if order.get("width") and order.get("height") and not (order.get("options") or {}).get("size_class"):
        return int(order["width"]) * int(order["height"])
    sizes = pricing.sizes.get(order.get("resolution") or "", {})
    return max(map(_area, sizes.values()), default=0)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def video_tokens(width: int, height: int, seconds: float, *, fps: int = 24, clip_seconds: float = 0.0) -> int:
    """Return the tokens of a video. Upstream counts one frame more than its length has."""
    frames = math.ceil((seconds + clip_seconds) * fps) + 1
    return math.ceil(width * height * frames / _PIXELS_PER_TOKEN)


# ---- what it did cost


def charge_of(rates: Rates, usage: Mapping[str, Any]) -> int | None:
    """Return what a finished job costs by the usage that upstream reported; None = it reported none.

    `usage`: `tokens` of a video; `images` that were made, their `areas` in pixels as far as known, and `inputs`.
    """
    if rates.per_million is not None:
        tokens = usage.get("tokens")
        return None if tokens is None else _round(_video_cost(max(tokens, 0), rates))
    images = usage.get("images")
    if images is None:
        return None
    areas = [*usage.get("areas", ())][: max(images, 0)]
    # Those whose size upstream did not tell.
    more = max(images, 0) - len(areas)
    inputs = max(usage.get("inputs", 0), 0) if images > 0 else 0
    return _round(_image_cost(areas, inputs, rates) + (more * rates.image_price(0) if more else 0))


def _video_cost(tokens: int, rates: Rates) -> Decimal:
    return Decimal(tokens) / _TOKENS_PER_PRICE * (rates.per_million or 0)


def _image_cost(areas: Sequence[int], inputs: int, rates: Rates) -> Decimal:
    more = rates.per_input * inputs + rates.per_input_from_second * max(inputs - 1, 0)
    return sum((rates.image_price(area) for area in areas), Decimal(0)) + more


def _exact(price: float) -> Decimal:
    return Decimal(str(price))


def _round_up(amount: Decimal) -> int:
    return math.ceil(amount * PER_UNIT)


def _round(amount: Decimal) -> int:
    return round(amount * PER_UNIT)


# ---- prices of single accounts


def _own_prices(model: str, own: Mapping[str, Any]) -> tuple[Decimal, Sequence[Mapping[str, Any]] | None]:
    """Return the factor of an account's prices, and its own rows for the model; None = those of the data."""
    entry = own.get(model) or own.get(ALL_MODELS) or {}
    return _exact(entry.get("factor", 1)), entry.get("prices")


# ---- amounts


def to_amount(thousandths: int | None) -> float | None:
    """Return an amount of money as a decimal number."""
    return None if thousandths is None else thousandths / PER_UNIT


def from_amount(amount: float | str | Decimal) -> int:
    """Return a decimal amount in thousandths, rounded down."""
    return math.floor(Decimal(str(amount)) * PER_UNIT)


@dataclass(frozen=True, slots=True)
class CostLimit:
    """The most that a request may cost. `currency` None = in whatever currency its jobs run."""

    amount: int
    currency: str | None = None


def read_cost_limit(text: str | float) -> CostLimit:
    """Return the limit of `0.5` or `0.5 USD`. Raises ValueError."""
    match = _COST_LIMIT.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"must be an amount such as 0.5, or 0.5 {CURRENCIES[0]}")
    currency = match["currency"]
    return CostLimit(from_amount(match["amount"]), currency.upper() if currency else None)

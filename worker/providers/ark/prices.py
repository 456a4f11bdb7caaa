"""What a call costs, in credits: one credit is a thousandth of the account's currency.

Estimates are rounded up; a settlement takes the numbers that upstream reported, at the price of the submission.
"""

import math
from dataclasses import dataclass

from worker.providers.ark.models import ImageModel, VideoModel, VideoPrice

CREDITS_PER_UNIT = 1000
_TOKENS_PER_PRICE = 1_000_000
_PIXELS_PER_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class Clips:
    """The reference videos of an order: how many, and their seconds together."""

    count: int = 0
    seconds: float = 0.0


def video_tokens(width: int, height: int, seconds: float, *, fps: int = 24, clip_seconds: float = 0.0) -> int:
    """Return the tokens of a video. Upstream counts one frame more than its length has."""
    frames = math.ceil((seconds + clip_seconds) * fps) + 1
    return math.ceil(width * height * frames / _PIXELS_PER_TOKEN)


def find_video_price(model: VideoModel, currency: str, resolution: str) -> VideoPrice | None:
    """Return the price of a resolution in a currency; None = unknown."""
    return next(
        (price for price in model.prices if price.currency == currency and resolution in price.resolutions), None
    )


def price_per_million(price: VideoPrice, *, has_clip: bool, flex: bool) -> float:
    """Return the price of a million tokens. A price that is not known counts as the highest one."""
    if flex and price.flex is not None:
        return price.flex
    if has_clip and price.clip is not None:
        return price.clip
    return price.plain


def estimate_video(
    model: VideoModel,
    currency: str,
    *,
    resolution: str,
    ratio: str,
    seconds: int,
    clips: Clips | None = None,
    flex: bool = False,
) -> int | None:
    """Return the most credits that a video may cost; None = its price is unknown.

    A length that the model chooses counts as its longest, a ratio that it chooses as the largest frame. With clips,
    upstream charges a minimum that it does not publish: at least twice the output counts.
    """
    price = find_video_price(model, currency, resolution)
    if price is None:
        return None
    length = model.max_seconds if seconds < 0 else seconds
    frames = model.frames[resolution]
    width, height = frames.get(ratio) or max(frames.values(), key=lambda size: size[0] * size[1])
    own = video_tokens(width, height, length, fps=model.fps)
    tokens = own
    if clips is not None and clips.count:
        tokens = max(video_tokens(width, height, length, fps=model.fps, clip_seconds=clips.seconds), 2 * own)
    unit = price_per_million(price, has_clip=bool(clips and clips.count), flex=flex)
    return math.ceil(tokens / _TOKENS_PER_PRICE * unit * CREDITS_PER_UNIT)


def settle_video(tokens: int, unit: float) -> int:
    """Return the credits of a finished video: its reported tokens at the price per million of its submission."""
    return round(tokens / _TOKENS_PER_PRICE * unit * CREDITS_PER_UNIT)


def price_images(
    model: ImageModel, currency: str, *, area: int, images: int, inputs: int = 0, layers: bool = False
) -> int | None:
    """Return the credits of `images` images of this area in pixels; None = the price is unknown.

    Layers count as images, at their own price if there is one.
    """
    price = next(
        (one for one in model.prices if one.currency == currency and (not one.max_area or area <= one.max_area)), None
    )
    if price is None:
        return None
    each = price.layer if layers and price.layer else price.image
    total = each * images + price.per_input * inputs + price.per_input_from_second * max(inputs - 1, 0)
    return math.ceil(round(total * CREDITS_PER_UNIT, 6))

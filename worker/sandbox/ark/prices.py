"""List prices of the Ark interface, in thousandths of a dollar or yuan: upstream's own copy, for its ledger."""

from worker.sandbox.ark.models import base_name
from worker.sandbox.ark.requests import ImageOrder, VideoOrder

_MILLION = 1_000_000
# Per million tokens: resolutions -> (plain, with a reference video, flex); dollars and yuan.
_PLAIN, _CLIP, _FLEX = range(3)
_VIDEOS: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {
    "USD": {
        "seedance-2-5-260628": {"480p": (10.7, 6.4, 0), "720p": (10.7, 6.4, 0), "1080p": (11.7, 11.7, 0)},
        "seedance-2-0-260128": {
            "480p": (7.0, 4.3, 0),
            "720p": (7.0, 4.3, 0),
            "1080p": (7.7, 4.7, 0),
            "4k": (4.0, 2.4, 0),
        },
        "seedance-2-0-fast-260128": dict.fromkeys(("480p", "720p"), (5.6, 3.3, 0)),
        "seedance-2-0-mini-260615": dict.fromkeys(("480p", "720p"), (3.5, 2.1, 0)),
        "seedance-1-0-pro-250528": dict.fromkeys(("480p", "720p", "1080p"), (2.5, 2.5, 1.25)),
        "seedance-1-0-pro-fast-251015": dict.fromkeys(("480p", "720p", "1080p"), (1.0, 1.0, 0.5)),
    },
    "CNY": {
        "seedance-2-5-260628": {"480p": (70, 42, 0), "720p": (70, 42, 0), "1080p": (77, 77, 0)},
        "seedance-2-0-260128": {"480p": (46, 28, 0), "720p": (46, 28, 0), "1080p": (51, 31, 0), "4k": (26, 16, 0)},
        "seedance-2-0-fast-260128": dict.fromkeys(("480p", "720p"), (37, 22, 0)),
        "seedance-2-0-mini-260615": dict.fromkeys(("480p", "720p"), (23, 14, 0)),
        "seedance-1-0-pro-250528": dict.fromkeys(("480p", "720p", "1080p"), (15, 15, 7.5)),
    },
}
# Dollars per image: up to an area, above it, per input image, per input image from the second on, per layer up to the
# area and above it.
_IMAGES: dict[str, tuple[int, float, float, float, float, float, float]] = {
    "seedream-5-5-261028": (2_601_123, 0.020, 0.035, 0.008, 0.0, 0.020, 0.035),
    "seedream-5-0-pro-260628": (2_610_000, 0.045, 0.09, 0.0, 0.003, 0.0225, 0.045),
    "seedream-5-0-flash-260915": (0, 0.018, 0.018, 0.0, 0.0, 0.018, 0.018),
    "seedream-5-0-260128": (0, 0.035, 0.035, 0.0, 0.0, 0.035, 0.035),
    "seedream-4-5-251128": (0, 0.04, 0.04, 0.0, 0.0, 0.04, 0.04),
    "seedream-4-0-250828": (0, 0.03, 0.03, 0.0, 0.0, 0.03, 0.03),
}


def currency_of(model: str) -> str:
    """Return the currency in which a model is paid: Chinese names begin with `doubao-`."""
    return "CNY" if model.startswith("doubao-") else "USD"


def video_cost(order: VideoOrder, tokens: int) -> float | None:
    """Return what a finished video costs, in thousandths; None = its price is not published."""
    prices = _VIDEOS[currency_of(order.public)].get(base_name(order.public), {}).get(order.resolution)
    if prices is None:
        return None
    kind = _FLEX if order.flex else _CLIP if order.clips else _PLAIN
    return round(tokens / _MILLION * prices[kind] * 1000, 6)


def image_cost(order: ImageOrder, generated: int) -> float | None:
    """Return what `generated` images of a call cost, in thousandths; None = the price is not published."""
    row = _IMAGES.get(base_name(order.public)) if currency_of(order.public) == "USD" else None
    if row is None:
        return None
    area, small, large, per_input, from_second, small_layer, large_layer = row
    is_large = area and order.width * order.height > area
    each = (large_layer if is_large else small_layer) if order.layers else large if is_large else small
    total = each * generated
    if generated:
        total += per_input * order.inputs + from_second * max(order.inputs - 1, 0)
    return round(total * 1000, 6)

"""Checks inputs against what upstream accepts (`InputLimits` in the data of a model)."""

from worker.core.catalog.model_types import InputLimits

# Containers round lengths up.
_TOLERANCE_SECONDS = 0.2


def find_problem(
    limits: InputLimits,
    *,
    size: int = 0,
    width: int | None = None,
    height: int | None = None,
    seconds: float | None = None,
) -> str | None:
    """Return what upstream would not accept, as the end of a sentence; None = nothing. Unknown values pass."""
    if limits.bytes is not None and size > limits.bytes:
        return f"has {size / 1e6:.1f} MB; the maximum is {limits.bytes / 1e6:.0f} MB"
    if width and height:
        pixels = f"has {width}x{height} pixels"
        if limits.side is not None and not (
            limits.side[0] <= min(width, height) and max(width, height) <= limits.side[1]
        ):
            return f"{pixels}; each side must have {limits.side[0]} to {limits.side[1]}"
        if limits.ratio is not None and not limits.ratio[0] <= width / height <= limits.ratio[1]:
            return f"{pixels}; width / height must be {limits.ratio[0]:g} to {limits.ratio[1]:g}"
        if limits.area is not None and not limits.area[0] <= width * height <= limits.area[1]:
            return f"{pixels}; width x height must be {limits.area[0]} to {limits.area[1]}"
    if seconds is not None and limits.seconds is not None:
        least, most = limits.seconds
        if not least - _TOLERANCE_SECONDS <= seconds <= most + _TOLERANCE_SECONDS:
            return f"has {seconds:.1f} seconds; it must have {least:g} to {most:g}"
    return None

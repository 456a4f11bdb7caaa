"""The sizes and durations of OpenAI's Videos API, to which its SDKs and the tools built on them are limited."""

# What tools can send as `seconds` (openai-python 3.57: `VideoSeconds`, and the values of extensions).
OPENAI_SECONDS = frozenset({4, 8, 12, 16, 20})
# Name -> width and height. Strict SDK clients cannot parse a video, or a list with it, of any other `size`.
OPENAI_SIZES = {
    "1280x720": (1280, 720),
    "720x1280": (720, 1280),
    "1792x1024": (1792, 1024),
    "1024x1792": (1024, 1792),
}


def nearest_openai_size(width: int, height: int) -> str:
    """Return OpenAI's name of the size nearest to these pixels: the same orientation, then the nearest short side.

    A square counts as landscape.
    """
    is_landscape = width >= height
    names = [name for name, (wide, high) in OPENAI_SIZES.items() if (wide > high) == is_landscape]
    return min(names, key=lambda name: abs(min(OPENAI_SIZES[name]) - min(width, height)))

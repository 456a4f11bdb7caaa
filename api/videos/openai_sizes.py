"""The sizes of OpenAI's Videos API. Strict SDK clients cannot parse a video, or a list with it, of any other `size`."""

# Name -> width and height. The larger pair is OpenAI's for its higher resolution.
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

"""Names of kept thumbnails: beside their image, so that code that knows the image also knows what to delete with it."""

import re

# Pixels of the longer side.
SIDES = (128, 512)
_IMAGE = re.compile(r"\.(?:gif|jpe?g|png|webp)$")
_THUMBNAIL = re.compile(rf"\.thumbnail-(?:{'|'.join(map(str, SIDES))})\.webp$")


def thumbnail_key(key: str, side: int) -> str | None:
    """Return the storage key of a thumbnail, such as `jobs/1f/0.png.thumbnail-512.webp`; None = it is not kept."""
    return f"{key}.thumbnail-{side}.webp" if _IMAGE.search(key) and not _THUMBNAIL.search(key) else None


def thumbnail_keys(key: str) -> list[str]:
    """Return the storage keys of all thumbnails that a stored file may have."""
    return [name for side in SIDES if (name := thumbnail_key(key, side)) is not None]


def original_of(key: str) -> str:
    """Return the key of the image of a kept thumbnail; any other key is its own."""
    return _THUMBNAIL.sub("", key)

"""Creates small copies of images for pages that show many, in child processes."""

from typing import IO

from worker.core.media.image import MAX_INPUT_PIXELS, InvalidImageError
from worker.core.media.image_header import read_image_header
from worker.core.media.isolation.client import Limits, Work, on_disk
from worker.core.media.isolation.image_work import REASONS, memory_for, weight_of
from worker.core.media.isolation.protocol import IMAGES

_CPU_SECONDS, _WALL_SECONDS = 10, 30


def thumbnail_work(content: IO[bytes], *, side: int) -> Work[bytes]:
    """Return the work that makes a WebP with at most `side` pixels on its longer side. Raises InvalidImageError."""
    info = read_image_header(content)
    pixels = info.width * info.height
    if pixels > MAX_INPUT_PIXELS:
        raise InvalidImageError(REASONS["pixels"])
    return Work(
        IMAGES,
        "thumbnail",
        on_disk(content),
        Limits(memory_for(pixels), _CPU_SECONDS, _WALL_SECONDS),
        lambda _report, result: _read(result),
        lambda reason: InvalidImageError(REASONS.get(reason, REASONS["damaged"])),
        {"side": side},
        weight_of(pixels),
    )


def _read(result: IO[bytes]) -> bytes:
    with result:
        result.seek(0)
        return result.read()

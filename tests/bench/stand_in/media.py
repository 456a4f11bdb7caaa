"""The files that the stand-in of the upstream serves: a real WebP picture and a real MP4 video, each made once."""

import io
from functools import cache

from PIL import Image, ImageChops

from tests.support.media_files import make_video

_QUALITY = 80


@cache
def picture(size: int) -> bytes:
    """Return a WebP of `size` x `size` pixels. Fine and coarse noise gives it about 0.1 bytes a pixel, like a photo."""
    coarse = [
        Image.effect_noise((size // 64, size // 64), 160).resize((size, size), Image.Resampling.BICUBIC)
        for _ in range(3)
    ]
    fine = Image.effect_noise((size // 2, size // 2), 9).resize((size, size), Image.Resampling.BILINEAR)
    image = Image.merge("RGB", [ImageChops.add(channel, fine, scale=1.0, offset=-128) for channel in coarse])
    output = io.BytesIO()
    image.save(output, "WEBP", quality=_QUALITY, method=0)
    return output.getvalue()


@cache
def video() -> bytes:
    """Return an MP4 of five seconds."""
    return make_video("#204060", "#c08040", seconds=5, side=256)

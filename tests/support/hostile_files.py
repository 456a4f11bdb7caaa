"""Files that make decoders take much memory, much time, or fail in unusual ways."""

import base64
import io

from PIL import Image

from tests.support.media_files import make_audio, make_video

# 40 bytes: a lossless WebP of 64 megapixels of one colour.
WEBP_BOMB = base64.b64decode("UklGRiAAAABXRUJQVlA4TBQAAAAvP1/NBwdQgVQIIAAKmv7HiIj+Bw==")


def encode_image(kind: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: object) -> bytes:
    """Return an image with some structure."""
    content = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(content, kind, **options)
    return content.getvalue()


def slow_jpeg(passes: int = 20_000, *, side: int = 4000, orientation: int = 1) -> bytes:
    """Return a JPEG whose last pass is repeated: 31 bytes that the decoder applies to all pixels, again and again."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    image = Image.new("RGB", (side, side), "red")
    image.save(content, "JPEG", progressive=True, **({"exif": exif} if orientation != 1 else {}))
    data = content.getvalue()
    last_pass = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + passes * last_pass + data[-2:]


def video_with_unknown_codec() -> bytes:
    """Return an MP4 whose codec tag no library knows."""
    return make_video("red", "blue").replace(b"avc1", b"zzz1")


def wav_with_rate(rate: int) -> bytes:
    """Return a WAV that declares this number of samples per second."""
    data = bytearray(make_audio(kind="wav", codec="pcm_s16le"))
    data[24:28] = rate.to_bytes(4, "little")
    return bytes(data)

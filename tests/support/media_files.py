"""Creates small real files for tests, and files that make decoders take much memory or time."""

import array
import base64
import io
import math

import av
from PIL import Image

# 40 bytes: a lossless WebP of 64 megapixels of one colour.
WEBP_BOMB = base64.b64decode("UklGRiAAAABXRUJQVlA4TBQAAAAvP1/NBwdQgVQIIAAKmv7HiIj+Bw==")

# 88 bytes: 62 megapixels that must be decoded, because the picture is turned.
TURNED_WEBP_BOMB = base64.b64decode(
    "UklGRlAAAABXRUJQVlA4WAoAAAAIAAAA2x4A2x4AVlA4TA8AAAAv2962BwcQ/Y/+ByKi/wEARVhJRhoA"
    "AABNTQAqAAAACAABARIAAwAAAAEABgAAAAAAAA=="
)


def make_video(*colours: str, seconds: int = 2, side: int = 64, kind: str = "mp4") -> bytes:
    """Return a silent video that shows each colour for an equal time."""
    out, rate = io.BytesIO(), 8
    codec = {"webm": "libvpx"}.get(kind, "libx264")
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.thread_count = 1
        frames = seconds * rate
        for number in range(frames):
            image = Image.new("RGB", (side, side), colours[number * len(colours) // frames])
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    return out.getvalue()


def make_audio(*, seconds: float = 1.0, kind: str = "mp3", codec: str = "libmp3lame", rate: int = 48_000) -> bytes:
    """Return an audio file with a sine tone."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, int(rate * seconds), 960):
            wave = array.array("h", (int(9000 * math.sin(math.tau * 440 * (start + n) / rate)) for n in range(960)))
            frame = av.AudioFrame(format="s16", layout="mono", samples=960)
            frame.planes[0].update(wave.tobytes())
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def pixel_color(data: bytes, *, at: tuple[float, float] = (0.5, 0.5)) -> tuple[int, int, int]:
    """Return the colour at a point, given as fractions of width and height."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
        color = rgb.getpixel((int(at[0] * (rgb.width - 1)), int(at[1] * (rgb.height - 1))))
    assert isinstance(color, tuple)
    return color[0], color[1], color[2]


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

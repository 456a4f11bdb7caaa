"""Small real videos and sounds for tests, made with the library that browsers' formats come from."""

import array
import io
import math

import av
from PIL import Image


def film(*colours: str, seconds: int = 2, side: int = 64, kind: str = "mp4") -> bytes:
    """A silent video that shows each colour for an equal time."""
    out, rate = io.BytesIO(), 8
    codec = {"webm": "libvpx"}.get(kind, "libx264")
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.thread_count = 1
        frames = seconds * rate
        for number in range(frames):
            picture = Image.new("RGB", (side, side), colours[number * len(colours) // frames])
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return out.getvalue()


def sound(*, seconds: float = 1.0, kind: str = "mp3", codec: str = "libmp3lame", rate: int = 48_000) -> bytes:
    """A sine tone."""
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


def pixel(data: bytes, *, at: tuple[float, float] = (0.5, 0.5)) -> tuple[int, int, int]:
    """The colour of a picture at a place in shares of its sides."""
    with Image.open(io.BytesIO(data)) as picture:
        rgb = picture.convert("RGB")
        found = rgb.getpixel((int(at[0] * (rgb.width - 1)), int(at[1] * (rgb.height - 1))))
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]

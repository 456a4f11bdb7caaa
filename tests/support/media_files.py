"""Creates small real video and audio files for tests."""

import array
import io
import math

import av
from PIL import Image


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

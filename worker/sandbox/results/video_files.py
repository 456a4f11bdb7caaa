"""Videos: small real H.264 files that a browser plays, made with a few frames a second."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import av
from PIL import Image, ImageDraw

from worker.sandbox.results.drawing import filled, landscape, paste, write
from worker.sandbox.uploads.file_inspection import Thumb

FRAMES_PER_SECOND = 4
_GOLD, _SHADE = (255, 196, 40), (20, 24, 40)


@dataclass(frozen=True)
class Clip:
    text: str
    colour: int
    width: int
    height: int
    seconds: int
    first: Thumb | None = None
    last: Thumb | None = None
    pasted: tuple[Thumb, ...] = ()

    @property
    def media_type(self) -> str:
        return "video/mp4"

    def scaled(self, lines: int) -> "Clip":
        """The same video with another short side, never a larger one."""
        short = min(self.width, self.height)
        lines = min(max(lines, 64), short)
        return replace(self, width=_even(self.width * lines / short), height=_even(self.height * lines / short))


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)


def _scenes(clip: Clip) -> tuple[Image.Image, Image.Image]:
    """What the video fades from and to: the given frames, or the landscape."""
    width, height = clip.width, clip.height
    start = filled(clip.first, width, height) if clip.first else landscape(width, height, clip.colour)
    end = filled(clip.last, width, height) if clip.last else start
    scenes = (start.copy(), end.copy())
    for scene in scenes:
        paste(scene, clip.pasted)
        write(scene, clip.text, f"{clip.seconds} s", f"{width} x {height}")
    return scenes


def _ball(frame: Image.Image, share: float) -> None:
    """Something that moves, so that a player which hangs is seen; low, where no words are."""
    radius = max(4, min(frame.size) // 24)
    x = radius + share * (frame.width - 2 * radius)
    y = frame.height * 0.82
    draw = ImageDraw.Draw(frame)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_GOLD, outline=_SHADE, width=radius // 4)


def film(clip: Clip) -> bytes:
    """Encode the clip: colour at half size and the index in front, as browsers want it."""
    start, end = _scenes(clip)
    frames = clip.seconds * FRAMES_PER_SECOND
    # Moving the index to the front makes the library read its own output again: that takes a real file.
    with tempfile.TemporaryDirectory(prefix="sandbox-clip-") as folder:
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.options = {"preset": "ultrafast", "crf": "26"}
            stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
            # One core is shared with the event loop and with whoever tests against us.
            stream.codec_context.thread_count = 1
            for index in range(frames):
                share = index / max(1, frames - 1)
                frame = start.copy() if clip.last is None else Image.blend(start, end, share)
                _ball(frame, share)
                picture = av.VideoFrame.from_image(frame)  # type: ignore[no-untyped-call]
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return path.read_bytes()

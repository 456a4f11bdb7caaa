"""Renders videos: small real H.264 files with a few frames per second that browsers can play."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import av
from PIL import Image, ImageDraw

from worker.sandbox.results.drawing import draw_landscape, draw_text, fit_thumbnail, paste_references
from worker.sandbox.uploads.file_inspection import Thumbnail

FRAMES_PER_SECOND = 4
_GOLD, _SHADE = (255, 196, 40), (20, 24, 40)


@dataclass(frozen=True)
class VideoDrawing:
    text: str
    colour: int
    width: int
    height: int
    seconds: int
    first: Thumbnail | None = None
    last: Thumbnail | None = None
    references: tuple[Thumbnail, ...] = ()

    @property
    def media_type(self) -> str:
        return "video/mp4"

    def scaled(self, lines: int) -> "VideoDrawing":
        """Return the same video with a smaller short side."""
        short = min(self.width, self.height)
        lines = min(max(lines, 64), short)
        return replace(self, width=_even(self.width * lines / short), height=_even(self.height * lines / short))


def _even(side: float) -> int:
    return max(2, round(side / 2) * 2)


def _end_frames(drawing: VideoDrawing) -> tuple[Image.Image, Image.Image]:
    """Return the first and last image of the video: the given frames, or a landscape."""
    width, height = drawing.width, drawing.height
    start = (
        fit_thumbnail(drawing.first, width, height) if drawing.first else draw_landscape(width, height, drawing.colour)
    )
    end = fit_thumbnail(drawing.last, width, height) if drawing.last else start
    frames = (start.copy(), end.copy())
    for frame in frames:
        paste_references(frame, drawing.references)
        draw_text(frame, drawing.text, f"{drawing.seconds} s", f"{width} x {height}")
    return frames


def _draw_ball(frame: Image.Image, share: float) -> None:
    """Draw a moving ball below the text, which makes a hanging player visible."""
    radius = max(4, min(frame.size) // 24)
    x = radius + share * (frame.width - 2 * radius)
    y = frame.height * 0.82
    draw = ImageDraw.Draw(frame)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_GOLD, outline=_SHADE, width=radius // 4)


def render_video(drawing: VideoDrawing) -> bytes:
    """Encode the video with 4:2:0 colour and the index at the front, as browsers require."""
    start, end = _end_frames(drawing)
    frames = drawing.seconds * FRAMES_PER_SECOND
    # Moving the index to the front makes the library reread its output, which requires a real file.
    with tempfile.TemporaryDirectory(prefix="sandbox-video-") as folder:
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.options = {"preset": "ultrafast", "crf": "26"}
            stream.width, stream.height, stream.pix_fmt = drawing.width, drawing.height, "yuv420p"
            # The CPU is shared with the event loop and the tests.
            stream.codec_context.thread_count = 1
            for index in range(frames):
                share = index / max(1, frames - 1)
                frame = start.copy() if drawing.last is None else Image.blend(start, end, share)
                _draw_ball(frame, share)
                video_frame = av.VideoFrame.from_image(frame)  # type: ignore[no-untyped-call]
                container.mux(stream.encode(video_frame))
            container.mux(stream.encode())
        return path.read_bytes()

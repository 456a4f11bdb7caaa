"""Draws the images of the sandbox and the background of its videos."""

import io
import textwrap
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from worker.sandbox.uploads.file_inspection import Thumbnail

# Bands of 16 pixels align with JPEG blocks: they compress like flat colour.
_BAND = 16
_MAX_CHARACTERS = 240
_COLOURS = (
    ((24, 36, 84), (214, 108, 122), (250, 214, 137)),
    ((12, 62, 70), (64, 160, 130), (232, 226, 160)),
    ((52, 24, 78), (150, 86, 190), (244, 180, 206)),
    ((30, 44, 60), (86, 140, 190), (222, 238, 246)),
)
_SAVE: dict[str, dict[str, int]] = {
    "jpeg": {"quality": 82},
    "png": {"compress_level": 1},
    "webp": {"quality": 70, "method": 0},
}
_WHITE, _SHADE = (255, 255, 255), (20, 24, 40)


@dataclass(frozen=True)
class ImageDrawing:
    text: str
    colour: int
    label: str
    width: int
    height: int
    format: str
    # Thumbnails of the references.
    references: tuple[Thumbnail, ...] = ()
    # Background image: the first frame on the cover of a video.
    background: Thumbnail | None = None

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _mix(colours: tuple[tuple[int, int, int], ...], share: float) -> tuple[int, int, int]:
    scaled = share * (len(colours) - 1)
    index = min(int(scaled), len(colours) - 2)
    part = scaled - index
    low, high = colours[index], colours[index + 1]
    return (
        round(low[0] + (high[0] - low[0]) * part),
        round(low[1] + (high[1] - low[1]) * part),
        round(low[2] + (high[2] - low[2]) * part),
    )


def _printable(text: str) -> str:
    cleaned = "".join(character if character.isprintable() else " " for character in text)
    return cleaned[:_MAX_CHARACTERS] + ("..." if len(cleaned) > _MAX_CHARACTERS else "")


def draw_landscape(width: int, height: int, colour: int) -> Image.Image:
    """Draw sky bands and a sun whose position shows the variant."""
    colours = _COLOURS[colour % len(_COLOURS)]
    image = Image.new("RGB", (width, height), colours[0])
    draw = ImageDraw.Draw(image)
    for top in range(0, height, _BAND):
        draw.rectangle((0, top, width, top + _BAND - 1), fill=_mix(colours, top / height))
    radius = min(width, height) // 7
    x, y = width * (2 + 2 * (colour % 4)) // 10, int(height * 0.68)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_mix(colours[1:], 0.9))
    return image


def fit_thumbnail(thumbnail: Thumbnail, width: int, height: int) -> Image.Image:
    return ImageOps.fit(thumbnail.open(), (width, height))


def paste_references(image: Image.Image, thumbnails: tuple[Thumbnail, ...]) -> None:
    """Paste the references side by side across the middle, uncropped and framed."""
    if not thumbnails:
        return
    margin = max(4, image.width // 40)
    side = min(image.height * 2 // 5, (image.width - margin) // len(thumbnails) - margin)
    left = (image.width - len(thumbnails) * (side + margin) + margin) // 2
    for index, thumbnail in enumerate(thumbnails):
        small = ImageOps.expand(ImageOps.contain(thumbnail.open(), (side, side)), max(1, side // 60), _WHITE)
        x = left + index * (side + margin) + (side - small.width) // 2
        image.paste(small, (x, image.height // 2 - small.height // 2))


def draw_text(image: Image.Image, text: str, label: str, size: str) -> None:
    """Draw the prompt, the word sandbox, the pixel size and a label; outlined, as there can be a photo below."""
    width, height = image.size
    draw = ImageDraw.Draw(image)
    unit = max(10, min(width, height) // 22)
    wrapped = textwrap.fill(_printable(text), max(8, int(width / (unit * 0.68)))) or " "
    edge = max(1, unit // 12)
    draw.multiline_text(
        (unit, unit), wrapped, font=_font(unit), fill=_WHITE, spacing=unit // 3, stroke_width=edge, stroke_fill=_SHADE
    )
    foot = height - unit
    draw.text(
        (unit, foot),
        f"sandbox   {size}",
        font=_font(unit),
        fill=_SHADE,
        anchor="ls",
        stroke_width=edge,
        stroke_fill=_WHITE,
    )
    draw.text(
        (width - unit, foot),
        label,
        font=_font(unit * 2),
        fill=_SHADE,
        anchor="rs",
        stroke_width=edge,
        stroke_fill=_WHITE,
    )


def render_image(drawing: ImageDrawing) -> bytes:
    """Draw background, references and text, and return the encoded image."""
    width, height = drawing.width, drawing.height
    image = (
        fit_thumbnail(drawing.background, width, height)
        if drawing.background
        else draw_landscape(width, height, drawing.colour)
    )
    paste_references(image, drawing.references)
    draw_text(image, drawing.text, drawing.label, f"{width} x {height}")
    out = io.BytesIO()
    image.save(out, drawing.format.upper(), **_SAVE[drawing.format])
    return out.getvalue()

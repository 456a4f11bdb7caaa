"""Drawings: what a picture of the sandbox looks like, and the canvas its videos start from."""

import io
import textwrap
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from worker.sandbox.uploads.file_inspection import Thumb

# Edges of bands on multiples of 16 fall between JPEG blocks: a smooth look at the price of flat colour.
_BAND = 16
_SHOWN_CHARACTERS = 240
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
class Picture:
    text: str
    colour: int
    label: str
    width: int
    height: int
    format: str
    # References, to be seen in the result.
    pasted: tuple[Thumb, ...] = ()
    # A picture that fills everything: the first frame on the cover of a video.
    backdrop: Thumb | None = None

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
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown[:_SHOWN_CHARACTERS] + ("..." if len(shown) > _SHOWN_CHARACTERS else "")


def landscape(width: int, height: int, colour: int) -> Image.Image:
    """Sky bands and a sun whose place tells the variant."""
    colours = _COLOURS[colour % len(_COLOURS)]
    image = Image.new("RGB", (width, height), colours[0])
    draw = ImageDraw.Draw(image)
    for top in range(0, height, _BAND):
        draw.rectangle((0, top, width, top + _BAND - 1), fill=_mix(colours, top / height))
    radius = min(width, height) // 7
    x, y = width * (2 + 2 * (colour % 4)) // 10, int(height * 0.68)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_mix(colours[1:], 0.9))
    return image


def filled(thumb: Thumb, width: int, height: int) -> Image.Image:
    return ImageOps.fit(thumb.open(), (width, height))


def paste(image: Image.Image, thumbs: tuple[Thumb, ...]) -> None:
    """The references side by side across the middle, each whole and framed."""
    if not thumbs:
        return
    margin = max(4, image.width // 40)
    side = min(image.height * 2 // 5, (image.width - margin) // len(thumbs) - margin)
    left = (image.width - len(thumbs) * (side + margin) + margin) // 2
    for index, thumb in enumerate(thumbs):
        small = ImageOps.expand(ImageOps.contain(thumb.open(), (side, side)), max(1, side // 60), _WHITE)
        x = left + index * (side + margin) + (side - small.width) // 2
        image.paste(small, (x, image.height // 2 - small.height // 2))


def write(image: Image.Image, text: str, label: str, size: str) -> None:
    """Prompt, the word sandbox, pixel size and number; outlined where a photograph may lie below."""
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


def paint(picture: Picture) -> bytes:
    """The landscape or the backdrop, the references, and the words over them."""
    width, height = picture.width, picture.height
    image = filled(picture.backdrop, width, height) if picture.backdrop else landscape(width, height, picture.colour)
    paste(image, picture.pasted)
    write(image, picture.text, picture.label, f"{width} x {height}")
    out = io.BytesIO()
    image.save(out, picture.format.upper(), **_SAVE[picture.format])
    return out.getvalue()

"""Result pictures: signed links that expire, and drawings made on first sight and kept for the next one."""

import asyncio
import hashlib
import hmac
import io
import re
import secrets
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

_PATH = re.compile(r"tos-sandbox/([0-9a-f]{32})~resize:(\d{1,5}):(\d{1,5})\.(jpeg|png|webp)")
_KNOWN = 40_000
_CACHE_BYTES = 128 * 1024 * 1024
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

Link = Callable[[int, str], str]


@dataclass(frozen=True)
class Picture:
    text: str
    colour: int
    label: str
    width: int
    height: int
    format: str


class Gallery:
    """Knows which pictures exist, signs links to them and hands out their bytes."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._cache: OrderedDict[Picture, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._drawing: dict[Picture, asyncio.Future[bytes]] = {}
        # One thread: drawing more than one picture at a time would starve the event loop of its core.
        self._pencil = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-media")

    def keep(self, picture: Picture) -> str:
        key = _key(picture)
        self._pictures[key] = picture
        self._pictures.move_to_end(key)
        if len(self._pictures) > _KNOWN:
            self._pictures.popitem(last=False)
        return key

    def link(self, base: str, key: str, expires: float) -> Link:
        """A maker of links to one picture in any size and format; one signature serves them all."""
        second = int(expires)
        end = f"?x-expires={second}&x-signature={self._sign(key, second)}"
        start = f"{base}/_media/tos-sandbox/{key}~resize:"
        return lambda side, extension: f"{start}{side}:{side}.{extension}{end}"

    def _sign(self, key: str, second: int) -> str:
        return hmac.digest(self._secret, f"{key}|{second}".encode(), "sha256").hex()[:40]

    def allowed(self, path: str, *, expires: str, signature: str, now: float) -> bool:
        found = _PATH.fullmatch(path)
        if not found or not re.fullmatch(r"\d{1,12}", expires) or int(expires) <= now:
            return False
        return hmac.compare_digest(self._sign(found[1], int(expires)).encode(), signature.encode())

    def find(self, path: str) -> Picture | None:
        found = _PATH.fullmatch(path)
        picture = self._pictures.get(found[1]) if found else None
        if found is None or picture is None:
            return None
        width, height = _fit(picture, int(found[2]), int(found[3]))
        return replace(picture, width=width, height=height, format=found[4])

    async def draw(self, picture: Picture) -> bytes:
        """The bytes of a picture: from the cache, from a drawing under way, or newly drawn in a thread."""
        known = self._cache.get(picture)
        if known is not None:
            self._cache.move_to_end(picture)
            return known
        running = self._drawing.get(picture)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._pencil, paint, picture)
            self._drawing[picture] = running
            running.add_done_callback(lambda done: self._store(picture, done))
        # A visitor who hangs up must not cancel the drawing that others wait for.
        return await asyncio.shield(running)

    def _store(self, picture: Picture, done: "asyncio.Future[bytes]") -> None:
        self._drawing.pop(picture, None)
        if done.cancelled() or done.exception():
            return
        self._cache[picture] = done.result()
        self._cached_bytes += len(done.result())
        while self._cached_bytes > _CACHE_BYTES and self._cache:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    def forget(self) -> None:
        """Drop what is known; links made before stop working, the finished drawings stay useful."""
        self._secret = secrets.token_bytes(16)
        self._pictures.clear()


# Benches ask for the same few pictures thousands of times.
@lru_cache(maxsize=4096)
def _key(picture: Picture) -> str:
    return hashlib.sha256(repr(picture).encode()).hexdigest()[:32]


def _fit(picture: Picture, width: int, height: int) -> tuple[int, int]:
    if not width or not height:
        return picture.width, picture.height
    scale = min(width / picture.width, height / picture.height, 1.0)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


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


def paint(picture: Picture) -> bytes:
    """Sky bands, a sun whose place tells the variant, the prompt, and the number of the picture."""
    width, height = picture.width, picture.height
    colours = _COLOURS[picture.colour % len(_COLOURS)]
    image = Image.new("RGB", (width, height), colours[0])
    draw = ImageDraw.Draw(image)
    for top in range(0, height, _BAND):
        draw.rectangle((0, top, width, top + _BAND - 1), fill=_mix(colours, top / height))
    radius = min(width, height) // 7
    x, y = width * (2 + 2 * (picture.colour % 4)) // 10, int(height * 0.68)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_mix(colours[1:], 0.9))
    unit = max(10, min(width, height) // 22)
    wrapped = textwrap.fill(_printable(picture.text), max(8, int(width / (unit * 0.68)))) or " "
    white, shade = (255, 255, 255), (20, 24, 40)
    margin = unit
    draw.multiline_text((margin, margin), wrapped, font=_font(unit), fill=white, spacing=unit // 3)
    foot = height - margin
    draw.text((margin, foot), f"sandbox   {width} x {height}", font=_font(unit), fill=shade, anchor="ls")
    draw.text((width - margin, foot), picture.label, font=_font(unit * 2), fill=shade, anchor="rs")
    out = io.BytesIO()
    image.save(out, picture.format.upper(), **_SAVE[picture.format])
    return out.getvalue()

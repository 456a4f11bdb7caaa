"""Stores results: signed links that expire, and images and videos that are rendered at first access and cached."""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

from worker.sandbox.results.drawing import ImageDrawing, render_image
from worker.sandbox.results.video_files import VideoDrawing, render_video

_PATH = re.compile(r"tos-sandbox/([0-9a-f]{32})~(?:resize:(\d{1,5}):(\d{1,5})\.(jpeg|png|webp)|video:(\d{3,4})\.mp4)")
_MAX_RESULTS = 40_000
_CACHE_BYTES = 128 * 1024 * 1024

Link = Callable[[int, str], str]
Drawing = ImageDrawing | VideoDrawing


def render(work: Drawing) -> bytes:
    return render_video(work) if isinstance(work, VideoDrawing) else render_image(work)


class ResultStore:
    """Stores descriptions of results, signs links to them and renders their bytes."""

    def __init__(self, secret: str = "") -> None:
        """`secret` = links stay valid in the next process with the same one; "" = a random one."""
        self._secret = secret.encode() or secrets.token_bytes(16)
        self._drawings: OrderedDict[str, Drawing] = OrderedDict()
        self._cache: OrderedDict[Drawing, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._ready_at: OrderedDict[str, float] = OrderedDict()
        self._rendering: dict[Drawing, asyncio.Future[bytes]] = {}
        # One thread: rendering in parallel would take the event loop's CPU core.
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-media")

    def add(self, drawing: Drawing) -> str:
        key = _key(drawing)
        self._drawings[key] = drawing
        self._drawings.move_to_end(key)
        if len(self._drawings) > _MAX_RESULTS:
            self._drawings.popitem(last=False)
        return key

    def link(self, base: str, key: str, expires: float) -> Link:
        """Return a function that makes links to an image in any size and format; all share one signature."""
        second = int(expires)
        end = f"?x-expires={second}&x-signature={self._sign(key, second)}"
        start = f"{base}/_media/tos-sandbox/{key}~resize:"
        return lambda side, extension: f"{start}{side}:{side}.{extension}{end}"

    def video_link(self, base: str, key: str, expires: float) -> Callable[[int], str]:
        """Return a function that makes links to a video by the length of its short side."""
        second = int(expires)
        end = f"?x-expires={second}&x-signature={self._sign(key, second)}"
        return lambda lines: f"{base}/_media/tos-sandbox/{key}~video:{lines}.mp4{end}"

    def _sign(self, key: str, second: int) -> str:
        return hmac.digest(self._secret, f"{key}|{second}".encode(), "sha256").hex()[:40]

    def is_link_valid(self, path: str, *, expires: str, signature: str, now: float) -> bool:
        match = _PATH.fullmatch(path)
        if not match or not re.fullmatch(r"\d{1,12}", expires) or int(expires) <= now:
            return False
        return hmac.compare_digest(self._sign(match[1], int(expires)).encode(), signature.encode())

    def hold_back(self, key: str, until: float) -> None:
        """Make the links to a result fail until then, as a storage does that has the file a little later."""
        self._ready_at[key] = until
        if len(self._ready_at) > _MAX_RESULTS:
            self._ready_at.popitem(last=False)

    def is_held_back(self, path: str, now: float) -> bool:
        match = _PATH.fullmatch(path)
        return match is not None and self._ready_at.get(match[1], 0.0) > now

    def find(self, path: str) -> Drawing | None:
        match = _PATH.fullmatch(path)
        drawing = self._drawings.get(match[1]) if match else None
        if match is None or drawing is None:
            return None
        if isinstance(drawing, VideoDrawing):
            return drawing.scaled(int(match[5])) if match[5] else None
        if match[5]:
            return None
        width, height = _fit(drawing, int(match[2]), int(match[3]))
        return replace(drawing, width=width, height=height, format=match[4])

    async def get_bytes(self, drawing: Drawing) -> bytes:
        """Return the bytes of a result: cached, from a running rendering, or rendered in a thread."""
        cached = self._cache.get(drawing)
        if cached is not None:
            self._cache.move_to_end(drawing)
            return cached
        running = self._rendering.get(drawing)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._executor, render, drawing)
            self._rendering[drawing] = running
            running.add_done_callback(lambda done: self._store(drawing, done))
        # A client that disconnects must not cancel a rendering that others wait for.
        return await asyncio.shield(running)

    def _store(self, drawing: Drawing, done: "asyncio.Future[bytes]") -> None:
        self._rendering.pop(drawing, None)
        if done.cancelled() or done.exception():
            return
        self._cache[drawing] = done.result()
        self._cached_bytes += len(done.result())
        while self._cached_bytes > _CACHE_BYTES and self._cache:
            self._cached_bytes -= len(self._cache.popitem(last=False)[1])

    def clear(self) -> None:
        """Remove all results. Earlier links become invalid; the cache of rendered bytes stays."""
        self._secret = secrets.token_bytes(16)
        self._drawings.clear()
        self._ready_at.clear()


# Benchmarks request the same few results thousands of times.
@lru_cache(maxsize=4096)
def _key(drawing: Drawing) -> str:
    return hashlib.sha256(repr(drawing).encode()).hexdigest()[:32]


def _fit(drawing: ImageDrawing, width: int, height: int) -> tuple[int, int]:
    if not width or not height:
        return drawing.width, drawing.height
    scale = min(width / drawing.width, height / drawing.height, 1.0)
    return max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))

"""Results: signed links that expire, and drawings and videos made on first sight and kept for the next one."""

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

from worker.sandbox.results.drawing import Picture, paint
from worker.sandbox.results.video_files import Clip, film

_PATH = re.compile(r"tos-sandbox/([0-9a-f]{32})~(?:resize:(\d{1,5}):(\d{1,5})\.(jpeg|png|webp)|video:(\d{3,4})\.mp4)")
_KNOWN = 40_000
_CACHE_BYTES = 128 * 1024 * 1024

Link = Callable[[int, str], str]
Work = Picture | Clip


def make(work: Work) -> bytes:
    return film(work) if isinstance(work, Clip) else paint(work)


class Gallery:
    """Knows which pictures exist, signs links to them and hands out their bytes."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)
        self._pictures: OrderedDict[str, Work] = OrderedDict()
        self._cache: OrderedDict[Work, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._drawing: dict[Work, asyncio.Future[bytes]] = {}
        # One thread: drawing more than one picture at a time would starve the event loop of its core.
        self._pencil = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-media")

    def keep(self, picture: Work) -> str:
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

    def video_link(self, base: str, key: str, expires: float) -> Callable[[int], str]:
        """A maker of links to one video by the length of its short side."""
        second = int(expires)
        end = f"?x-expires={second}&x-signature={self._sign(key, second)}"
        return lambda lines: f"{base}/_media/tos-sandbox/{key}~video:{lines}.mp4{end}"

    def _sign(self, key: str, second: int) -> str:
        return hmac.digest(self._secret, f"{key}|{second}".encode(), "sha256").hex()[:40]

    def allowed(self, path: str, *, expires: str, signature: str, now: float) -> bool:
        found = _PATH.fullmatch(path)
        if not found or not re.fullmatch(r"\d{1,12}", expires) or int(expires) <= now:
            return False
        return hmac.compare_digest(self._sign(found[1], int(expires)).encode(), signature.encode())

    def find(self, path: str) -> Work | None:
        found = _PATH.fullmatch(path)
        picture = self._pictures.get(found[1]) if found else None
        if found is None or picture is None:
            return None
        if isinstance(picture, Clip):
            return picture.scaled(int(found[5])) if found[5] else None
        if found[5]:
            return None
        width, height = _fit(picture, int(found[2]), int(found[3]))
        return replace(picture, width=width, height=height, format=found[4])

    async def draw(self, picture: Work) -> bytes:
        """The bytes of a picture: from the cache, from a drawing under way, or newly drawn in a thread."""
        known = self._cache.get(picture)
        if known is not None:
            self._cache.move_to_end(picture)
            return known
        running = self._drawing.get(picture)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._pencil, make, picture)
            self._drawing[picture] = running
            running.add_done_callback(lambda done: self._store(picture, done))
        # A visitor who hangs up must not cancel the drawing that others wait for.
        return await asyncio.shield(running)

    def _store(self, picture: Work, done: "asyncio.Future[bytes]") -> None:
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
def _key(picture: Work) -> str:
    return hashlib.sha256(repr(picture).encode()).hexdigest()[:32]


def _fit(picture: Picture, width: int, height: int) -> tuple[int, int]:
    if not width or not height:
        return picture.width, picture.height
    scale = min(width / picture.width, height / picture.height, 1.0)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))

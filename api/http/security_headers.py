"""Headers that tell browsers what an answer may do: load, be framed, be kept, be sent on as a referrer."""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from worker.core.settings import get_settings

Header = tuple[bytes, bytes]

_HTML = b"text/html"
# JSON, text, events: nothing of it is to be run or shown as a page.
_NOTHING = "default-src 'none'; frame-ancestors 'none'"
# A picture or video opened by itself: browsers make a page around it.
FILE_POLICY = "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; sandbox"
_HSTS = (b"strict-transport-security", b"max-age=31536000")


@lru_cache(maxsize=4)
def _page_policy(public_url: str) -> str:
    """For our pages: scripts and styles from files of ours only. Results may be linked at PUBLIC_URL."""
    parts = urlsplit(public_url)
    results = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'self'; img-src 'self' data: blob:{results}; media-src 'self' blob:{results}; "
        f"connect-src 'self'{results}; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def protective_headers(sent: Iterable[Header]) -> list[Header]:
    """What an answer with these headers needs besides; what a route has said itself stays."""
    present = {name.lower(): value for name, value in sent}
    url = get_settings().public_url
    page = present.get(b"content-type", b"").startswith(_HTML)
    wanted = {
        b"x-content-type-options": b"nosniff",
        # Links to files are secrets, and must not be told to other sites.
        b"referrer-policy": b"no-referrer",
        b"content-security-policy": (_page_policy(url) if page else _NOTHING).encode(),
        b"x-frame-options": b"DENY",
        # What says nothing of caches is somebody's own.
        b"cache-control": b"no-store",
    }
    headers = [(name, value) for name, value in wanted.items() if name not in present]
    return [*headers, _HSTS] if url.startswith("https://") else headers

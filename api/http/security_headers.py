"""Browser security headers: content security policy, framing, referrer, caching, HSTS."""

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from worker.core.settings import get_settings

Header = tuple[bytes, bytes]

_HTML = b"text/html"
# JSON, text and events: a browser must not run anything in them or frame them.
_DENY_ALL = "default-src 'none'; frame-ancestors 'none'"
# An image or video opened directly: browsers build a page around it.
FILE_POLICY = "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; sandbox"
_HSTS = (b"strict-transport-security", b"max-age=31536000")


@lru_cache(maxsize=4)
def _page_policy(public_url: str) -> str:
    """Policy of our pages: scripts and styles only from our own files. Results may be served from PUBLIC_URL."""
    parts = urlsplit(public_url)
    results = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'self'; img-src 'self' data: blob:{results}; media-src 'self' blob:{results}; "
        f"connect-src 'self'{results}; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def security_headers(present_headers: Iterable[Header]) -> list[Header]:
    """Return the security headers that a response lacks; headers that the route set itself are kept."""
    present = {name.lower(): value for name, value in present_headers}
    url = get_settings().public_url
    page = present.get(b"content-type", b"").startswith(_HTML)
    defaults = {
        b"x-content-type-options": b"nosniff",
        # Links to files are secrets; other sites must not receive them.
        b"referrer-policy": b"no-referrer",
        b"content-security-policy": (_page_policy(url) if page else _DENY_ALL).encode(),
        b"x-frame-options": b"DENY",
        # A response without a cache policy belongs to one caller.
        b"cache-control": b"no-store",
    }
    headers = [(name, value) for name, value in defaults.items() if name not in present]
    return [*headers, _HSTS] if url.startswith("https://") else headers
